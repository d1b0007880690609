"""Objectives to descend on, and what happens on the way: step sizes, and evaluations counted."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx

DATA = np.random.default_rng(0).normal(size=(40, 5)) * np.logspace(0, 1, 5)
LABELS = np.random.default_rng(1).integers(0, 2, 40) * 2.0 - 1
WIDTHS = np.logspace(0, 2, 5)
ZOOM, BACK = "scale_by_zoom_linesearch", "scale_by_backtracking_linesearch"


def rosenbrock(w: Any, xp: Any = jnp) -> Any:
    return ((1 - w[:-1]) ** 2 + 100 * (w[1:] - w[:-1] ** 2) ** 2).sum()


def ellipse(w: Any, xp: Any = jnp) -> Any:
    return (WIDTHS * (w - 1) ** 2).sum() / 2


def logistic(w: Any, xp: Any = jnp) -> Any:
    return xp.log(1 + xp.exp(-LABELS * (DATA @ w))).sum() / 40 + 1e-2 * (w**2).sum()


PROBLEMS: dict[str, tuple[Callable[..., Any], np.ndarray, int]] = {
    "rosenbrock": (rosenbrock, np.array([-1.2, 1.0, -0.5, 0.7, 0.2]), 16),
    "ellipse": (ellipse, np.zeros(5), 6),
    "logistic": (logistic, np.zeros(5), 12),
}
"""A loss, where to start, and how many steps before rounding has grown to 1e-9, or the minimum is
reached.
"""


def descend(tx: Any, loss: Any, w: Any, steps: int, key: Any = None) -> Any:
    """Parameters, losses, step sizes, evaluations by the search, as it says and as counted; and the
    last state.
    """
    calls: list[int] = []

    def counted(w: Any) -> Any:
        jax.debug.callback(lambda: calls.append(1))
        return loss(w)

    @jax.jit
    def step(w: Any, state: Any) -> Any:
        value, grad = jax.value_and_grad(loss)(w)
        updates, state = tx.update(grad, state, w, value=value, grad=grad, value_fn=counted)
        return gradtx.apply_updates(w, updates), state, value

    state, rows = tx.init(w), []
    for _ in range(steps):
        w, state, value = step(w, state)
        found = state.slots[key] if isinstance(state, gradtx.State) else state[-1]
        rows.append(
            (float(value), float(found.learning_rate), int(found.info.num_linesearch_steps))
        )
    jax.effects_barrier()
    values, sizes, numbers = zip(*rows, strict=True)
    return w, list(values), list(sizes), list(numbers), len(calls), state
