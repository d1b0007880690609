"""Draw a record of `matrix_quality`: the held-out loss of each method by steps and by seconds."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import ROOT, middle

sys.path.insert(0, str(Path(ROOT, "examples")))
import _style as style
import matplotlib.pyplot as plt

PICTURE = Path(ROOT, "docs", "_static", "matrix_quality.png")
TITLES = {"fashion": "Fashion-MNIST", "text": "Shakespeare"}
NAMES = {
    "adamw": ("AdamW", style.INK),
    "muon": ("Muon", style.BLUE),
    "normuon": ("NorMuon", "#56B4E9"),
    "soap": ("SOAP", style.ORANGE),
    "soap_muon": ("SOAP-Muon", "#E69F00"),
    "shampoo": ("Shampoo", style.GREEN),
    "psgd": ("PSGD", style.PURPLE),
}
"""By method, as it is written, and its colour, of those of Okabe and Ito."""
UNITS = {"steps": "steps to the loss", "seconds": "seconds to the loss, this CPU"}


def draw_races(rows: Sequence[Mapping[str, Any]]) -> None:
    """By task: curves over steps, and for steps and seconds a bar for every method."""
    races = list(dict.fromkeys(row["task"] for row in rows))
    with plt.rc_context(style.STYLE):
        figure, axes = plt.subplots(
            len(races), 3, figsize=(13, 3.4 * len(races)), layout="constrained", squeeze=False
        )
        for panels, name in zip(axes, races, strict=True):
            of_task = [row for row in rows if row["task"] == name]
            _draw_curves(panels[0], of_task)
            panels[0].set_title(f"{TITLES[name]}: held-out loss", fontsize=11)
            for panel, unit in zip(panels[1:], UNITS, strict=True):
                _draw_bars(panel, of_task, unit)
        figure.savefig(PICTURE)
    plt.close(figure)


def _draw_curves(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """The seed in the middle of each method, from the first evaluation after the start."""
    for row in rows:
        title, color = NAMES[row["method"]]
        curve = sorted(row["curves"], key=len)[len(row["curves"]) // 2][1:]
        axes.plot(
            row["every"] * np.arange(1, len(curve) + 1), curve, color=color, lw=1.6, label=title
        )
    axes.axhline(rows[0]["target"], color=style.GREY, lw=1.5, ls="--", zorder=0)
    axes.set(yscale="log", xlabel="steps")
    axes.yaxis.set_major_formatter("{x:.3g}")
    axes.yaxis.set_minor_formatter("{x:.2g}")
    axes.legend(fontsize=9)


def _draw_bars(axes: Any, rows: Sequence[Mapping[str, Any]], unit: str) -> None:
    """Draw medians as bars and seeds as ticks, the best on top, missed targets below."""
    bars = [(row, _seeds(row, unit)) for row in rows]
    bars.sort(key=lambda pair: np.median(pair[1]))
    for place, (row, seeds) in enumerate(bars):
        median = np.median(seeds)
        if not np.isfinite(median):
            axes.annotate(" not reached", (0, place), va="center", fontsize=10, color=style.INK)
            continue
        axes.barh(place, median, color=NAMES[row["method"]][1], alpha=0.85, height=0.66)
        axes.plot(
            seeds[np.isfinite(seeds)],
            np.full(np.isfinite(seeds).sum(), place),
            "|",
            color="#777777",
            ms=9,
        )
        at = max(seeds[np.isfinite(seeds)])
        axes.annotate(f" {median:.3g}", (at, place), va="center", fontsize=10, color=style.INK)
    names = [NAMES[row["method"]][0] for row, _ in bars]
    axes.set(
        yticks=range(len(names)),
        yticklabels=names,
        ylim=(len(names) - 0.4, -0.6),
        xlabel=UNITS[unit],
    )
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.12)


def _seeds(row: Mapping[str, Any], unit: str) -> np.ndarray:
    steps = np.array([np.inf if one is None else one for one in row["steps"]])
    return (
        steps
        if unit == "steps"
        else steps * (middle(row["seconds_per_step"]) if row["seconds_per_step"] else np.inf)
    )
