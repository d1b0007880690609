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
    def scale(self) -> dict[str, Any]:
        """The scale for matplotlib; linear from 0 to the first number where there is a 0."""
        numbers = self.places
        positive = numbers[numbers > 0]
        if not self.is_number or not is_log(positive) or numbers.min() < 0:
            return {"value": "linear"}
        if len(positive) < len(numbers):
            return {"value": "symlog", "linthresh": float(positive.min())}
        return {"value": "log"}

    @property
    def places(self) -> np.ndarray:
        """The positions of the values: the numbers themselves, else 0, 1, 2, ..."""
        return np.array(self.values if self.is_number else range(len(self.values)), float)

    @property
    def texts(self) -> list[str]:
        return [cell_text(one, 2) for one in self.values]


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


def plot_curve(shown: Sequence[Axis], scores: Scores, title: str, path: Path) -> Any:
    """Plot scores over one hyperparameter; a star marks the best."""
    (axis,), axes = shown, new_axes("plot")
    order = np.argsort(axis.places, kind="stable")
    places, mean = axis.places[order], scores.mean[order]
    low, high = scores.low[order], scores.high[order]
    axes.fill_between(places, low, high, color=COLORS[0], alpha=0.2, lw=0)
    axes.plot(places, mean, color=COLORS[0], marker="o", ms=4, lw=1.5)
    if scores.best is not None:
        _mark(axes, axis.places[scores.best], scores.mean[scores.best])
    faults = places[np.isnan(mean)]
    if len(faults):
        # At the upper edge of the axes, whatever its scale.
        edge, shift = np.ones(len(faults)), axes.get_xaxis_transform()
        axes.plot(*(faults, edge, "x"), color=COLORS[1], clip_on=False, transform=shift)
    axes.set(ylabel=scores.label, yscale="log" if is_log(mean) else "linear")
    _set_axis(axes, "x", axis)
    return _titled(axes, shown, scores, title, path)


def plot_map(shown: Sequence[Axis], scores: Scores, title: str, path: Path) -> Any:
    """Plot scores over two hyperparameters as a heat map; a star marks the best."""
    (across, up), axes = shown, new_axes("plot")
    image = axes.imshow(
        scores.mean.T, origin="lower", aspect="auto", interpolation="nearest", **_colors(scores)
    )
    for column, row in np.argwhere(np.isnan(scores.mean)):
        axes.text(column, row, "×", ha="center", va="center", color=COLORS[1])
    if scores.best is not None:
        _mark(axes, *np.unravel_index(scores.best, scores.mean.shape))
    turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(
        range(len(across.values)), across.texts, **(turned if len(across.values) > 8 else {})
    )
    axes.set_yticks(range(len(up.values)), up.texts)
    axes.set(xlabel=across.name, ylabel=up.name)
    axes.figure.colorbar(image, ax=axes, label=scores.label)
    return _titled(axes, shown, scores, title, path)


def plot_points(shown: Sequence[Axis], scores: Scores, title: str, path: Path) -> Any:
    """Plot the points of a list over two hyperparameters, colored by their scores."""
    (across, up), axes = shown, new_axes("plot")
    finite = np.isfinite(scores.mean)
    image = axes.scatter(
        across.places[finite], up.places[finite], c=scores.mean[finite], s=60, **_colors(scores)
    )
    axes.plot(*(across.places[~finite], up.places[~finite], "x"), color=COLORS[1])
    if scores.best is not None:
        _mark(axes, across.places[scores.best], up.places[scores.best])
    _set_axis(axes, "x", across)
    _set_axis(axes, "y", up)
    axes.figure.colorbar(image, ax=axes, label=scores.label)
    return _titled(axes, shown, scores, title, path)


def _set_axis(axes: Any, letter: str, axis: Axis) -> None:
    """Set the scale, the label and the ticks of the x axis or the y axis."""
    getattr(axes, f"set_{letter}scale")(**axis.scale)
    getattr(axes, f"set_{letter}label")(axis.name)
    if "linthresh" in axis.scale:
        getattr(axes, f"set_{letter}lim")(-axis.scale["linthresh"] / 4)  # no room for negatives
    if not axis.is_number:
        getattr(axes, f"set_{letter}ticks")(axis.places, axis.texts)


def _mark(axes: Any, across: Any, up: Any) -> None:
    """Mark the best point by a star."""
    style = {"color": COLORS[1], "ms": 16, "mec": "white", "clip_on": False, "zorder": 3}
    axes.plot(*(across, up, "*"), **style)


def _titled(axes: Any, shown: Sequence[Axis], scores: Scores, title: str, path: Path) -> Any:
    """The figure with a title that says the best point, and how many points ended in nan."""
    lines, faults = [title], int(np.isnan(scores.mean).sum())
    if scores.best is not None:
        index = np.unravel_index(scores.best, scores.mean.shape)
        index = index * (len(shown) // len(index))  # the points of a list have one index
        best = ", ".join(
            f"{axis.name} = {axis.texts[one]}" for axis, one in zip(shown, index, strict=True)
        )
        lines.append(f"★ best: {best}")
    if faults:
        lines.append(f"× nan or infinity: {faults}")
    axes.set_title("   ".join(lines), fontsize=10, loc="left")
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


def cell_text(value: Any, digits: int = 4) -> str:
    """A value of a hyperparameter in few digits, or as an argument of a call."""
    return f"{value:.{digits}g}" if isinstance(value, float) else show(value)
