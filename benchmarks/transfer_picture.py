"""Draw the runs of `transfer`: the loss over learning rates, a curve for each width."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT
from benchmarks.transfer_model import BASE

sys.path.insert(0, str(Path(ROOT, "examples")))
import _style as style
import matplotlib.pyplot as plt

PICTURE = Path(ROOT, "docs", "_static", "transfer.png")
COLORS = ("#56B4E9", style.BLUE, style.GREEN, "#E69F00", style.ORANGE)
TITLES = {"adamw": "AdamW", "muon": "Muon"}


def draw(rows: Sequence[Mapping[str, str]]) -> None:
    """A row of panels for every method, without transfer and with it."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    with plt.rc_context(style.STYLE):
        figure, axes = plt.subplots(
            len(methods), 2, figsize=(10, 3.6 * len(methods)), layout="constrained", squeeze=False
        )
        for panels, method in zip(axes, methods, strict=True):
            mine = [row for row in rows if row["method"] == method]
            _draw_panel(panels[0], mine, "False", f"{TITLES[method]} without transfer")
            _draw_panel(panels[1], mine, "True", f"{TITLES[method]} with transfer")
            low = min(float(row["train"]) for row in mine)
            for panel in panels:
                panel.set_ylim(low - 0.05, low + 1.2)
        figure.savefig(PICTURE)
    plt.close(figure)


def _draw_panel(axes: Any, rows: Sequence[Mapping[str, str]], transfer: str, title: str) -> None:
    """A curve for every width, with a dot at its best rate."""
    for color, width in zip(COLORS, sorted({int(row["width"]) for row in rows}), strict=False):
        kind = "True" if width == BASE else transfer
        mine = [row for row in rows if int(row["width"]) == width and row["transfer"] == kind]
        points = sorted((float(row["rate"]), float(row["train"])) for row in mine)
        if not points:
            continue
        axes.plot(*zip(*points, strict=True), color=color, lw=1.6, label=f"width {width}")
        rate, best = min(points, key=lambda point: point[1])
        axes.plot(rate, best, "o", color=color)
    axes.set_xscale("log", base=2)
    axes.set(title=title, xlabel="learning rate", ylabel="training loss, last 10 steps")
    axes.legend(fontsize=9)
