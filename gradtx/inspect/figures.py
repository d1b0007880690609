"""Figures in the look of every plot of gradtx; they need matplotlib."""

import functools
import io
import os
from typing import Any

from gradtx.definition.errors import GradtxError

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's colors: readers with any color vision tell them apart."""


def new_axes(name: str, size: tuple[float, float] = (7.0, 4.2)) -> Any:
    """The axes of a new figure, `size` in inches; `axes.figure` is that figure.

    The figure belongs to no window and to no list of pyplot's, so that nobody has to close it.

    Raises:
      GradtxError: matplotlib is not installed; the text begins with `name`.
    """
    return new_panels(name, 1, size)[0]


def new_panels(name: str, count: int, size: tuple[float, float] = (7.0, 4.2)) -> list[Any]:
    """The axes of `count` panels of a new figure, one below the other, each of `size` inches.

    Raises:
      GradtxError: matplotlib is not installed; the text begins with `name`.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise GradtxError(
            f"{name} needs matplotlib: install it with pip install matplotlib"
        ) from None
    figure = _displayed(Figure)(figsize=(size[0], count * size[1]), layout="constrained")
    panels = list(figure.subplots(count, squeeze=False)[:, 0])
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return panels


@functools.cache
def _displayed(figure_class: Any) -> Any:
    """The class of figures, as one that a notebook displays also before pyplot is imported."""

    class DisplayedFigure(figure_class):
        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png")
            return buffer.getvalue()

    return DisplayedFigure


def finish(axes: Any, path: str | os.PathLike[str] | None) -> Any:
    """The figure of `axes`, with a legend where lines have labels; saved where a path says."""
    for panel in axes.figure.axes:
        if panel.get_legend_handles_labels()[0]:
            panel.legend(frameon=False, loc="best")
    if path is not None:
        axes.figure.savefig(path, dpi=150)
    return axes.figure
