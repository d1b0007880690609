"""The evidence for the recipe of transformers: each part on top of Muon, all tuned equally.

A decoder-only transformer of 1.02 million parameters predicts the next character of Shakespeare's
works, 360 steps of 1,536 characters. Every method makes the same number of trials, by a coordinate
search over grids (`frontier_search`): AdamW, Muon and SOAP from their usual values, and a part on
top of Muon from the best of Muon's first 14 trials, so that their totals are equal. AdamW has as
many hyperparameters as the others: two rates, decay, both betas, warmup, cooldown. All rates end at
0. A trial's loss is that of a part of the text that no training sees.

Then three other seeds train with the best hyperparameters, at the full number of steps and at fewer
(`LADDER`), and a third part of the text gives the loss. A seed gives the first parameters and the
order of the data, the same for every method, so differences are taken seed by seed. The steps of a
method to AdamW's last loss are interpolated between its own whole runs of different lengths.

The King James Bible is the held-out task: nothing is tuned on it, and the hyperparameters are those
of Shakespeare. Fashion-MNIST, with a classifier of 0.27 million parameters, is a second task with a
tuning of its own.

The whole takes six hours of two quiet cores. Every trial is a row of
benchmarks/records/frontier/TASK.csv. A run makes the rows that are missing:

    python -m benchmarks.frontier --budget 60            one hour, then stop; again to go on
    python -m benchmarks.frontier --worker 0/2 & python -m benchmarks.frontier --worker 1/2
    python -m benchmarks.frontier --tasks shakespeare --methods muon,mud --stages tune
    python -m benchmarks.frontier --stages final --lengths 1    whole runs before shorter ones
    python -m benchmarks.frontier --report               the table and the picture
    python -m benchmarks.frontier --quick                all of it in five minutes, a toy"""

import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.frontier_methods import BASES, STARTS
from benchmarks.frontier_parts import METHODS, missing
from benchmarks.frontier_report import BARS, show
from benchmarks.frontier_search import Point, Search
from benchmarks.frontier_tasks import PLACES, TASKS, Task
from benchmarks.frontier_trials import Key, Log, Program, Row, read_point, train, write_point
from benchmarks.harness import RECORDS, ROOT, arguments

FOLDER = RECORDS / "frontier"
TRIALS, PARENT_TRIALS = 20, 14
"""For every method; and of its parent, which are part of these."""
TUNE_SEED, SEEDS = 0, (1, 2, 3)
LADDER = (1.0, 0.5)
"""The lengths of the final runs, as fractions of the full number of steps."""
STAGES = ("tune", "final")
HELD_OUT = "bible"
SHORT_TOO = (*BASES, "recipe")
"""The methods that make short runs on the held-out task too; of the others it shows losses."""
QUICK = {"methods": "adamw,muon,normuon", "tasks": "shakespeare,bible"}
WAIT = 20
"""Seconds between two looks for trials of another process."""


class OutOfTime(Exception):
    """The budget does not allow another trial."""


class Blocked(Exception):
    """The trials that this job needs are another process's, and are not there yet."""


class Settings(NamedTuple):
    """How much is computed."""

    trials: int = TRIALS
    parent_trials: int = PARENT_TRIALS
    seeds: Sequence[int] = SEEDS
    ladder: Sequence[float] = LADDER


class Job(NamedTuple):
    """Trials of one method on one task."""

    task: str
    method: str
    stage: str
    length: float = 1.0


class Run:
    """The trials of one process."""

    def __init__(self, log: Log, tasks: dict[str, Task], settings: Settings, minutes: float):
        self.log, self.tasks, self.settings = log, tasks, settings
        self.deadline = time.monotonic() + 60 * minutes
        self.longest: dict[str, float] = {}
        self.program: tuple[tuple[str, str], Program] | None = None

    def trial(self, key: Key) -> Row:
        """A row of the log, or a new one."""
        if row := self.log.find(key):
            return row
        began = time.monotonic()
        if began + self.longest.get(key.task, 0.0) > self.deadline:
            raise OutOfTime
        row = train(self.tasks[key.task], self.program_of(key.task, key.method), key)
        self.log.append(row)
        elapsed = time.monotonic() - began
        self.longest[key.task] = max(self.longest.get(key.task, 0.0), elapsed)
        print(
            f"{row.task:12} {row.method:20} {row.stage:5} {row.steps:4} {row.seed}  "
            f"{row.loss:.4f}  {row.hyperparams}  ({row.seconds:.0f} s CPU, {elapsed:.0f} s)",
            flush=True,
        )
        return row

    def program_of(self, task: str, method: str) -> Program:
        """The last program is stored, because a job uses one for all of its trials."""
        if self.program is None or self.program[0] != (task, method):
            self.program = ((task, method), Program(self.tasks[task], method))
        return self.program[1]

    def do(self, job: Job) -> None:
        if job.stage == "tune":
            self.tune(job.task, job.method)
            return
        task = self.tasks[job.task]
        point = tuned(self.log, task.tuned, job.method, self.settings)
        steps = round(job.length * task.steps)
        for seed in self.settings.seeds:
            self.trial(Key(job.task, job.method, "final", steps, seed, write_point(point)))

    def tune(self, task: str, method: str) -> None:
        one = METHODS[method]
        start = {**STARTS, **{name: grid.start for name, grid in one.grids.items()}}
        count = self.settings.trials
        if one.parent:
            first = self.settings.parent_trials
            start |= best_of(tune_rows(self.log, task, one.parent)[:first], first)
            count -= first

        def loss(point: Point) -> float:
            key = Key(task, method, "tune", self.tasks[task].steps, TUNE_SEED, write_point(point))
            return self.trial(key).loss

        Search(one.grids, start, loss, count).run()


def tune_rows(log: Log, task: str, method: str) -> list[Row]:
    return [row for row in log.rows(task) if row.method == method and row.stage == "tune"]


def best_of(rows: Sequence[Row], count: int) -> Point:
    """The hyperparameters of the lowest loss, once all trials are there."""
    if len(rows) < count:
        raise Blocked
    return read_point(min(rows, key=lambda row: row.loss).hyperparams)


def tuned(log: Log, task: str, method: str, settings: Settings) -> Point:
    """The best hyperparameters of a method's own trials."""
    count = settings.trials - (settings.parent_trials if METHODS[method].parent else 0)
    return best_of(tune_rows(log, task, method), count)


def jobs(tasks: Sequence[str], methods: Sequence[str], ladder: Sequence[float]) -> Iterator[Job]:
    """All jobs, in an order that gives a whole picture early: the bars before the parts."""
    tuned_tasks = [task for task in tasks if task != HELD_OUT]
    yield from (Job(task, method, "tune") for task in tuned_tasks for method in methods)
    finals = [
        Job(task, method, "final", length)
        for task in tasks
        for method in methods
        for length in lengths(task, method, ladder)
    ]
    yield from sorted(finals, key=lambda job: (job.length < 1, job.method not in SHORT_TOO))


def lengths(task: str, method: str, ladder: Sequence[float]) -> Sequence[float]:
    """The lengths of the final runs of a method on a task."""
    if method == "recipe":
        return (*ladder, BARS["optax_muon"])  # a run of as many steps as the bar allows
    return ladder if task != HELD_OUT or method in SHORT_TOO else (1.0,)


def work(run: Run, mine: Sequence[Job]) -> None:
    """Do all jobs; those that wait for another process are tried again."""
    left = list(mine)
    while left:
        blocked = []
        for job in left:
            try:
                run.do(job)
            except Blocked:
                blocked.append(job)
        if len(blocked) == len(left):
            if time.monotonic() + WAIT > run.deadline:
                raise OutOfTime
            time.sleep(WAIT)
        left = blocked


def available(names: Sequence[str]) -> list[str]:
    """The methods that this version of gradtx can build."""
    reasons = {name: missing(METHODS[name]) for name in names}
    for name, reason in reasons.items():
        if reason is not None:
            print(f"left out: {name} ({reason})")
    return [name for name, reason in reasons.items() if reason is None]


def selected(names: str, table: Sequence[str]) -> list[str]:
    return [name for name in table if not names or name in names.split(",")]


def main() -> int:
    options = arguments(
        __doc__,
        **{task: str(path) for task, path in PLACES.items()},
        tasks="",
        methods="",
        stages="",
        lengths="",
        worker="0/1",
        budget=str(24 * 60),
        folder=str(FOLDER),
        quick=False,
        report=False,
    )
    if options.quick:
        return quick(options)
    names = selected(options.tasks, list(TASKS))
    if not options.report:
        methods = available(selected(options.methods, list(METHODS)))
        compute(options, names, methods, Settings())
    return report(options, names)


def compute(
    options: Namespace, names: Sequence[str], methods: Sequence[str], settings: Settings
) -> None:
    tasks = {name: TASKS[name](Path(getattr(options, name))) for name in names}
    if options.quick:
        tasks = {name: shortened(task) for name, task in tasks.items()}
    part, parts = map(int, options.worker.split("/"))
    run = Run(Log(Path(options.folder)), tasks, settings, float(options.budget))
    stages = selected(options.stages, STAGES)
    wanted = [float(length) for length in options.lengths.split(",") if length]
    all_jobs = [
        job
        for job in jobs(names, methods, settings.ladder)
        if job.stage in stages and (not wanted or job.length in wanted)
    ]
    try:
        work(run, all_jobs[part::parts])
    except OutOfTime:
        print("the budget is spent; the same command goes on from here")


def shortened(task: Task) -> Task:
    return task._replace(steps=20, valid=task.valid[:1], test=task.test[:1])


def quick(options: Namespace) -> int:
    """All stages with few trials of few steps, which show that the harness works."""
    options.folder = str(Path(ROOT, "benchmarks", "data", "frontier_quick"))
    names = selected(options.tasks or QUICK["tasks"], list(TASKS))
    methods = selected(options.methods or QUICK["methods"], list(METHODS))
    compute(options, names, methods, Settings(3, 2, SEEDS[:2], LADDER))
    return report(options, names)


def report(options: Namespace, names: Sequence[str]) -> int:
    return show(Log(Path(options.folder)), names, draws=not options.quick)


if __name__ == "__main__":
    sys.exit(main())
