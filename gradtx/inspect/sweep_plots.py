"""The plots of a sweep: a curve over one hyperparameter, a heat map or points over two."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gradtx.definition.show import show
from gradtx.inspect.figures import COLORS, finish, new_axes

Path = str | os.PathLike[str] | None

WIDE = 10.0
"""The ratio of the largest to the smallest number from which on a scale is logarithmic."""


class Axis(NamedTuple):
    """One axis of a plot: a hyperparameter and its values."""

    name: str
    values: Sequence[Any]

    @property
    def is_number(self) -> bool:
        return all(
            isinstance(one, int | float | np.number) and not isinstance(one, bool)
            for one in self.values
        )

    @property
    def is_log(self) -> bool:
        return self.is_number and is_log(np.array(self.values, float))

    @property
    def places(self) -> np.ndarray:
        """The positions of the values: the numbers themselves, else 0, 1, 2, ..."""
        return np.array(self.values if self.is_number else range(len(self.values)), float)

    @property
    def texts(self) -> list[str]:
        return [cell_text(one) for one in self.values]


class Scores(NamedTuple):
    """The scores of the points: the mean over the seeds, and their range."""

    label: str
    """The name of the metric."""
    mean: np.ndarray
    """nan where a training did not end in a finite number."""
    low: np.ndarray
    high: np.ndarray
    is_min: bool
    """Whether the smallest score is the best."""

    @property
    def best(self) -> int | None:
        """The position of the best score among all; None: no score is finite."""
        if not np.isfinite(self.mean).any():
            return None
        return int(np.nanargmin(self.mean) if self.is_min else np.nanargmax(self.mean))


def best_over(scores: Scores, shown: Sequence[int]) -> Scores:
    """The scores over some axes, in their order, at the best place along all other axes."""
    others = [axis for axis in range(scores.mean.ndim) if axis not in shown]
    lengths = [scores.mean.shape[axis] for axis in shown]
    arrays = [
        np.transpose(array, (*shown, *others)).reshape(*lengths, -1)
        for array in (scores.mean, scores.low, scores.high)
    ]
    worst = np.inf if scores.is_min else -np.inf
    filled = np.where(np.isnan(arrays[0]), worst, arrays[0])
    index = filled.argmin(axis=-1) if scores.is_min else filled.argmax(axis=-1)
    mean, low, high = (
        np.take_along_axis(array, index[..., None], axis=-1)[..., 0] for array in arrays
    )
    return scores._replace(mean=mean, low=low, high=high)


def plot_curve(axis: Axis, scores: Scores, title: str, path: Path) -> Any:
    """Plot scores over one hyperparameter; the best one is marked."""
    axes, order = new_axes("plot"), np.argsort(axis.places, kind="stable")
    places, mean = axis.places[order], scores.mean[order]
    axes.fill_between(
        places, scores.low[order], scores.high[order], color=COLORS[0], alpha=0.2, lw=0
    )
    axes.plot(places, mean, color=COLORS[0], marker="o", ms=4, lw=1.5)
    if scores.best is not None:
        text = f"best: {axis.name} = {axis.texts[scores.best]}"
        axes.plot(
            axis.places[scores.best],
            scores.mean[scores.best],
            "*",
            color=COLORS[1],
            ms=14,
            label=text,
        )
    faults = places[np.isnan(mean)]
    if len(faults):
        # At the upper edge of the axes, whatever its scale.
        axes.plot(
            *(faults, np.ones(len(faults)), "x"),
            **{"color": COLORS[1], "clip_on": False, "label": "nan or infinity"},
            transform=axes.get_xaxis_transform(),
        )
    axes.set(
        xlabel=axis.name,
        ylabel=scores.label,
        title=title,
        xscale="log" if axis.is_log else "linear",
        yscale="log" if is_log(mean) else "linear",
    )
    if not axis.is_number:
        axes.set_xticks(axis.places, axis.texts)
    return finish(axes, path)


def plot_map(across: Axis, up: Axis, scores: Scores, title: str, path: Path) -> Any:
    """Plot scores over two hyperparameters as a heat map; the best one is marked."""
    axes = new_axes("plot")
    image = axes.imshow(
        scores.mean.T, origin="lower", aspect="auto", interpolation="nearest", **_colors(scores)
    )
    for row, column in np.argwhere(np.isnan(scores.mean)):
        axes.text(row, column, "×", ha="center", va="center", color=COLORS[1])
    if scores.best is not None:
        column, row = np.unravel_index(scores.best, scores.mean.shape)
        _mark_best(axes, column, row)
    axes.set_xticks(
        range(len(across.values)), across.texts, rotation=45 if len(across.values) > 8 else 0
    )
    axes.set_yticks(range(len(up.values)), up.texts)
    return _finish_map(axes, image, across, up, scores, title, path)


def plot_points(across: Axis, up: Axis, scores: Scores, title: str, path: Path) -> Any:
    """Plot the points of a list over two hyperparameters, colored by their scores."""
    axes = new_axes("plot")
    finite = np.isfinite(scores.mean)
    image = axes.scatter(
        across.places[finite], up.places[finite], c=scores.mean[finite], s=60, **_colors(scores)
    )
    axes.plot(
        *(across.places[~finite], up.places[~finite], "x"),
        color=COLORS[1],
        label=None if finite.all() else "nan or infinity",
    )
    if scores.best is not None:
        _mark_best(axes, across.places[scores.best], up.places[scores.best])
    axes.set(xscale="log" if across.is_log else "linear", yscale="log" if up.is_log else "linear")
    if not across.is_number:
        axes.set_xticks(across.places, across.texts)
    if not up.is_number:
        axes.set_yticks(up.places, up.texts)
    return _finish_map(axes, image, across, up, scores, title, path)


def _mark_best(axes: Any, across: Any, up: Any) -> None:
    axes.plot(*(across, up, "*"), color=COLORS[1], ms=16, mec="white", label="best", clip_on=False)


def _finish_map(
    axes: Any, image: Any, across: Axis, up: Axis, scores: Scores, title: str, path: Path
) -> Any:
    axes.set(xlabel=across.name, ylabel=up.name, title=title)
    axes.figure.colorbar(image, ax=axes, label=scores.label)
    return finish(axes, path)


def _colors(scores: Scores) -> dict[str, Any]:
    """The colors of scores: bright is good."""
    norm = {"norm": "log"} if is_log(scores.mean) else {}
    return {"cmap": "viridis_r" if scores.is_min else "viridis", **norm}


def is_log(numbers: np.ndarray) -> bool:
    """Whether numbers suit a logarithmic scale: positive, and wide or a geometric sequence."""
    finite = np.unique(numbers[np.isfinite(numbers)])
    if len(finite) < 2 or finite[0] <= 0:
        return False
    ratios = finite[1:] / finite[:-1]
    is_geometric = len(ratios) > 1 and np.allclose(ratios, ratios[0], rtol=1e-3)
    return bool(finite[-1] >= WIDE * finite[0] or is_geometric)


def cell_text(value: Any) -> str:
    """A value of a hyperparameter in four digits, or as an argument of a call."""
    return f"{value:.4g}" if isinstance(value, float) else show(value)
