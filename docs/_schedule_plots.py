"""The figures of docs/schedules.md: without background, in grey ink, for both themes."""

from collections.abc import Mapping
from typing import Any

import jax
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import gradtx
from gradtx.inspect.figures import COLORS

INK = "#808080"
"""As far from white as from the background of the dark theme."""
STYLE: Any = {
    "figure.dpi": 130,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.facecolor": "none",
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#80808040",
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    ),
}


def use_style() -> None:
    """Draw every later figure of the page without a background."""
    mpl.rcParams.update(STYLE)


def draw_gallery(schedules: Mapping[str, gradtx.Schedule], steps: int = 100) -> Figure:
    """Draw each schedule in its own small panel, two in a row, all on the same axes."""
    rows = -(-len(schedules) // 2)
    figure, panels = plt.subplots(
        rows, 2, figsize=(7, 1.55 * rows + 0.3), layout="constrained", sharex=True, squeeze=False
    )
    counts = np.arange(steps + 1)
    for index, (axes, (name, schedule)) in enumerate(
        zip(panels.flat, schedules.items(), strict=False)
    ):
        color = COLORS[index % 3]
        axes.plot(counts, jax.vmap(schedule)(counts), color=color, lw=2.4)
        axes.set_title(name)
        axes.set_ylim(-0.05, 1.09)
        axes.grid(True)
    for axes in panels.flat[len(schedules) :]:
        axes.set_visible(False)
    for axes in panels[-1]:
        axes.set_xlabel("step")
    plt.close(figure)
    return figure
