"""The result of a sweep: arrays with named axes, the best point, a table, plots."""

import dataclasses
import html
import os
from collections.abc import Mapping, Sequence
from typing import IO, Any

import jax
import numpy as np

from gradtx.compose.transformation import GradientTransformation
from gradtx.definition.config import to_config
from gradtx.definition.definition import Definition
from gradtx.definition.errors import ConfigError, GradtxError, HyperparamError
from gradtx.definition.show import show, show_table
from gradtx.definition.spelling import suggest
from gradtx.inspect.sweep_metric import (
    Mode,
    check_mode,
    final_values,
    find_metric,
    no_metric,
    one_training,
)
from gradtx.inspect.sweep_plots import (
    Axis,
    Scores,
    best_over,
    cell_text,
    plot_curve,
    plot_map,
    plot_points,
)
from gradtx.inspect.sweep_points import Points, definition_at
from gradtx.tree.paths import path_text

ROWS = 20
"""The number of points in a table, where the caller does not say."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SweepResult:
    """The results of a hyperparameter sweep: arrays with named axes.

    `print` it for the table of all points, best first. `result["loss"]` is a part of `values`.
    """

    tx: GradientTransformation
    """The definition that the sweep varied."""
    points: Points
    """The points in their order; iterate for one dict per point."""
    seeds: tuple[int, ...]
    """The seeds, along the last axis of the sweep; `()`: a sweep without seeds."""
    values: Any
    """The results of `train`, as NumPy arrays that begin with the axes `dims`."""
    metric: str | None
    """The path of the result that ranks the points; None: none does, see `rank_by`."""
    mode: Mode
    """Whether the smallest or the largest metric is the best."""

    @property
    def dims(self) -> tuple[str, ...]:
        """The names of the first axes of all results, in order."""
        return (*self.points.dims, *(("seeds",) if self.seeds else ()))

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes in `dims`."""
        return (*self.points.shape, *((len(self.seeds),) if self.seeds else ()))

    @property
    def axes(self) -> dict[str, np.ndarray]:
        """The values of each hyperparameter by name, and the seeds."""
        return {name: _as_array(values) for name, values in self._columns().items()}

    def _columns(self) -> dict[str, tuple[Any, ...]]:
        return {**self.points.axes, **({"seeds": self.seeds} if self.seeds else {})}

    @property
    def finals(self) -> np.ndarray:
        """The metric of each training at its end, float64 of shape `shape`."""
        if self.metric is None:
            raise no_metric(self.values)
        return final_values(self.values, self.metric, self.shape)

    @property
    def scores(self) -> np.ndarray:
        """The mean of `finals` over the seeds; nan for a point with a final that is not finite."""
        finals = np.where(np.isfinite(self.finals), self.finals, np.nan)
        return finals.mean(axis=-1) if self.seeds else finals

    @property
    def ranking(self) -> list[int]:
        """The numbers of the points, best first; those whose score is nan are last."""
        scores = self.scores.ravel() * (1 if self.mode == "min" else -1)
        return np.argsort(scores, kind="stable").tolist()

    @property
    def best(self) -> dict[str, Any]:
        """The hyperparameters of the best finite score.

        Raises:
          GradtxError: no score is finite, or no metric ranks the points.
        """
        return dict(list(self.points)[self._best_number()])

    @property
    def best_tx(self) -> GradientTransformation:
        """The definition of the best point."""
        return definition_at(self.tx, self.best)

    @property
    def best_score(self) -> float:
        """The score of the best point."""
        return float(self.scores.flat[self._best_number()])

    def _best_number(self) -> int:
        scores = self.scores
        if not np.isfinite(scores).any():
            faults = int(np.sum(~np.isfinite(self.finals)))
            raise GradtxError(
                f"sweep: no point has a finite {self._label}: {faults} of {self.finals.size} "
                "trainings ended in nan or infinity; try smaller learning rates, or put "
                "clip_by_global_norm in front"
            )
        return self.ranking[0]

    def rank_by(self, metric: str, mode: Mode = "min") -> "SweepResult":
        """Rank the same results by another metric, `rank_by("accuracy", mode="max")`.

        Raises:
          GradtxError: `train` returned no such result, or not one number per training or step.
        """
        check_mode(mode)
        path = find_metric(one_training(self.values, self.shape), metric)
        return dataclasses.replace(self, metric=path, mode=mode)

    def select(self, **point: Any) -> Any:
        """The results at some values by name; `select(weight_decay=0.1)` leaves that axis out.

        Raises:
          HyperparamError: the sweep has no axis of that name, or not that value.
        """
        index: list[Any] = [slice(None)] * len(self.shape)
        for name, value in point.items():
            if name not in self.dims:
                raise self._no_axis("select", name)
            values = self._columns().get(name, range(len(self.points)))
            index[self.dims.index(name)] = _place(name, values, value)
        return jax.tree.map(lambda leaf: leaf[tuple(index)], self.values)

    def _no_axis(self, where: str, name: str) -> HyperparamError:
        hint = suggest(name, self.dims)
        axes = ", ".join(self.dims)
        return HyperparamError(
            f"{where}: the sweep has no axis {name!r}{hint + ' Its' if hint else '; its'} axes are "
            f"{axes}"
        )

    def __getitem__(self, name: str | int) -> Any:
        parts = _parts(self.values)
        if name not in parts:
            shown = ", ".join(map(repr, parts))
            raise KeyError(
                f"train returned no {name!r}; it returned {shown or 'one array, see values'}"
            )
        return parts[name]

    def table(self, limit: int | None = ROWS, *, file: IO[str] | None = None) -> None:
        """Print one line per point, best first; `std` is the standard deviation over the seeds.

        Args:
          limit: the number of points; None: all.
          file: where to print; None: standard output.
        """
        print(self._text(limit), file=file)

    def plot(
        self, path: str | os.PathLike[str] | None = None, *, axes: Sequence[str] | None = None
    ) -> Any:
        """Plot the scores: a curve over one hyperparameter, a heat map over two.

        The band of a curve goes from the smallest to the largest seed. A geometric axis is
        logarithmic. Hyperparameters that are not shown are at their best. It needs matplotlib.

        Args:
          path: a file for the plot, `sweep.png` for example; None: no file.
          axes: the names of one or two hyperparameters; None: the first two with several values.

        Returns:
          The `matplotlib.figure.Figure`.

        Raises:
          GradtxError: matplotlib is not installed, or no metric ranks the points.
          HyperparamError: the sweep has no such axis.
        """
        names = self._plot_names(axes)
        columns = [Axis(name, self.points.axes[name]) for name in names]
        scores, title = self._plot_scores(), size_text(self.points, self.seeds)
        if self.points.is_grid:
            scores = best_over(scores, [self.dims.index(name) for name in names])
            hidden = [name for name in self._varying() if name not in names]
            title += f", best over {', '.join(hidden)}" if hidden else ""
        two = plot_map if self.points.is_grid else plot_points
        return (plot_curve if len(columns) == 1 else two)(columns, scores, title, path)

    def _plot_names(self, names: Sequence[str] | None) -> list[str]:
        """The hyperparameters of a plot: one or two."""
        known = self.points.axes
        if names is None:
            return (self._varying() or list(known))[:2]
        names = [names] if isinstance(names, str) else list(names)
        for name in names:
            if name not in known:
                raise self._no_axis("plot", name)
        if len({*names}) != len(names) or not 1 <= len(names) <= 2:
            raise HyperparamError(f"plot: axes = {show(names)} is not one or two names")
        return names

    def _varying(self) -> list[str]:
        """The hyperparameters with several values."""
        return [name for name, values in self.points.axes.items() if len({*map(repr, values)}) > 1]

    def _plot_scores(self) -> Scores:
        finals = self.finals if self.seeds else self.finals[..., None]
        low, high = finals.min(axis=-1), finals.max(axis=-1)
        return Scores(self._label, self.scores, low, high, self.mode == "min")

    def to_dict(self) -> dict[str, Any]:
        """The results as lists, numbers and texts for JSON; None for nan and infinity."""
        leaves = jax.tree_util.tree_flatten_with_path(self.values)[0]
        return {
            "definition": _json(self.tx),
            "dims": list(self.dims),
            "axes": {name: list(map(_json, values)) for name, values in self._columns().items()},
            "metric": self.metric,
            "mode": self.mode,
            "values": {path_text(path): _json(leaf) for path, leaf in leaves},
        }

    @property
    def _label(self) -> str:
        return self.metric or "result"

    def __repr__(self) -> str:
        try:
            best = ", ".join(f"{name}={cell_text(value)}" for name, value in self.best.items())
            end = f"best {self._label} {self.best_score:.4g} at {best}"
        except GradtxError:
            end = "no metric" if self.metric is None else f"no finite {self._label}"
        return f"SweepResult({size_text(self.points, self.seeds)}; {end})"

    def __str__(self) -> str:
        return repr(self) if self.metric is None else self._text(None)

    def _repr_html_(self) -> str:
        header, *rows = self._cells(ROWS) if self.metric is not None else [[]]
        lines = [
            f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows
        ]
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
        return f"<p>{html.escape(repr(self))}</p>{table if rows else ''}"

    def _cells(self, limit: int | None) -> list[list[str]]:
        """The header and the rows of the table."""
        points, scores, several = list(self.points), self.scores.ravel(), len(self.seeds) > 1
        finals = self.finals.reshape(len(points), -1)
        header = [*self.points.axes, self._label, *(["std"] if several else [])]
        rows = [
            [*map(cell_text, points[number].values()), f"{scores[number]:.4g}"]
            + ([_deviation(finals[number])] if several else [])
            for number in self.ranking[:limit]
        ]
        return [header, *rows]

    def _text(self, limit: int | None) -> str:
        hidden = len(self.points) - len(self.ranking[:limit])
        more = f"\n... and {hidden} points more" if hidden else ""
        return show_table(self._cells(limit), 0) + more


def size_text(points: Points, seeds: Sequence[int]) -> str:
    """The number of trainings, `64 × 3 trainings` with three seeds."""
    count = f"{len(points)} × {len(seeds)}" if seeds else f"{len(points)}"
    return f"{count} training{'' if count == '1' else 's'}"


def _deviation(finals: np.ndarray) -> str:
    return f"{finals.std(ddof=1):.2g}" if np.isfinite(finals).all() else "nan"


def _as_array(values: Sequence[Any]) -> np.ndarray:
    """Values as a NumPy array; of objects where they are not numbers of one kind, or texts."""
    kinds = {type(value) for value in values}
    if kinds <= {int, float} or (len(kinds) == 1 and kinds <= {bool, str}):
        return np.array(values)
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _place(name: str, values: Sequence[Any], value: Any) -> int:
    """The position of a value on its axis; a number may differ in the last digits of float32."""
    for number, one in enumerate(values):
        is_pair = all(isinstance(item, int | float | np.generic) for item in (one, value))
        if np.isclose(one, value, rtol=1e-6, atol=0) if is_pair else one is value or one == value:
            return number
    shown = ", ".join(map(cell_text, values))
    raise HyperparamError(f"select: {name} has no value {show(value)}; its values are {shown}")


def _parts(values: Any) -> dict[Any, Any]:
    """The parts of a result by name or position."""
    if isinstance(values, Mapping):
        return dict(values)
    if hasattr(values, "_fields"):
        return dict(zip(values._fields, values, strict=True))
    return dict(enumerate(values)) if isinstance(values, tuple | list) else {}


def _json(value: Any) -> Any:
    """A value as JSON has it; a definition as its config, another object as its text."""
    if isinstance(value, Definition):
        try:
            return to_config(value)
        except ConfigError:
            return repr(value)
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return _json(np.asarray(value).tolist())
    if isinstance(value, list):
        return [_json(one) for one in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if isinstance(value, bool | int | str | None) else show(value)
