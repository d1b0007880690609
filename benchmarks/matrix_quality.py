"""Matrix optimizers against AdamW: steps and seconds to a fixed loss, all tuned equally.

Two tasks on real data, small enough for two CPU cores: clothes of 14 × 14 pixels (Fashion-MNIST, a
network of 196, 128, 128 and 10), and the next character of Shakespeare (a transformer of two blocks
of width 64). Every method gets five learning rates around its usual one, and three seeds; a seed
gives the first parameters and all batches, the same for every method. Rates rise over the first 10
steps, then stay. There is no weight decay. Where a method leaves embeddings, heads, norms and
biases to AdamW, their rate is 3e-3 in every row.

Every 10 steps a training measures the loss on held-out data. It ends at the target, whose step is
interpolated. The rate of a method is the one with the fewest steps, by the median over seeds; one
at an end of its grid is marked, since a wider grid could be better. Seconds are those of whole
training steps on this CPU, all methods in turn within one process at the end (`harness`); seconds
to the target are their median times the steps, so neither compiling nor the held-out loss is in
them.

Finished pieces stay in benchmarks/data/matrix_quality, by task and method, for the same settings:
`--task text --method soap` computes one piece, and a call without options the rest, the table, the
record, and the picture."""

import json
import math
import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import gradtx
from benchmarks import quality_tasks as tasks
from benchmarks.harness import (
    ROOT,
    RUNS,
    arguments,
    commit,
    interleave,
    middle,
    quartiles,
    seconds,
    write_table,
)
from benchmarks.matrix_tasks import METHODS, RACES, Race

EVERY, WARMUP, SEEDS = 10, 10, 3
PARTS = Path(ROOT, "benchmarks", "data", "matrix_quality")


class Outcome(NamedTuple):
    """One row of the record."""

    task: str
    method: str
    target: float
    rates: list[float]
    by_rate: list[list[float | None]]
    """Steps to the target, by rate and seed; None where it is not reached."""
    rate: float
    at_end: bool
    """Whether the best rate is an end of the grid."""
    steps: list[float | None]
    """Of the best rate, by seed."""
    curves: list[list[float]]
    """Of the best rate, by seed: the held-out loss every `every` steps, the first before any."""
    every: int
    seconds_per_step: Any = None
    """Median and quartiles."""
    seconds: float | None = None
    """To the target: the median number of steps times the median step."""
    commit: str = ""
    """At which the trainings were made, times apart."""


def optimizer(method: str, rate: float) -> Any:
    return METHODS[method].build(gradtx.warmup_constant_schedule(0.0, rate, WARMUP))


class Program:
    """A task compiled for one method; learning rates are data, so that all of them run in one
    program.
    """

    def __init__(self, task: tasks.Task):
        self.task = task
        self.steps = jax.jit(self._steps, donate_argnums=(1, 2))
        self.held_out = jax.jit(task.loss)

    def _steps(self, tx: Any, params: Any, state: Any, order: jax.Array, data: Any) -> Any:
        def step(carry: Any, indices: jax.Array) -> Any:
            params, state = carry
            grads = jax.grad(self.task.loss)(params, self.task.take(data, indices))
            updates, state = tx.update(grads, state, params)
            return (gradtx.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), order)[0]

    def start(self, tx: Any, seed: int) -> tuple[Any, Any, jax.Array]:
        rng = np.random.default_rng(seed)
        params = self.task.init(rng)
        return params, tx.init(params), jax.numpy.asarray(self.task.order(rng)[: self.task.steps])

    def curve(self, tx: Any, seed: int, target: float) -> list[float]:
        """The held-out loss every 10 steps, until it is the target, no number, or the steps are
        over.
        """
        params, state, order = self.start(tx, seed)
        losses = [float(self.held_out(params, self.task.valid))]
        if losses[0] <= target:
            raise ValueError(
                f"{self.task.name}: the first parameters have a loss of {losses[0]:.3f}, "
                f"and the target is {target}"
            )
        for first in range(0, len(order), EVERY):
            params, state = self.steps(
                tx, params, state, order[first : first + EVERY], self.task.train
            )
            losses.append(float(self.held_out(params, self.task.valid)))
            if not target < losses[-1] < math.inf:
                break
        return losses


def steps_to(target: float, curve: Sequence[float]) -> float | None:
    """Where the curve crosses the target, by a line between the two evaluations around it."""
    if not curve[-1] <= target:
        return None
    above, below = curve[-2:]
    return EVERY * (len(curve) - 2 + (above - target) / (above - below))


def middle_steps(steps: Sequence[float | None]) -> float:
    """The median over seeds; infinite where most do not arrive."""
    return statistics.median(math.inf if one is None else one for one in steps)


def race(one: Race, method: str, rates: Sequence[float], seeds: int) -> Outcome:
    """All learning rates and seeds of a method."""
    program, curves = Program(one.task), []
    for rate in rates:
        began = time.perf_counter()
        curves.append(
            [program.curve(optimizer(method, rate), seed, one.target) for seed in range(seeds)]
        )
        cell = ", ".join(
            "-" if (at := steps_to(one.target, curve)) is None else f"{at:.0f}"
            for curve in curves[-1]
        )
        last = statistics.median(curve[-1] for curve in curves[-1])
        print(
            f"{one.task.name:8} {method:10} {rate:7.1e}  {cell}  "
            f"(loss {last:.3f}, {time.perf_counter() - began:.1f} s)",
            flush=True,
        )
    by_rate = [[steps_to(one.target, curve) for curve in seeds] for seeds in curves]
    arrived = [
        (middle_steps(steps), statistics.median(curve[-1] for curve in seeds))
        for steps, seeds in zip(by_rate, curves, strict=True)
    ]
    best = arrived.index(min(arrived))
    at_end = best in (0, len(rates) - 1)
    return Outcome(
        one.task.name,
        method,
        one.target,
        list(rates),
        by_rate,
        rates[best],
        at_end,
        by_rate[best],
        curves[best],
        EVERY,
    )


def outcome(one: Race, method: str, options: Namespace) -> Outcome:
    """A piece, done now or before in this setting."""
    rates, seeds = (
        (METHODS[method].rates[1:4:2], 1) if options.quick else (METHODS[method].rates, SEEDS)
    )
    setting = {
        "target": one.target,
        "steps": one.task.steps,
        "rates": list(rates),
        "seeds": seeds,
        "every": EVERY,
        "warmup": WARMUP,
    }
    path = Path(options.parts, f"{one.task.name}-{method}.json")
    if (
        path.exists()
        and (stored := json.loads(path.read_text(encoding="utf-8")))["setting"] == setting
    ):
        return Outcome(**stored["outcome"])
    outcome = race(one, method, rates, seeds)._replace(commit=commit())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"setting": setting, "outcome": outcome._asdict()}), encoding="utf-8"
    )
    return outcome


def timed(one: Race, outcomes: Sequence[Outcome], runs: int) -> Iterator[Outcome]:
    """Every method with its seconds per step, ten steps of each in turn."""
    sides = {outcome.method: ten_steps(one, outcome) for outcome in outcomes}
    times = interleave(sides, runs)
    for outcome in outcomes:
        each, steps = quartiles(times[outcome.method]), middle_steps(outcome.steps)
        yield outcome._replace(
            seconds_per_step=each, seconds=steps * middle(each) if steps < math.inf else None
        )


def ten_steps(one: Race, outcome: Outcome) -> Callable[[], float]:
    """The mean seconds of ten training steps, of a training that goes on: refreshes are in them,
    what a first step prepares is not.
    """
    tx, program = optimizer(outcome.method, outcome.rate), Program(one.task)
    params, state, order = program.start(tx, 0)
    held: list[Any] = [(params, state)]

    def step() -> Any:
        held[0] = program.steps(tx, *held[0], order[:EVERY], one.task.train)
        return held[0]

    return lambda: seconds(step) / EVERY


def line(one: Mapping[str, Any], adam: Mapping[str, Any]) -> str:
    """A row of the table, beside AdamW's."""
    arrived = [step for step in one["steps"] if step is not None]
    steps, usual = middle_steps(one["steps"]), middle_steps(adam["steps"])
    partial = "" if len(arrived) == len(one["steps"]) else ", not all"
    spread = f"{min(arrived):.0f}-{max(arrived):.0f}{partial}" if arrived else ""
    cell = f"{steps:5.0f} ({spread})" if steps < math.inf else "not reached"
    ratio = f"{steps / usual:5.2f}" if max(steps, usual) < math.inf else "     "
    clock = f"{1e3 * middle(one['seconds_per_step']):7.2f} ms" if one["seconds_per_step"] else ""
    whole = f"{one['seconds']:6.2f} s" if one["seconds"] is not None else ""
    against = (
        f"{one['seconds'] / adam['seconds']:5.2f}" if one["seconds"] and adam["seconds"] else ""
    )
    rate = f"{one['rate']:7.1e}{'*' if one['at_end'] else ' '}"
    title = METHODS[one["method"]].title
    return f"{one['task']:8} {title:10} {rate} {cell:18} {ratio}  {clock:10}  {whole:8}  {against}"


def report(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The table, and who wins where."""
    steps = f"{'rate':8} {'steps (seeds)':18} {'/AdamW':6}"
    yield f"{'task':8} {'method':10} {steps} {'a step':10} {'to loss':8} {'/AdamW':6}"
    for task in dict.fromkeys(row["task"] for row in rows):
        of_task = [row for row in rows if row["task"] == task]
        adam = next((row for row in of_task if row["method"] == "adamw"), of_task[0])
        yield from (
            line(row, adam) for row in sorted(of_task, key=lambda row: middle_steps(row["steps"]))
        )
        yield from verdicts(task, of_task, adam)
    if any(row["at_end"] for row in rows):
        yield "* at an end of its grid of rates"


def verdicts(
    task: str, rows: Sequence[Mapping[str, Any]], adam: Mapping[str, Any]
) -> Iterator[str]:
    """Who needs the fewest steps, and who the least time."""
    for what, unit, figure in (("fewest steps", "", _steps), ("least time", " s", _seconds)):
        best = min(rows, key=figure)
        if figure(best) < math.inf:
            against = (
                f", {figure(best) / figure(adam):.2f} of AdamW's"
                if figure(adam) < math.inf and best is not adam
                else ""
            )
            title = METHODS[best["method"]].title
            yield (
                f"{task}, loss {adam['target']:g}: {what} {title}, "
                f"{figure(best):.3g}{unit}{against}"
            )


def _steps(row: Mapping[str, Any]) -> float:
    return middle_steps(row["steps"])


def _seconds(row: Mapping[str, Any]) -> float:
    return math.inf if row["seconds"] is None else row["seconds"]


def main() -> int:
    options = arguments(
        __doc__,
        fashion=tasks.FASHION,
        text=tasks.TEXT,
        task="",
        method="",
        parts=PARTS,
        draw="",
        times="yes",
        quick=False,
    )
    if options.draw:
        return finish(json.loads(Path(options.draw).read_text(encoding="utf-8"))["rows"])
    if options.quick:
        options.runs, options.dry = min(options.runs, 2), True
        options.parts = Path(options.parts, "quick")
    folders, rows = {"fashion": options.fashion, "text": options.text}, []
    for name in [name for name in RACES if options.task in ("", name)]:
        one = RACES[name](Path(folders[name]))
        if options.quick:
            one = Race(one.task._replace(steps=2 * EVERY), 1.4 * one.target)
        methods = [method for method in METHODS if options.method in ("", method)]
        outcomes = [outcome(one, method, options) for method in methods]
        if options.times == "yes":
            outcomes = timed(one, outcomes, options.runs)
        rows += [result._asdict() for result in outcomes]
    in_part = options.task or options.method or options.times != "yes"
    if options.dry or in_part or options.runs < RUNS:
        print("\n".join(report(rows)))
        return 0
    print(f"record: {write_table('matrix_quality', rows).relative_to(ROOT)}")
    return finish(rows)


def finish(rows: Sequence[Mapping[str, Any]]) -> int:
    from benchmarks.matrix_picture import PICTURE, draw_races

    print("\n".join(report(rows)))
    draw_races(rows)
    print(f"picture: {PICTURE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
