"""How the pictures of the examples look; colours are those of Okabe and Ito, safe for colour-blind
readers.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl

mpl.use("agg")  # draws into files, needs no screen

import numpy as np

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#BBBBBB"
INK = "#222222"

STYLE: Any = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "axes.edgecolor": "#888888",
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.dpi": 100,
    "savefig.dpi": 150,
}

OFFSET: dict[str, Any] = {"textcoords": "offset points"}


def draw_noisy(axes: Any, values: Sequence[float], color: str, title: str) -> None:
    """Every value in pale, their running median in full."""
    half = max(len(values) // 60, 1)
    smooth = [np.median(values[max(i - half, 0) : i + half + 1]) for i in range(len(values))]
    axes.plot(values, color=color, lw=0.8, alpha=0.35)
    axes.plot(smooth, color=color, lw=2)
    axes.set(title=title, yscale="log")
