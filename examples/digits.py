"""Train a network on handwritten digits, then compare textbook optimizers over learning rates.

    python examples/digits.py            # under a minute on two cores; pictures in examples/out

The first training uses AdamW behind a clip of the gradient norm, with a warmup-cosine schedule.
The script reads the learning rate from the definition while it trains. Then eight methods train
over a grid of learning rates each. All learning rates of one method run in one program, because a
batch of definitions is a definition."""

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

import gradtx

try:
    import _network as network
    import numpy as np
    from _plots import History, draw_race, draw_training
    from _race import METHODS, Result, race
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.table import Table
except ImportError as error:
    missing = (
        (error.name or str(error)).split(".", maxsplit=1)[0].replace("sklearn", "scikit-learn")
    )
    sys.exit(f"examples/digits.py needs {missing}: install it with pip install 'gradtx[examples]'.")

SIZES = (64, 128, 128, 10)
BATCH = 128
MAX_NORM = 1.0


class Size(NamedTuple):
    """The size of a run."""

    steps: int
    race_steps: int
    rates: int
    methods: tuple[str, ...]


FULL, QUICK = Size(600, 200, 41, tuple(METHODS)), Size(120, 60, 9, ("SGD", "Adam"))


def optimizer(steps: int) -> gradtx.GradientTransformation:
    """AdamW with a clip, warmup, cosine decay, and no weight decay of biases."""
    rate = gradtx.warmup_cosine_decay_schedule(
        init_value=0.0, peak_value=5e-3, warmup_steps=warmup(steps), decay_steps=steps
    )
    return gradtx.chain(
        gradtx.clip_by_global_norm(MAX_NORM), gradtx.adamw(rate, weight_decay=0.01, mask=r"kernel$")
    )


def warmup(steps: int) -> int:
    return steps // 10


@jax.jit(donate_argnames=("params", "state"))
def train_step(
    params: Any, state: Any, tx: gradtx.GradientTransformation, images: network.Images, batch: Any
) -> Any:
    """Compute one step; the optimizer is an argument like any other."""
    loss, grads = jax.value_and_grad(network.loss)(params, network.take(images, batch))
    updates, state = tx.update(grads, state, params)
    return gradtx.apply_updates(params, updates), state, loss, gradtx.global_norm(grads)


def train(
    tx: gradtx.GradientTransformation, data: network.Data, seed: int, steps: int, console: Console
) -> tuple[Any, History]:
    """Train with a progress bar."""
    rng = np.random.default_rng(seed)
    params = network.init(rng, SIZES)
    state = tx.init(params)
    history = History([], [], [], [], [], [])
    accuracy = jax.jit(network.accuracy)
    with progress(console) as bar:
        task = bar.add_task("training", total=steps, text="compiling")
        for step, batch in enumerate(network.batches(rng, len(data.train.x), BATCH, steps), 1):
            rate = float(gradtx.hyperparams(tx, at=state)["learning_rate"])
            params, state, *measured = train_step(params, state, tx, data.train, batch)
            loss, norm = map(float, measured)
            history.add_step(loss, rate, norm)
            bar.update(
                task,
                completed=step,
                text=f"loss {loss:.4f}  learning rate {rate:.4f}  grad norm {norm:.3f}",
            )
            if step % 10 == 0 or step in (1, steps):
                history.add_check(
                    step, float(accuracy(params, data.train)), float(accuracy(params, data.valid))
                )
    return params, history


def progress(console: Console) -> Progress:
    """A progress bar for a line of 80 characters."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=15),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
    )
    return Progress(*columns, console=console)


def run_race(data: network.Data, seed: int, size: Size, console: Console) -> dict[str, Result]:
    """Train every method over all learning rates."""
    rates, results = np.geomspace(1e-4, 10, size.rates), {}
    with progress(console) as bar:
        task = bar.add_task("racing", total=len(size.methods), text="")
        for name in size.methods:
            bar.update(task, text=f"{name}, {size.rates} learning rates at once")
            results[name] = race(METHODS[name], rates, data, seed, size.race_steps)
            bar.advance(task)
        bar.update(task, text="")
    return results


def race_table(results: Mapping[str, Result]) -> Table:
    """A table with one row per method, the best first."""
    table = Table(
        title="Each method at its best learning rate, selected by validation loss",
        title_justify="left",
        title_style="bold",
    )
    table.add_column("method")
    for name in ("learning rate", "validation loss", "test accuracy", "diverged"):
        table.add_column(name, justify="right")
    for name, result in sorted(results.items(), key=lambda item: item[1].loss[item[1].best]):
        best = result.best
        diverged = f"{result.diverged.sum()} of {len(result.rates)}"
        table.add_row(
            name,
            f"{result.rates[best]:.2g}",
            f"{result.loss[best]:.3f}",
            f"{result.accuracy[best]:.1%}",
            diverged,
        )
    return table


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else None
    )
    parser.add_argument("--steps", type=int, help=f"steps of the first training ({FULL.steps})")
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed of the split, the first weights and the batches (0)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("examples/out"),
        metavar="DIR",
        help="folder for the pictures (examples/out)",
    )
    parser.add_argument("--no-race", action="store_true", help="without the race")
    parser.add_argument("--quick", action="store_true", help="a small run, for a test")
    parsed = parser.parse_args(arguments)
    if parsed.steps is not None and parsed.steps < 1:
        parser.error(f"--steps {parsed.steps}: at least 1 step is needed")
    return parsed


def main(arguments: list[str] | None = None) -> None:
    options, console = parse(arguments), Console()
    size = QUICK if options.quick else FULL
    steps = options.steps or size.steps
    options.out.mkdir(parents=True, exist_ok=True)
    data = network.load(options.seed)
    tx = optimizer(steps)

    console.print(f"{tx}\n", markup=False)
    params, history = train(tx, data, options.seed, steps, console)
    accuracy = float(network.accuracy(params, data.test))
    count = len(data.test.x)
    console.print(f"\ntest accuracy {accuracy:.1%} ({round(accuracy * count)} of {count} images)\n")
    gradtx.summary(tx, params, file=console.file)
    file = options.out / "demo.png"
    title = (
        f"scikit-learn's digits, AdamW: {accuracy:.1%} of {count} test images correct "
        f"after {steps} steps"
    )
    draw_training(history, max_norm=MAX_NORM, warmup=warmup(steps), title=title, file=file)
    console.print(f"\npicture: {file}\n")
    if options.no_race:
        return

    start = time.perf_counter()
    results = run_race(data, options.seed, size, console)
    trainings = sum(len(result.rates) for result in results.values())
    console.print(
        f"\n{trainings} trainings of {size.race_steps} steps in "
        f"{time.perf_counter() - start:.0f} s, compilation included\n"
    )
    console.print(race_table(results))
    file = options.out / "race.png"
    title = (
        f"{len(results)} methods, {size.rates} learning rates each, {size.race_steps} steps: "
        "one program per method"
    )
    draw_race(results, title=title, file=file)
    console.print(f"\npicture: {file}")


if __name__ == "__main__":
    main()
