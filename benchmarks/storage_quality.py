"""The final loss with optimizer state or parameters in few bits, against float32.

The benchmark measures quality, not time. Two tasks on real data (`quality_tasks`), AdamW and Lion,
eight seeds of the images and three of the text; a seed gives the first parameters and all batches,
the same in every row. The learning rate, a warmup of a tenth and half a cosine to zero, was tuned
for float32 from RATES (`--tune`) and is the same in every row; all other arguments are at their
defaults. The table shows the final validation loss, in nats. A row is "within" if the mean of its
seeds lies between the best and the worst seed of float32, "better" below, "worse" above. The mean
difference to float32, seed by seed, with its standard error, is finer; how much of it is chance
shows the row "float32, nudged": the same training from parameters larger by a millionth.

Bfloat16 parameters are multiplied in float32, so that only their storage differs; their gradients
are rounded to bfloat16."""

import functools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from benchmarks import quality_tasks as tasks
from benchmarks.harness import ROOT, arguments, write_table

BF16 = jnp.bfloat16
LAST = 100
"""Over how many last steps the training loss is averaged."""
MIN_SIZE = 1024
"""All matrices are stored, and no bias."""
TASKS: dict[str, Callable[[Path], tasks.Task]] = {"fashion": tasks.fashion, "text": tasks.text}
OPTIMIZERS: dict[str, Callable[..., Any]] = {"adamw": gradtx.adamw, "lion": gradtx.lion}
RATES = {"adamw": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2), "lion": (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)}
CHOSEN = {
    ("fashion", "adamw"): 3e-3,
    ("fashion", "lion"): 1e-3,
    ("text", "adamw"): 1e-3,
    ("text", "lion"): 1e-3,
}
"""The best of RATES for float32, by the mean validation loss."""


class Config(NamedTuple):
    """A row: how state and parameters are kept."""

    name: str
    wrap: Callable[[Any], Any] = lambda tx: tx
    params: Any = jnp.float32
    rounding: str = "nearest"
    """Of the sum of parameters and updates: "nearest" or "stochastic"."""
    nudge: float = 0.0
    """By which part of themselves the first parameters are larger."""
    tasks: tuple[str, ...] = tuple(TASKS)


def state(
    codec: Any, rounding: Any = "stochastic", where: str | None = None
) -> Callable[[Any], Any]:
    """All matrices of the state by one codec; int4 stands for int4 first moments and int8 second
    ones.
    """
    return lambda tx: gradtx.stored(tx, codec, rounding=rounding, min_size=MIN_SIZE, where=where)


def master(format: Any) -> Callable[[Any], Any]:
    """Parameters in bfloat16, and what they lack for 24 or 32 bits in the state."""
    return lambda tx: gradtx.master_weights(tx, format)


CONFIGS = (
    Config("float32"),
    Config("float32, nudged", nudge=1e-6),
    Config("packed16, stochastic", state("packed16")),
    Config("bf16, stochastic", state("bf16")),
    Config("bf16, nearest", state("bf16", "nearest")),
    Config("int8, stochastic", state("int8")),
    Config("int8, embeddings too", state("int8", where=r".*"), tasks=("text",)),
    Config("int4 mu, int8 nu, stochastic", state("int4")),
    Config("int4 mu, int8 nu, nearest", state("int4", "nearest")),
    Config("bf16 params, master float32", master("float32"), BF16),
    Config("bf16 params, master bf16+8", master("bf16+8"), BF16),
    Config("bf16 params, master low16", master("low16"), BF16),
    Config("bf16 params, stochastic", params=BF16, rounding="stochastic"),
    Config("bf16 params, nearest", params=BF16),
)


class Outcome(NamedTuple):
    """One row of the record."""

    task: str
    optimizer: str
    kept: str
    learning_rate: float
    steps: int
    bytes_per_param: float
    """Of parameters and state."""
    valid: list[float]
    """The validation loss at the end, by seed."""
    train: list[float]
    """The mean training loss of the last 100 steps, by seed."""
    mean: float
    difference: float | None = None
    """Of the validation loss to float32, the mean over seeds."""
    error: float | None = None
    """The standard error of the difference."""
    differences: list[float] | None = None
    float32: list[float] | None = None
    """The best and the worst seed of float32."""
    verdict: str = ""


def optimizer(name: str, rate: float, steps: int) -> Any:
    return OPTIMIZERS[name](gradtx.warmup_cosine_decay_schedule(0.0, rate, steps // 10, steps))


def train(task: tasks.Task, name: str, rate: float, config: Config) -> Outcome:
    """All seeds of a row, in one program."""
    tx = config.wrap(optimizer(name, rate, task.steps))
    rngs = [np.random.default_rng(seed) for seed in range(task.seeds)]
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(task.init(rng) for rng in rngs))
    params = jax.tree.map(lambda leaf: (leaf * (1 + config.nudge)).astype(config.params), params)
    orders = jnp.stack([jnp.asarray(task.order(rng)) for rng in rngs])
    seeds = jax.jit(
        jax.vmap(functools.partial(run, task, tx, config.rounding), in_axes=(0, 0, None, None))
    )
    curves, valid = map(np.asarray, seeds(params, orders, task.train, task.valid))
    first = jax.eval_shape(
        lambda: (one := jax.tree.map(lambda leaf: leaf[0], params), tx.init(one))
    )
    size = sum(leaf.size for leaf in jax.tree.leaves(first[0]))
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(first))
    last = curves[:, -LAST:].mean(axis=1)
    return Outcome(
        task.name,
        name,
        config.name,
        rate,
        task.steps,
        held / size,
        valid.tolist(),
        last.tolist(),
        float(valid.mean()),
    )


def run(
    task: tasks.Task, tx: Any, rounding: str, params: Any, order: jax.Array, data: Any, valid: Any
) -> tuple[jax.Array, jax.Array]:
    """The training loss of every step, and the validation loss at the end."""

    def step(carry: Any, indices: jax.Array) -> Any:
        params, state = carry
        value, grads = jax.value_and_grad(task.loss)(params, task.take(data, indices))
        updates, state = tx.update(grads, state, params)
        drawn = {"rounding": rounding, "step": state.count} if rounding == "stochastic" else {}
        return (gradtx.apply_updates(params, updates, **drawn), state), value

    (params, _), curve = jax.lax.scan(step, (params, tx.init(params)), order)
    return curve, task.loss(params, valid)


def judged(one: Outcome, exact: Outcome) -> Outcome:
    """A row against that of float32."""
    differences = [mine - theirs for mine, theirs in zip(one.valid, exact.valid, strict=True)]
    low, high = min(exact.valid), max(exact.valid)
    verdict = "within" if low <= one.mean <= high else "better" if one.mean < low else "worse"
    mean, error = (
        float(np.mean(differences)),
        float(np.std(differences, ddof=1) / len(differences) ** 0.5),
    )
    return one._replace(
        difference=mean, error=error, differences=differences, float32=[low, high], verdict=verdict
    )


def measure(
    task: tasks.Task, name: str, only: str, known: Mapping[Any, Outcome]
) -> Iterator[Outcome]:
    """The rows of one task and optimizer, float32 first; those that are known are not trained
    again.
    """
    exact = None
    for config in CONFIGS:
        if task.name in config.tasks and (only in config.name or config is CONFIGS[0]):
            rate = CHOSEN[task.name, name]
            outcome = known.get((task.name, name, config.name, rate, task.steps)) or train(
                task, name, rate, config
            )
            exact = exact or outcome
            yield judged(outcome, exact)


def read(record: str) -> list[dict[str, Any]]:
    return json.loads(Path(record).read_text(encoding="utf-8"))["rows"] if record else []


def line(one: Outcome) -> str:
    spread = f"{min(one.valid):.4f}-{max(one.valid):.4f}"
    row = (
        f"{one.task:8} {one.optimizer:6} {one.kept:34} {one.bytes_per_param:6.2f} B  "
        f"{one.mean:.4f} ({spread})"
    )
    row += f"  train {np.mean(one.train):.4f}"
    return (
        row
        if one.difference is None
        else f"{row}  {one.difference:+.4f} ± {one.error:.4f}  {one.verdict}"
    )


def tune(task: tasks.Task) -> None:
    """The validation loss of float32 over RATES."""
    for name, rates in RATES.items():
        for rate in rates:
            print(f"rate {rate:6.0e}  {line(train(task, name, rate, CONFIGS[0]))}", flush=True)


def main() -> int:
    options = arguments(
        __doc__,
        fashion=tasks.FASHION,
        text=tasks.TEXT,
        task="",
        optimizer="",
        only="",
        tune="",
        keep="",
        draw="",
    )
    if options.draw:
        return draw(read(options.draw))
    folders = {"fashion": options.fashion, "text": options.text}
    selected = [TASKS[name](Path(folders[name])) for name in TASKS if options.task in name]
    if options.tune:
        for task in selected:
            tune(task)
        return 0
    known = {(one := Outcome(**row))[:5]: one for row in read(options.keep)}
    outcomes = []
    for task, name in [
        (task, name) for task in selected for name in OPTIMIZERS if options.optimizer in name
    ]:
        for outcome in measure(task, name, options.only, known):
            outcomes.append(outcome._asdict())
            print(line(outcome), flush=True)
    if not (options.dry or options.only or options.task or options.optimizer):
        print(f"record: {write_table('storage_quality', outcomes).relative_to(ROOT)}")
        return draw(outcomes)
    return 0


def draw(rows: Sequence[Mapping[str, Any]]) -> int:
    from benchmarks.storage_picture import PICTURE, draw_differences

    draw_differences(rows)
    print(f"picture: {PICTURE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
