"""The table of `frontier` and its bars: final losses, and steps and seconds to AdamW's loss.

Differences are taken seed by seed, and intervals are those of Student's t at 95 %."""

import itertools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.frontier_parts import METHODS
from benchmarks.frontier_trials import Log, Row
from benchmarks.harness import write_table

STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}
"""Of the mean of so many seeds: 97.5 % of Student's distribution is below it."""
ADAMW, MUON, RECIPE = "adamw", "optax_muon", "recipe"
BARS = {ADAMW: 0.5, MUON: 0.85}
"""The recipe needs no more than this fraction of the steps of a method, to that method's loss."""


class Interval(NamedTuple):
    """A mean over seeds, and the half of its interval; the half of a single seed is unknown."""

    mean: float
    half: float
    is_limit: bool = False
    """Whether the mean is only an upper limit: the shortest runs are better than was asked for."""

    def show(self, digits: int) -> str:
        if math.isnan(self.mean):
            return ""
        half = "?" if math.isnan(self.half) else f"{self.half:.{digits}f}"
        return f"{'≤ ' if self.is_limit else ''}{self.mean:.{digits}f} ± {half}"


class Result(NamedTuple):
    """A method on a task."""

    task: str
    method: str
    steps: int
    """The full number."""
    losses: Mapping[int, float]
    """By seed, at the full number of steps."""
    loss: Interval
    added: Interval
    """The loss minus that of the method's parent or, without one, AdamW's."""
    fractions: Mapping[str, Interval]
    """Steps to the loss of AdamW and of Muon, as fractions of the full number."""
    step_seconds: float
    """CPU time, the median over seeds."""
    curve: tuple[float, ...]
    """The mean over seeds."""
    hyperparams: str


def interval(values: Sequence[float]) -> Interval:
    count = len(values)
    if count < 2:
        return Interval(values[0], math.nan)
    half = STUDENT[count] * statistics.stdev(values) / math.sqrt(count)
    return Interval(statistics.fmean(values), half)


def final_rows(rows: Sequence[Row], method: str) -> list[Row]:
    return [row for row in rows if row.stage == "final" and row.method == method]


def full_length(rows: Sequence[Row]) -> int:
    return max(row.steps for row in rows if row.stage == "final")


def losses_at(rows: Sequence[Row], method: str, steps: int) -> dict[int, float]:
    """By seed."""
    return {row.seed: row.loss for row in final_rows(rows, method) if row.steps == steps}


def results(log: Log, task: str) -> list[Result]:
    """Of every method whose full runs are there; none as long as AdamW's are not."""
    rows = log.rows(task)
    if not final_rows(rows, ADAMW):
        return []
    steps = full_length(rows)
    done = [name for name in METHODS if losses_at(rows, name, steps)]
    return [result(rows, task, name, steps) for name in done]


def result(rows: Sequence[Row], task: str, method: str, steps: int) -> Result:
    full = [row for row in final_rows(rows, method) if row.steps == steps]
    losses = losses_at(rows, method, steps)
    parents = losses_at(rows, METHODS[method].parent or ADAMW, steps)
    shared = sorted(losses.keys() & parents.keys())
    added = [losses[seed] - parents[seed] for seed in shared] or [math.nan]
    return Result(
        task,
        method,
        steps,
        losses,
        interval(list(losses.values())),
        interval(added),
        {name: fraction(rows, method, name, steps) for name in BARS},
        statistics.median(row.seconds / row.steps for row in full),
        tuple(np.mean([row.losses for row in full if math.isfinite(row.loss)] or [[math.nan]], 0)),
        full[0].hyperparams,
    )


def fraction(rows: Sequence[Row], method: str, other: str, steps: int) -> Interval:
    """The steps that a method needs to the loss of another one, over the full number of steps.

    For each seed a line in the logarithm of the steps goes through the two losses, of the method's
    own runs of different lengths, that are nearest to the other's loss.
    """
    targets = losses_at(rows, other, steps)
    ladders = {
        seed: sorted((row.steps, row.loss) for row in final_rows(rows, method) if row.seed == seed)
        for seed in targets
    }
    needs = [
        float(steps) if method == other else steps_to(ladders[seed], target)
        for seed, target in targets.items()
    ]
    known = [need / steps for need in needs if not math.isnan(need)]
    shortest = min((ladder[0][0] for ladder in ladders.values() if ladder), default=0)
    is_limit = any(need <= shortest for need in needs)
    return interval(known)._replace(is_limit=is_limit) if known else Interval(math.nan, math.nan)


def steps_to(ladder: Sequence[tuple[int, float]], target: float) -> float:
    """The steps to a loss; nan where one length is all there is.

    Beyond the longest run the line goes on. Below the shortest one its length is the answer, an
    upper limit, because a line from longer runs may promise too much.
    """
    if len(ladder) < 2 or not all(math.isfinite(loss) for _, loss in ladder):
        return math.nan
    pairs = list(itertools.pairwise(ladder))
    (short, high), (long, low) = next((two for two in pairs if two[1][1] <= target), pairs[-1])
    if high <= low:
        return math.nan
    return max(ladder[0][0], short * (long / short) ** ((high - target) / (high - low)))


WIDTHS = {
    "task": 12,
    "method": 28,
    "loss": 17,
    "added": 18,
    "steps to AdamW": 15,
    "steps to optax": 15,
    "a step": 8,
    "to loss": 8,
}
"""Columns of the printed table."""


def cells(one: Result) -> dict[str, str]:
    """A row of the table, and of the record."""
    to_adamw, to_muon = (one.fractions[name] for name in (ADAMW, MUON))
    seconds = to_adamw.mean * one.steps * one.step_seconds
    texts = (
        one.task,
        METHODS[one.method].title,
        one.loss.show(4),
        "" if one.method == ADAMW else one.added.show(4),
        to_adamw.show(2),
        to_muon.show(2),
        f"{1e3 * one.step_seconds:.0f} ms",
        "" if math.isnan(seconds) else f"{seconds:.0f} s",
    )
    return dict(zip(WIDTHS, texts, strict=True))


def line(texts: Mapping[str, str]) -> str:
    return " ".join(f"{texts[name]:{width}}" for name, width in WIDTHS.items()).rstrip()


def verdicts(all_results: Sequence[Result]) -> Iterator[str]:
    """The bars of the recipe, met or missed."""
    for one in (one for one in all_results if one.method == RECIPE):
        for other, bar in BARS.items():
            need = one.fractions[other]
            verdict = "MET" if need.mean <= bar else "MISSED"
            sure = "" if abs(need.mean - bar) > need.half else ", within the interval"
            yield (
                f"{one.task}: the recipe needs {need.show(3)} of the steps of "
                f"{METHODS[other].title} to its loss; bar {bar}: {verdict}{sure}"
            )


def lines(all_results: Sequence[Result]) -> Iterator[str]:
    yield line({name: name for name in WIDTHS})
    yield from (line(cells(one)) for one in all_results)
    yield (
        "added: the loss minus that of the method that the row builds on (Muon or AdamW), by seed; "
        "steps: fractions of the full number; seconds: CPU time"
    )
    yield from verdicts(all_results)


def hyperparams(all_results: Sequence[Result]) -> Iterator[str]:
    """The tuned numbers of every method, once for each tuning."""
    for one in all_results:
        if one.task != "bible":
            names = METHODS[one.method].grids
            pairs = [
                pair for pair in one.hyperparams.split() if not names or pair.split("=")[0] in names
            ]
            yield f"{one.task:12} {METHODS[one.method].title:26} {' '.join(pairs)}"


def show(log: Log, names: Sequence[str], draws: bool) -> int:
    """Print the table, draw the picture; 1 where a bar is missed."""
    outcomes = [one for name in names for one in results(log, name)]
    if not outcomes:
        print("the final runs of AdamW are not there yet: no table")
        return 0
    print("\n".join([*lines(outcomes), "", *hyperparams(outcomes)]))
    if draws:
        from benchmarks.frontier_picture import draw

        rows = [{**cells(one), "hyperparams": one.hyperparams} for one in outcomes]
        print(f"record: {write_table('frontier', rows).name}")
        print(f"picture: {draw(outcomes)}")
    return int(any("MISSED" in verdict for verdict in verdicts(outcomes)))
