"""The result of a coordinate check: sizes over widths, slopes, a verdict, a plot."""

import os
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from gradtx.inspect.figures import COLORS, finish, new_panels

Kind = Literal["size", "change", "parameter change"]
TITLES: dict[str, str] = {
    "size": "activations: mean |x|",
    "change": "change of activations: mean |x − x₀|",
    "parameter change": "change of parameters",
}


class CoordinateRow(NamedTuple):
    """One activation or parameter over widths and steps."""

    kind: Kind
    name: str
    values: np.ndarray
    """The sizes after each step, shape (steps, widths)."""
    slope: float
    """d log value / d log width after the last step; nan where a value is 0 or not finite."""
    verdict: str
    """"flat", "grows", "vanishes", or "no change"; of a size only "grows" is a failure."""

    @property
    def passes(self) -> bool:
        is_small = self.kind == "size" and self.verdict == "vanishes"
        return is_small or self.verdict in ("flat", "no change")


class CoordinateCheck:
    """The rows of a coordinate check; prints as a table, `plot` draws it."""

    def __init__(
        self, widths: Sequence[int], rows: Sequence[CoordinateRow], tolerance: float
    ) -> None:
        self.widths: tuple[int, ...] = tuple(widths)
        self.rows: tuple[CoordinateRow, ...] = tuple(rows)
        self.tolerance: float = tolerance
        """The largest slope that is flat."""

    @property
    def failures(self) -> tuple[CoordinateRow, ...]:
        """The rows that grow or vanish with the width."""
        return tuple(row for row in self.rows if not row.passes)

    @property
    def passes(self) -> bool:
        """Whether no row fails."""
        return not self.failures

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        heads = ("", *map(str, self.widths), "slope", "")
        cells: list[tuple[str, ...]] = [heads]
        for kind in dict.fromkeys(row.kind for row in self.rows):
            cells.append((TITLES[kind], *[""] * (len(heads) - 1)))
            cells += [_cells(row) for row in self.rows if row.kind == kind]
        widths = [max(map(len, column)) for column in zip(*cells[:1], *_without_titles(cells))]
        lines = ["  ".join(_aligned(line, widths)).rstrip() for line in cells]
        return "\n".join([*lines, self._conclusion()])

    def _conclusion(self) -> str:
        span = f"widths {self.widths[0]} to {self.widths[-1]}, tolerance {self.tolerance:g}"
        if self.passes:
            return f"passes: {len(self.rows)} rows, {span}"
        return f"fails: {len(self.failures)} of {len(self.rows)} rows, {span}"

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Plot sizes over widths, a panel for each kind; it needs matplotlib.

        Args:
          path: a file for the plot; None: no file.

        Returns:
          The `matplotlib.figure.Figure`, which a notebook displays.

        Raises:
          GradtxError: matplotlib is not installed.
        """
        kinds = list(dict.fromkeys(row.kind for row in self.rows))
        panels = new_panels("coordinate_check", len(kinds), (7.0, 3.4))
        for axes, kind in zip(panels, kinds, strict=True):
            self._draw(axes, [row for row in self.rows if row.kind == kind], TITLES[kind])
        return finish(panels[0], path)

    def _draw(self, axes: Any, rows: Sequence[CoordinateRow], title: str) -> None:
        for number, row in enumerate(rows):
            color, style = COLORS[number % len(COLORS)], "-" if row.passes else "--"
            label = row.name if row.passes else f"{row.name}: {row.verdict}"
            axes.plot(self.widths, row.values[-1], style, marker="o", color=color, label=label)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_title(title)
        axes.set_xlabel("width")


def _without_titles(cells: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return [line for line in cells[1:] if any(line[1:])]


def _cells(row: CoordinateRow) -> tuple[str, ...]:
    values = (f"{value:.3g}" for value in row.values[-1])
    mark = row.verdict if row.passes else f"{row.verdict}, fails"
    # A slope of −1e-17 is printed as +0.00.
    slope = "" if np.isnan(row.slope) else f"{round(row.slope, 2) + 0.0:+.2f}"
    return (f"  {row.name}", *values, slope, mark)


def _aligned(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    name, *numbers = line
    *middle, last = numbers
    aligned = [cell.rjust(width) for cell, width in zip(middle, widths[1:-1], strict=True)]
    return [name.ljust(widths[0]), *aligned, last]


def coordinate_row(
    kind: Kind, name: str, values: np.ndarray, widths: Sequence[int], tolerance: float
) -> CoordinateRow:
    """A row with the slope of its last step, and what that says."""
    slope = _slope(values[-1], widths)
    if not np.any(values[-1]):
        verdict = "no change"
    elif np.isnan(slope):
        verdict = "grows" if not np.all(np.isfinite(values[-1])) else "vanishes"
    else:
        verdict = "flat" if abs(slope) <= tolerance else "grows" if slope > 0 else "vanishes"
    return CoordinateRow(kind, name, values, slope, verdict)


def _slope(values: np.ndarray, widths: Sequence[int]) -> float:
    """The slope of log value over log width, by least squares."""
    if not np.all(np.isfinite(values)) or np.any(values <= 0):
        return float("nan")
    return float(np.polyfit(np.log(widths), np.log(values), 1)[0])
