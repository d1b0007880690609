"""Migrate from Optax: the same training script with either library, only the import differs.

    python examples/migrate_from_optax.py       # about ten seconds on two cores

`train` is the script: it receives the library as an argument and uses common names only.
Every optimizer of the list trains the same network on the same batches. The table shows the losses
side by side."""

import argparse
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import gradtx

try:
    import _network as network
    import numpy as np
    import optax
    import optax.contrib
    from rich.console import Console
    from rich.table import Table
except ImportError as error:
    missing = (
        (error.name or str(error)).split(".", maxsplit=1)[0].replace("sklearn", "scikit-learn")
    )
    sys.exit(
        f"examples/migrate_from_optax.py needs {missing}: "
        "install it with pip install 'gradtx[examples]' optax."
    )

SIZES = (64, 64, 10)
BATCH = 128
SHOWN = (1, 10, 50, 100, 200)
"""The steps whose losses are printed, before the largest relative difference of any step."""


def adamw(library: ModuleType, steps: int) -> Any:
    """AdamW with a clip, warmup, and weight decay of matrices only."""
    rate = library.warmup_cosine_decay_schedule(
        init_value=0.0, peak_value=5e-3, warmup_steps=steps // 10, decay_steps=steps
    )
    return library.chain(
        library.clip_by_global_norm(1.0), library.adamw(rate, weight_decay=0.01, mask=is_matrix)
    )


def is_matrix(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def two_groups(library: ModuleType, steps: int) -> Any:
    """Parameter groups: another learning rate for the last layer, momentum for biases."""
    groups = {"kernel": library.nadam(3e-3), "bias": library.sgd(0.1, momentum=0.9)}
    return library.partition(
        groups,
        lambda params: {"layers": [{"bias": "bias", "kernel": "kernel"} for _ in params["layers"]]},
    )


def schedule_free(library: ModuleType, steps: int) -> Any:
    """A method without a schedule, with the loss at the trained parameters."""
    maker = library.schedule_free_adamw if library is gradtx else optax.contrib.schedule_free_adamw
    return maker(5e-3, warmup_steps=steps // 10)


def rate_in_the_state(library: ModuleType, steps: int) -> Any:
    """Hyperparameters in the state, which may change between steps."""
    return library.inject_hyperparams(library.lamb)(
        learning_rate=library.linear_schedule(0.005, 0.0005, steps)
    )


SCRIPTS: dict[str, Callable[[ModuleType, int], Any]] = {
    "clip + adamw": adamw,
    "partition": two_groups,
    "schedule-free": schedule_free,
    "injected lamb": rate_in_the_state,
}


class Losses(NamedTuple):
    """The loss before every step, of each library."""

    optax: np.ndarray
    gradtx: np.ndarray

    @property
    def largest_difference(self) -> float:
        return float(np.max(np.abs(self.optax - self.gradtx) / np.abs(self.optax)))


def train(
    library: ModuleType, make: Callable[[ModuleType, int], Any], images: network.Images, steps: int
) -> np.ndarray:
    """Run the script, whose text is the same for both libraries."""
    rng = np.random.default_rng(0)
    params = network.init(rng, SIZES)
    tx = make(library, steps)
    state = tx.init(params)

    @jax.jit
    def step(params: Any, state: Any, batch: Any) -> Any:
        loss, grads = jax.value_and_grad(network.loss)(params, network.take(images, batch))
        updates, state = tx.update(grads, state, params)
        return library.apply_updates(params, updates), state, loss

    losses = []
    for batch in network.batches(rng, len(images.x), BATCH, steps):
        params, state, loss = step(params, state, jnp.asarray(batch))
        losses.append(float(loss))
    return np.array(losses)


def table(results: dict[str, Losses], steps_shown: Sequence[int]) -> Table:
    """A table with two rows per optimizer: Optax's losses and gradtx's losses."""
    result = Table(
        title="Cross-entropy of a step's batch, nats per image; the largest relative difference",
        title_justify="left",
        title_style="bold",
    )
    for name in ("optimizer", "library"):
        result.add_column(name)
    for name in (*(f"step {step}" for step in steps_shown), "difference"):
        result.add_column(name, justify="right")
    for name, losses in results.items():
        result.add_row(name, "optax", *(f"{losses.optax[step - 1]:.5f}" for step in steps_shown))
        difference = f"{losses.largest_difference:.0e}"
        result.add_row(
            "",
            "gradtx",
            *(f"{losses.gradtx[step - 1]:.5f}" for step in steps_shown),
            difference,
            end_section=True,
        )
    return result


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else None
    )
    parser.add_argument(
        "--steps", type=int, default=SHOWN[-1], help=f"training steps ({SHOWN[-1]})"
    )
    steps = parser.parse_args(arguments).steps
    if steps < SHOWN[1]:
        parser.error(f"--steps {steps}: at least {SHOWN[1]} steps are needed")
    images = network.load(0).train
    results = {
        name: Losses(*(train(library, make, images, steps) for library in (optax, gradtx)))
        for name, make in SCRIPTS.items()
    }
    steps_shown = [step for step in SHOWN if step < steps] + [steps]
    Console().print(table(results, steps_shown))


if __name__ == "__main__":
    main()
