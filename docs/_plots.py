"""The plots of docs/textbook.md, in the colour-blind safe colours of Okabe and Ito."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import gradtx

COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7"]
MARKERS = ["o", "s", "^", "D"]
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
    "figure.dpi": 150,
    "figure.facecolor": "white",
}

CURVATURE = jnp.array([1.0, 20.0])
START = jnp.array([-4.0, 1.2])


def valley(w: jax.Array) -> jax.Array:
    """E = (w₁² + 20 w₂²)/2: twenty times as steep across as along."""
    return jnp.sum(CURVATURE * w**2) / 2


def descent(tx: gradtx.GradientTransformation, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the points that a method visits, and the size of each step per coordinate."""
    points, moves, _ = _descend(tx, steps)
    return np.asarray(points), np.asarray(moves)


def _descend(tx: gradtx.GradientTransformation, steps: int) -> Any:
    def step(carry: Any, _: None) -> Any:
        w, state = carry
        grads = jax.grad(valley)(w)
        updates, state = tx.update(grads, state, w)
        new = gradtx.apply_updates(w, updates)
        return (new, state), (new, updates, grads)

    _, (points, moves, grads) = jax.jit(
        lambda: jax.lax.scan(step, (START, tx.init(START)), None, length=steps)
    )()
    return jnp.concatenate([START[None], points]), moves, grads


def effective_rates(tx: gradtx.GradientTransformation, steps: int) -> np.ndarray:
    """Return the learning rate of each coordinate: minus the update over the gradient."""
    _, moves, grads = _descend(tx, steps)
    return np.asarray(-moves / grads)


def close(figure: Figure) -> Figure:
    """Close the figure and return it: the notebook shows the value of a cell."""
    plt.close(figure)
    return figure


def draw_paths(methods: Mapping[str, gradtx.GradientTransformation], steps: int = 40) -> Figure:
    """Draw the paths of methods on the left and their losses on the right."""
    with mpl.rc_context(STYLE):
        figure, (path, height) = plt.subplots(
            1, 2, figsize=(9, 3.5), width_ratios=(3, 2), layout="constrained"
        )
        x, y = np.meshgrid(np.linspace(-4.6, 2.2, 200), np.linspace(-1.7, 1.7, 200))
        path.contour(
            x,
            y,
            (x**2 + 20 * y**2) / 2,
            levels=np.geomspace(0.05, 30, 10),
            colors="#BBBBBB",
            linewidths=0.8,
        )
        for (name, tx), color, marker in zip(methods.items(), COLORS, MARKERS, strict=False):
            points, _ = descent(tx, steps)
            path.plot(
                *points.T, color=color, marker=marker, ms=3.5, lw=1.3, label=name, clip_on=True
            )
            height.plot(
                (np.array([1.0, 20.0]) * points**2).sum(-1) / 2,
                color=color,
                marker=marker,
                ms=3,
                markevery=5,
                lw=1.6,
                label=name,
            )
        path.plot(0, 0, marker="*", ms=13, color=INK, mec="white", zorder=5)
        path.set(title="Path", xlabel="w₁", ylabel="w₂", xlim=(-4.6, 2.2), ylim=(-1.7, 1.7))
        height.set(title="Loss E", xlabel="step τ", yscale="log")
        path.grid(False)
        path.legend(loc="upper right", fontsize=9.5)
    return close(figure)


def draw_schedules(schedules: Mapping[str, Callable[[Any], Any]], steps: int) -> Figure:
    """Draw learning rates over steps, on a linear and on a logarithmic axis."""
    with mpl.rc_context(STYLE):
        figure, panels = plt.subplots(1, 2, figsize=(9, 3.1), layout="constrained")
        tau = np.arange(steps)
        for axes, scale, title in zip(
            panels, ("linear", "log"), ("Learning rate", "Learning rate, logarithmic"), strict=True
        ):
            for (name, schedule), color, style in zip(
                schedules.items(), COLORS, ("-", "--", "-."), strict=False
            ):
                axes.plot(
                    tau,
                    np.asarray(schedule(jnp.asarray(tau))),
                    color=color,
                    ls=style,
                    lw=2.2,
                    label=name,
                )
            axes.set(title=title, xlabel="step τ", ylabel="η", yscale=scale)
        panels[0].set_ylim(bottom=0)
        panels[0].legend()
    return close(figure)


def draw_rates(methods: Mapping[str, gradtx.GradientTransformation], steps: int) -> Figure:
    """Draw the learning rate of each coordinate over steps."""
    with mpl.rc_context(STYLE):
        figure, panels = plt.subplots(
            1, len(methods), figsize=(9, 3.1), layout="constrained", sharey=True, squeeze=False
        )
        for axes, (name, tx) in zip(panels[0], methods.items(), strict=True):
            rates = effective_rates(tx, steps)
            for column, label, style in ((0, "w₁, flat", "-"), (1, "w₂, steep", "--")):
                axes.plot(
                    np.arange(1, steps + 1),
                    rates[:, column],
                    color=COLORS[column],
                    ls=style,
                    lw=2,
                    label=label,
                )
            axes.set(title=name, xlabel="step τ", yscale="log")
        panels[0][0].set_ylabel("−Δw / g")
        panels[0][-1].legend()
    return close(figure)


def draw_lines(
    lines: Mapping[str, np.ndarray], *, title: str, xlabel: str, ylabel: str, **axis: Any
) -> Figure:
    """Draw named curves over 1, 2, 3, ..."""
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(9, 3.1), layout="constrained")
        for (name, values), color, style in zip(
            lines.items(), COLORS, ("-", "--", "-.", ":"), strict=False
        ):
            axes.plot(
                np.arange(1, len(values) + 1), values, color=color, ls=style, lw=2, label=name
            )
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel, **axis)
        axes.legend()
    return close(figure)
