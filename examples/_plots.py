"""The two pictures of examples/digits.py."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from _race import Result
from _style import BLUE, GREEN, GREY, INK, OFFSET, ORANGE, PURPLE, STYLE, draw_noisy


class History(NamedTuple):
    """What one training did, step by step."""

    loss: list[float]
    learning_rate: list[float]
    grad_norm: list[float]
    checked: list[int]
    """The steps after which accuracies were taken."""
    train_accuracy: list[float]
    valid_accuracy: list[float]

    def add_step(self, loss: float, learning_rate: float, grad_norm: float) -> None:
        self.loss.append(loss)
        self.learning_rate.append(learning_rate)
        self.grad_norm.append(grad_norm)

    def add_check(self, step: int, train_accuracy: float, valid_accuracy: float) -> None:
        self.checked.append(step)
        self.train_accuracy.append(train_accuracy)
        self.valid_accuracy.append(valid_accuracy)


def draw_training(
    history: History, *, max_norm: float, warmup: int, title: str, file: Path
) -> None:
    """Loss, accuracy, learning rate and gradient norm against the step."""
    with mpl.rc_context(STYLE):
        figure, ((loss, accuracy), (rate, norm)) = plt.subplots(
            2, 2, figsize=(10, 6.2), sharex=True, layout="constrained"
        )
        figure.suptitle(title, x=0.01, ha="left", fontsize=13)
        draw_noisy(loss, history.loss, BLUE, "Training loss (nats per image)")
        _draw_accuracy(accuracy, history)
        rate.plot(history.learning_rate, color=GREEN, lw=2)
        rate.axvspan(0, warmup, color=GREEN, alpha=0.12, lw=0)
        rate.annotate("warmup", (warmup, 0), (6, 6), textcoords="offset points", color=GREEN)
        rate.set(title="Learning rate (per step)", xlabel="step", ylim=(0, None))
        draw_noisy(
            norm, history.grad_norm, PURPLE, "Gradient norm, before clipping (nats per unit)"
        )
        norm.axhline(max_norm, color=INK, lw=1, ls="--")
        norm.annotate(
            f"clipped above {max_norm:g}",
            (1, max_norm),
            (-2, 4),
            xycoords=("axes fraction", "data"),
            **OFFSET,
            ha="right",
        )
        norm.set_xlabel("step")
        figure.savefig(file)
        plt.close(figure)


def _draw_accuracy(axes: Any, history: History) -> None:
    lines = (
        ("training", history.train_accuracy, BLUE, 6),
        ("validation", history.valid_accuracy, ORANGE, -16),
    )
    for name, values, color, offset in lines:
        axes.plot(history.checked, 100 * np.asarray(values), color=color, lw=2)
        last = history.checked[-1], 100 * values[-1]
        axes.annotate(
            f"{name} {values[-1]:.1%}", last, (0, offset), **OFFSET, color=color, ha="right"
        )
    axes.set(title="Accuracy (% of images)", ylim=(80, 103), yticks=(80, 85, 90, 95, 100))


def draw_race(results: Mapping[str, Result], *, title: str, file: Path) -> None:
    """Loss against learning rate, a panel per method, the other methods in grey behind."""
    with mpl.rc_context(STYLE):
        columns = -(-len(results) // 2)
        figure, panels = plt.subplots(
            2, columns, figsize=(10, 5.4), sharex=True, sharey=True, layout="constrained"
        )
        figure.suptitle(title, x=0.01, ha="left", fontsize=13)
        top = 3 * max(np.max(result.loss[~result.diverged]) for result in results.values())
        for axes, (name, result) in zip(panels.flat, results.items(), strict=False):
            for other in results.values():
                axes.plot(*_converged(other), color=GREY, lw=0.9, alpha=0.6)
            _draw_method(axes, name, result, top)
        figure.supxlabel("learning rate", fontsize=11)
        figure.supylabel("validation loss after training (nats per image)", fontsize=11)
        figure.savefig(file)
        plt.close(figure)


def _converged(result: Result) -> tuple[np.ndarray, np.ndarray]:
    return result.rates, np.where(result.diverged, np.nan, result.loss)


def _draw_method(axes: Any, name: str, result: Result, top: float) -> None:
    axes.plot(*_converged(result), color=BLUE, lw=2.2)
    lost = result.rates[result.diverged]
    axes.plot(lost, np.full(len(lost), top), ls="", marker="x", ms=5, color=ORANGE)
    if len(lost):
        axes.annotate(
            "diverged",
            (lost[0], top),
            (-4, 0),
            **OFFSET,
            color=ORANGE,
            ha="right",
            va="center",
            fontsize=9,
        )
    best = result.best
    axes.plot(
        result.rates[best], result.loss[best], marker="o", ms=8, color=BLUE, mec="white", mew=1.5
    )
    axes.set_title(
        f"best at {result.rates[best]:.2g}",
        loc="right",
        color=BLUE,
        fontsize=10.5,
        fontweight="normal",
    )
    axes.set(title=name, xscale="log", yscale="log", ylim=(None, 1.6 * top))
