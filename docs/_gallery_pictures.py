"""The pictures of docs/gallery.md: paths over contours, and the outcome of every learning rate.

They have no background and grey ink, so that the light and the dark theme both show them.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

INK = "#808080"
"""As far from white as from the background of the dark theme."""
PATH, END = "#D55E00", "#2E8BD0"
OUTCOMES = {
    "x": ("#D55E00", "diverges"),
    "s": ("#80808055", "loss above half of the start"),
    "d": ("#56B4E9", "below half"),
    "m": ("#0072B2", "below a hundredth"),
}
LEVELS = (
    np.geomspace(0.3, 1500, 11),
    np.array([3.0, 10.0, 18.0, 27.0, 38.0]),
    np.geomspace(0.05, 90, 11),
)
"""Of the contours of each landscape, in the order of `_gallery.LANDSCAPES`."""
DOTS = 185
"""Pixels for each inch: two for each pixel of the page on a screen of high density."""
PALETTE = 32
"""Colours of a file: enough for lines with smooth edges, in a third of the bytes."""


def draw_all(
    landscapes: Sequence[Any],
    paths: Mapping[str, Sequence[np.ndarray]],
    rows: Mapping[str, Sequence[Any]],
    rates: np.ndarray,
    folder: Path,
) -> None:
    """Write NAME.png for each optimizer, and rates.png."""
    surfaces = [surface(land) for land in landscapes]
    for name, three in paths.items():
        save(draw_paths(landscapes, surfaces, three), folder / f"{name}.png")
    save(draw_rates(rows, rates), folder / "rates.png")


def save(figure: Figure, path: Path) -> None:
    """Write a PNG without background, with few colours."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DOTS, transparent=True)
    image = Image.open(buffer).convert("RGBA")
    image.quantize(PALETTE, method=Image.Quantize.FASTOCTREE).save(path, optimize=True)


def surface(land: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The loss without noise, over the window of a picture."""
    left, right, low, high = land.window
    x, y = np.meshgrid(np.linspace(left, right, 160), np.linspace(low, high, 160))
    return x, y, np.asarray(land.loss(jnp.stack([x, y]), np.zeros(2)))


def draw_paths(
    landscapes: Sequence[Any], surfaces: Sequence[Any], paths: Sequence[np.ndarray]
) -> Figure:
    """Three panels: contours, the path, a ring at its start, a dot at its end, a star at the
    minimum.
    """
    figure = Figure(figsize=(3.9, 1.3), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.02)  # type: ignore[union-attr]
    for axes, land, levels, (x, y, z), path in zip(
        figure.subplots(1, 3), landscapes, LEVELS, surfaces, paths, strict=True
    ):
        axes.contour(x, y, z, levels=levels, colors=INK, linewidths=0.5, alpha=0.55)
        shown = np.clip(np.nan_to_num(path, nan=0.0), -1e3, 1e3)
        axes.plot(*shown.T, color=PATH, lw=0.9, marker=".", ms=1.6, mew=0)
        axes.plot(*land.start, marker="o", ms=4, mfc="none", mec=PATH, mew=1)
        axes.plot(*land.minimum, marker="*", ms=7, color=INK, mew=0, zorder=4)
        axes.plot(*shown[-1], marker="o", ms=3.6, color=END, mew=0, zorder=5)
        axes.set(xlim=land.window[:2], ylim=land.window[2:], xticks=[], yticks=[])
        axes.spines[:].set_color(INK)
        axes.spines[:].set_linewidth(0.5)
    return figure


def draw_rates(rows: Mapping[str, Sequence[Any]], rates: np.ndarray) -> Figure:
    """One line for each optimizer, one cell for each rate, one panel for each landscape."""
    letters, colors = "".join(OUTCOMES), [color for color, _ in OUTCOMES.values()]
    count = len(rows)
    with mpl.rc_context({"font.size": 7.5, "text.color": INK}):
        figure = Figure(figsize=(7.2, 0.155 * count + 1), layout="constrained")
        panels = figure.subplots(1, 3, sharey=True)
        for number, axes in enumerate(panels):
            cells = [[*map(letters.index, group[number].outcomes)] for group in rows.values()]
            axes.pcolormesh(
                np.arange(len(rates) + 1),
                np.arange(count + 1),
                np.array(cells),
                cmap=ListedColormap(colors),
                vmin=-0.5,
                vmax=3.5,
            )
            for row, group in enumerate(rows.values()):
                best = int(np.argmin(abs(np.log(rates / float(group[number].rate)))))
                axes.plot(best + 0.5, row + 0.5, marker=".", ms=3, color="white")
            axes.set_title(next(iter(rows.values()))[number].landscape, fontsize=8.5, color=INK)
            axes.set(xticks=np.arange(0, 29, 8) + 0.5, yticks=np.arange(count) + 0.5)
            axes.set_xticklabels([f"1e{power}" for power in (-5, -3, -1, 1)], color=INK)
            axes.set_yticklabels(rows, color=INK)
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
        panels[0].invert_yaxis()
        handles = [Patch(color=color, label=label) for color, label in OUTCOMES.values()]
        figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False)
    return figure
