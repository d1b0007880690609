"""Figures with one pair of axes, in the look of every plot of gradtx; they need matplotlib."""

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
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise GradtxError(
            f"{name} needs matplotlib: install it with pip install matplotlib"
        ) from None
    axes = Figure(figsize=size, layout="constrained").subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def finish(axes: Any, path: str | os.PathLike[str] | None) -> Any:
    """The figure of `axes`, with a legend where its lines have labels; saved where a path says."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, loc="best")
    if path is not None:
        axes.figure.savefig(path, dpi=150)
    return axes.figure
