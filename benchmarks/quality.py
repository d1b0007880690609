"""Train a small network with every optimizer over a grid of learning rates.

The benchmark measures quality, not time. All learning rates and seeds of one optimizer run in one
vmapped program, at its default arguments. It reports the best learning rate (by the mean validation
loss over seeds), its validation loss and test accuracy, and the valley: the factor by which the
learning rate may vary while the validation loss stays below 1.25 of the best. The task is small, so
the table shows which methods work without tuning, not which one is best on large models. The table
goes into docs/choose.md."""

import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from benchmarks.harness import ROOT, arguments, write_table

sys.path.insert(0, str(Path(ROOT, "examples")))
import _network as network

SIZES, BATCH, STEPS, SEEDS = (64, 32, 10), 64, 300, 3
RATES = np.geomspace(1e-5, 10, 37)
VALLEY = 1.25
PAGE = Path(ROOT, "docs", "choose.md")
ARGUMENTS: dict[str, dict[str, Any]] = {"noisy_sgd": {"learning_rate": 1.0, "key": 0}}
"""The calls that are not `name(1.0)`."""
LEFT_OUT = ("dpsgd", "lbfgs", "sophia")
"""They need gradients per example, or the loss as a function, and are for other tasks."""


class Result(NamedTuple):
    """One optimizer."""

    optimizer: str
    rate: float
    loss: float
    accuracy: float
    valley: float


def names() -> list[str]:
    stems = sorted(path.stem for path in Path(ROOT, "gradtx", "optimizers").glob("[a-z]*.py"))
    return [name for name in stems if name not in LEFT_OUT]


def make(name: str) -> Any:
    maker = getattr(gradtx, name)
    return maker(**ARGUMENTS[name]) if name in ARGUMENTS else maker(1.0)


def rate_name(tx: Any) -> str:
    """The hyperparameter that is varied."""
    return "max_learning_rate" if "max_learning_rate" in gradtx.hyperparams(tx) else "learning_rate"


@functools.partial(jax.jit, static_argnames="name")
def train_all(
    tx: Any, rates: jax.Array, starts: Any, orders: jax.Array, data: network.Data, name: str
) -> Any:
    """The loss and the accuracy by seed and rate."""
    by_rate = jax.vmap(
        lambda rate, start, order: train(tx, rate, start, order, data, name),
        in_axes=(0, None, None),
    )
    return jax.vmap(by_rate, in_axes=(None, 0, 0))(rates, starts, orders)


def train(
    tx: Any, rate: jax.Array, params: Any, order: jax.Array, data: network.Data, name: str
) -> tuple[jax.Array, jax.Array]:
    rated = gradtx.replace(tx, **{rate_name(tx): rate})

    def step(carry: Any, batch: jax.Array) -> Any:
        params, state = carry
        value, grads = jax.value_and_grad(network.loss)(params, network.take(data.train, batch))
        updates, state = rated.update(grads, state, params, value=value)
        return (gradtx.apply_updates(params, updates), state), None

    (params, state), _ = jax.lax.scan(step, (params, rated.init(params)), order)
    judged = (
        gradtx.schedule_free_eval_params(state, params)
        if name.startswith("schedule_free")
        else params
    )
    return network.loss(judged, data.valid), network.accuracy(judged, data.test)


def measure(name: str, starts: Any, orders: jax.Array, data: network.Data) -> Result:
    loss, accuracy = map(
        np.asarray,
        train_all(make(name), jnp.asarray(RATES, jnp.float32), starts, orders, data, name),
    )
    mean = np.where(np.isfinite(loss), loss, np.inf).mean(axis=0)
    best = int(np.argmin(mean))
    good = mean <= VALLEY * mean[best]
    low, high = best, best
    while low > 0 and good[low - 1]:
        low -= 1
    while high < len(RATES) - 1 and good[high + 1]:
        high += 1
    return Result(
        name,
        float(RATES[best]),
        float(mean[best]),
        float(accuracy[:, best].mean()),
        float(RATES[high] / RATES[low]),
    )


def lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table of docs/choose.md, by validation loss."""
    cells = "| `{optimizer}` | {rate:.2g} | {loss:.3f} | {accuracy:.1%} | {width} |"
    widths = (
        f"{row['valley']:.2g}" if row["valley"] < 100 else f"{row['valley']:,.0f}" for row in rows
    )
    return [
        cells.format(**row, width=one)
        for row, one in sorted(zip(rows, widths, strict=True), key=lambda pair: pair[0]["loss"])
    ]


def publish(rows: Sequence[Mapping[str, Any]]) -> None:
    """Put the table in its place on the page."""
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.split("<!-- quality -->\n")
    head, rest = after.split("\n\n", maxsplit=1)
    table = [*head.splitlines()[:2], *lines(rows)]
    PAGE.write_text(
        f"{before}<!-- quality -->\n" + "\n".join(table) + f"\n\n{rest}", encoding="utf-8"
    )


def main() -> int:
    options = arguments(__doc__, only="")
    data = network.load(0)
    rngs = [np.random.default_rng(seed) for seed in range(SEEDS)]
    starts = jax.tree.map(
        lambda *leaves: jnp.stack(leaves), *(network.init(rng, SIZES) for rng in rngs)
    )
    orders = jnp.stack(
        [jnp.asarray(network.batches(rng, len(data.train.x), BATCH, STEPS)) for rng in rngs]
    )
    results = []
    for name in [one for one in names() if options.only in one]:
        results.append(measure(name, starts, orders, data))
        print(
            "{:28} rate {:8.2g}  loss {:.4f}  accuracy {:.2%}  valley {:8.3g}".format(*results[-1]),
            flush=True,
        )
    if not options.dry and not options.only:
        rows = [result._asdict() for result in results]
        print(f"record: {write_table('quality', rows).relative_to(ROOT)}")
        publish(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
