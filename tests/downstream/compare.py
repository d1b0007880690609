"""Run a row with Optax, with gradtx by a changed import, and with `to_optax`."""

import functools
import importlib
from typing import Any, NamedTuple

import numpy as np

import gradtx
from gradtx.interop.to_optax import to_optax
from tests.downstream import frameworks, inference, solvers
from tests.downstream.row import Row

ROWS = [*frameworks.ROWS, *inference.ROWS, *solvers.ROWS]
optax: Any = importlib.import_module("optax")
WAYS = "direct", "to_optax"


class Result(NamedTuple):
    """The losses of Optax and of gradtx."""

    theirs: np.ndarray
    ours: np.ndarray

    @property
    def difference(self) -> float:
        """The largest difference of two losses, relative to Optax's loss at the same step."""
        return float(np.max(np.abs(self.ours / self.theirs - 1)))

    @property
    def trains(self) -> bool:
        """Whether the losses fall: a row that does not train would compare nothing."""
        return self.ours[-1] < self.ours[0] - 1e-2 * abs(self.ours[0])


@functools.cache
def losses_of_optax(row: Row) -> np.ndarray:
    return as_array(row.train(row.make(optax), optax))


def compare(row: Row, way: str) -> Result:
    tx = row.make(gradtx)
    ours = row.train(to_optax(tx) if way == "to_optax" else tx, gradtx)
    result = Result(losses_of_optax(row), as_array(ours))
    assert result.trains, f"{row.name} does not train: {result.ours}"
    return result


def as_array(losses: list[Any]) -> np.ndarray:
    return np.asarray([float(loss) for loss in losses])
