"""Draw a record of `storage_quality`: the final loss of every codec minus that of float32."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import ROOT

sys.path.insert(0, str(Path(ROOT, "examples")))
import _style as style
import matplotlib.pyplot as plt

PICTURE = Path(ROOT, "docs", "_static", "storage_quality.png")
REACH = 4.0
"""How far to the right a panel goes, in half widths of float32's seeds; what is beyond is told in
figures.
"""
BELOW = (
    "final validation loss minus that of float32, nats × 10⁻³;  "
    "grey: from the best to the worst seed of float32"
)
TITLES = {"fashion": "Fashion-MNIST", "text": "Shakespeare", "adamw": "AdamW", "lion": "Lion"}
COLORS = {"within": style.BLUE, "better": style.GREEN, "worse": style.ORANGE}


def draw_differences(rows: Sequence[Mapping[str, Any]]) -> None:
    """One panel for every task and optimizer."""
    panels = list(dict.fromkeys((row["task"], row["optimizer"]) for row in rows))
    lists = [
        [
            row["kept"]
            for row in rows
            if (row["task"], row["optimizer"]) == panel and row["kept"] != "float32"
        ]
        for panel in panels
    ]
    names = max(lists, key=len)
    with plt.rc_context(style.STYLE):
        figure, axes = plt.subplots(
            1,
            len(panels),
            figsize=(12, 1.6 + 0.3 * len(names)),
            layout="constrained",
            sharey=True,
            squeeze=False,
        )
        for panel, (task, optimizer) in zip(axes[0], panels, strict=True):
            _draw_panel(
                panel,
                names,
                [row for row in rows if (row["task"], row["optimizer"]) == (task, optimizer)],
            )
            panel.set_title(f"{TITLES[task]}, {TITLES[optimizer]}", fontsize=11)
        axes[0][0].set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6))
        figure.supxlabel(BELOW, fontsize=11)
        figure.savefig(PICTURE)
    plt.close(figure)


def _draw_panel(axes: Any, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    exact = rows[0]
    low, high = (1e3 * (bound - exact["mean"]) for bound in exact["float32"])
    reach = REACH * (high - low) / 2
    axes.axvspan(low, high, color=style.GREY, alpha=0.35, lw=0)
    axes.axvline(0, color=style.INK, lw=1)
    for row in rows[1:]:
        place, mean, color = (
            names.index(row["kept"]),
            1e3 * row["difference"],
            COLORS[row["verdict"]],
        )
        if mean > reach:
            axes.annotate(
                f"{mean:+.0f} →", (reach, place), ha="right", va="center", color=color, fontsize=10
            )
            continue
        seeds = np.asarray(row["differences"]) * 1e3
        axes.plot(seeds, np.full(len(seeds), place), "|", color=color, ms=8, alpha=0.7)
        axes.plot(mean, place, "o", color=color, ms=7)
    axes.set_xlim(-reach * 0.7, reach * 1.05)
    axes.grid(axis="y", visible=True)
