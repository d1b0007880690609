"""Draw the results of `frontier`: loss curves, and the steps to AdamW's final loss."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.frontier_parts import METHODS
from benchmarks.frontier_report import ADAMW, MUON, RECIPE, Result
from benchmarks.harness import ROOT

sys.path.insert(0, str(Path(ROOT, "examples")))
import _style as style
import matplotlib.pyplot as plt

PICTURE = Path(ROOT, "docs", "_static", "frontier.png")
TITLES = {
    "shakespeare": "Shakespeare, tuned",
    "fashion": "Fashion-MNIST, tuned",
    "bible": "King James Bible, held out",
}
COLORS = {ADAMW: style.INK, MUON: style.ORANGE, "muon": style.BLUE, RECIPE: style.GREEN}
"""The others are grey in the curves."""


def draw(results: Sequence[Result]) -> Path:
    """A row of panels for each task."""
    tasks = list(dict.fromkeys(one.task for one in results))
    height = max(3.2, 0.24 * len({one.method for one in results}))
    with plt.rc_context(style.STYLE):
        figure, axes = plt.subplots(
            len(tasks), 2, figsize=(12, height * len(tasks)), layout="constrained", squeeze=False
        )
        for (left, right), task in zip(axes, tasks, strict=True):
            of_task = [one for one in results if one.task == task]
            _draw_curves(left, of_task)
            left.set_title(TITLES[task], fontsize=11)
            _draw_steps(right, of_task)
        figure.savefig(PICTURE)
    plt.close(figure)
    return PICTURE.relative_to(ROOT)


def _draw_curves(axes: Any, results: Sequence[Result]) -> None:
    for one in sorted(results, key=lambda one: one.method in COLORS):
        at = one.steps * np.arange(1, len(one.curve) + 1) / len(one.curve)
        is_named = one.method in COLORS
        axes.plot(
            at,
            one.curve,
            color=COLORS.get(one.method, style.GREY),
            lw=1.8 if is_named else 0.9,
            label=METHODS[one.method].title if is_named else None,
        )
    axes.set(yscale="log", xlabel="steps", ylabel="held-out loss, mean over seeds")
    axes.yaxis.set_major_formatter("{x:.3g}")
    axes.yaxis.set_minor_formatter("{x:.2g}")
    axes.legend(fontsize=9)


def _draw_steps(axes: Any, results: Sequence[Result]) -> None:
    """The fewest steps on top, with intervals."""
    known = [one for one in results if np.isfinite(one.fractions[ADAMW].mean)]
    known.sort(key=lambda one: one.fractions[ADAMW].mean)
    for place, one in enumerate(known):
        need = one.fractions[ADAMW]
        axes.errorbar(
            100 * need.mean,
            place,
            xerr=100 * np.nan_to_num(need.half),
            fmt="o",
            color=COLORS.get(one.method, "#777777"),
            capsize=2,
        )
    axes.axvline(50, color=style.GREY, lw=1.2, ls="--", zorder=0)
    axes.set(
        yticks=range(len(known)),
        yticklabels=[METHODS[one.method].title for one in known],
        ylim=(len(known) - 0.4, -0.6),
        xlabel="steps to AdamW's last loss, % of AdamW's, with 95 % intervals",
    )
    axes.tick_params(axis="y", labelsize=8)
