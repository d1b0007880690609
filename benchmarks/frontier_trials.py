"""One trial of `frontier`: a training, and its row in a CSV file."""

import csv
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from benchmarks.frontier_parts import METHODS
from benchmarks.frontier_tasks import Task

POINTS = 10
"""The curve has so many losses, at equal distances; the last is at the end."""
HOPELESS = 1.5
"""A loss that is higher than the first one by this factor ends a trial."""


class Key(NamedTuple):
    """What a trial is; a log has one row for each key."""

    task: str
    method: str
    stage: str
    """"tune": the loss is of `valid`, and chooses hyperparameters; "final": it is of `test`."""
    steps: int
    seed: int
    """Of the first parameters and of the order of the data, the same for every method."""
    hyperparams: str


class Row(NamedTuple):
    """A row of the log: a key, and the outcome."""

    task: str
    method: str
    stage: str
    steps: int
    seed: int
    hyperparams: str
    loss: float
    curve: str
    """Losses of `valid`."""
    seconds: float
    """CPU time of the training steps, without compiling and losses."""

    @property
    def key(self) -> Key:
        return Key(self.task, self.method, self.stage, self.steps, self.seed, self.hyperparams)

    @property
    def losses(self) -> list[float]:
        return [float(loss) for loss in self.curve.split()]


def write_point(point: Mapping[str, float]) -> str:
    return " ".join(f"{name}={value:g}" for name, value in point.items())


def read_point(text: str) -> dict[str, float]:
    pairs = (pair.split("=") for pair in text.split())
    return {name: float(value) for name, value in pairs}


class Log:
    """The rows of a folder, a file for each task. Several processes may append at once."""

    def __init__(self, folder: Path):
        self.folder = folder

    def rows(self, task: str) -> list[Row]:
        path = self.folder / f"{task}.csv"
        if not path.exists():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            return [_row(fields) for fields in csv.DictReader(file)]

    def find(self, key: Key) -> Row | None:
        return next((row for row in self.rows(key.task) if row.key == key), None)

    def append(self, row: Row) -> None:
        path = self.folder / f"{row.task}.csv"
        self.folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(",".join(Row._fields) + "\n", encoding="utf-8")
        # One short write at the end of a file is atomic, so rows of two processes do not mix.
        with path.open("a", encoding="utf-8") as file:
            file.write(",".join(map(str, row)) + "\n")


def _row(fields: Mapping[str, str]) -> Row:
    kinds = Row.__annotations__
    return Row(**{name: kinds[name](text) for name, text in fields.items()})


class Program:
    """A task compiled for one method; hyperparameters and the number of steps are data.

    A trial is a run of its own: `vmap` over two rates took 0.97 of the time of two runs.
    """

    def __init__(self, task: Task, method: str):
        self.task, self.build = task, METHODS[method].build
        self.init = jax.jit(self._init)
        self.step = jax.jit(self._step, donate_argnums=(2, 3))
        self.eval_params = jax.jit(self._eval_params)

    def _init(self, hp: Any, steps: Any, params: Any) -> Any:
        return self.build(hp, steps).init(params)

    def _step(self, hp: Any, steps: Any, params: Any, state: Any, batch: Any) -> Any:
        grads = jax.grad(self.task.loss)(params, batch)
        updates, state = self.build(hp, steps).update(grads, state, params)
        return gradtx.apply_updates(params, updates), state

    def _eval_params(self, hp: Any, steps: Any, params: Any, state: Any) -> Any:
        tx = self.build(hp, steps)
        is_ours = isinstance(tx, gradtx.GradientTransformation)
        return gradtx.eval_params(tx, state, params) if is_ours else params


@functools.cache
def held_out_loss(loss: Callable[[Any, Any], jax.Array]) -> Callable[[Any, Any], jax.Array]:
    return jax.jit(loss)


def mean_loss(task: Task, params: Any, batches: Sequence[Any]) -> float:
    return float(np.mean([held_out_loss(task.loss)(params, batch) for batch in batches]))


def train(task: Task, program: Program, key: Key) -> Row:
    """Make one trial."""
    rng = np.random.default_rng(key.seed)
    # A copy, because the step donates its parameters.
    params = jax.tree.map(jnp.copy, task.init(rng))
    hp = {name: jnp.float32(value) for name, value in read_point(key.hyperparams).items()}
    data = (hp, jnp.float32(key.steps))
    state, averaged = program.init(*data, params), params
    curve, seconds = list[float](), 0.0
    limit = HOPELESS * mean_loss(task, params, task.valid)
    for point in range(POINTS):
        start, end = (key.steps * (point + after) // POINTS for after in (0, 1))
        began = time.process_time()
        for number in range(start, end):
            params, state = program.step(*data, params, state, task.batch(rng))
            if number == 0:  # it compiled
                jax.block_until_ready(params)
                began = time.process_time()
        jax.block_until_ready(params)
        seconds += time.process_time() - began
        averaged = program.eval_params(*data, params, state)
        curve.append(mean_loss(task, averaged, task.valid))
        if not curve[-1] < limit:
            return _outcome(key, math.inf, curve, seconds)
    loss = mean_loss(task, averaged, task.test) if key.stage == "final" else curve[-1]
    return _outcome(key, loss, curve, seconds)


def _outcome(key: Key, loss: float, curve: Sequence[float], seconds: float) -> Row:
    losses = " ".join(f"{loss:.5f}" for loss in curve)
    return Row(*key, float(f"{loss:.6f}"), losses, float(f"{seconds:.2f}"))
