"""A coordinate search over grids with a fixed number of trials, the same for every method."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from benchmarks.frontier_methods import Grid

Point = dict[str, float]


class Best(NamedTuple):
    """A point, and its loss."""

    point: Point
    loss: float


class Spent(Exception):
    """All trials are made."""


class Search:
    """Moves one hyperparameter at a time to a neighbour on its grid, as long as the loss falls.

    After a round without a better neighbour it tries random neighbours in all coordinates. Thus
    every method makes exactly `count` trials. The order follows from the losses alone, so a resumed
    search makes the same moves.
    """

    def __init__(
        self,
        grids: Mapping[str, Grid],
        start: Mapping[str, float],
        evaluate: Callable[[Point], float],
        count: int,
    ):
        self.grids, self.evaluate, self.count = grids, evaluate, count
        self.losses: dict[tuple[float, ...], float] = {}
        self.best = Best(dict(start), math.inf)

    def run(self) -> Best:
        try:
            self.try_point(self.best.point)
            while self.round():
                pass
            self.wander(np.random.default_rng(0))
        except Spent:
            pass
        return self.best

    def try_point(self, point: Point) -> bool:
        """Whether a point is better than the best so far."""
        key = tuple(point.values())
        if key in self.losses:
            return False
        if len(self.losses) == self.count:
            raise Spent
        self.losses[key] = loss = self.evaluate(point)
        if is_better := loss < self.best.loss:
            self.best = Best(point, loss)
        return is_better

    def round(self) -> bool:
        """Whether any coordinate moved."""
        moves = [self.line(name) for name in self.grids]
        return any(moves)

    def line(self, name: str) -> bool:
        """Move one coordinate: up as long as that is better, else down."""
        for move in (1, -1):
            moved = False
            while (point := self.neighbour({name: move})) and self.try_point(point):
                moved = True
            if moved:
                return True
        return False

    def neighbour(self, moves: Mapping[str, int]) -> Point | None:
        """The best point with some coordinates moved on their grids; None beyond an end."""
        point = dict(self.best.point)
        for name, move in moves.items():
            values = self.grids[name].values
            place = values.index(point[name]) + move
            if not 0 <= place < len(values):
                return None
            point[name] = values[place]
        return point

    def wander(self, rng: np.random.Generator) -> None:
        for number in range(100 * self.count):
            radius = 1 + number // (10 * self.count)  # further once all neighbours are tried
            steps = rng.integers(-radius, radius + 1, len(self.grids))
            if point := self.neighbour(dict(zip(self.grids, steps.tolist(), strict=True))):
                self.try_point(point)
