"""Parameters and gradients as lists of float64 NumPy arrays, for comparisons step by step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx

SHAPES = [(3, 4), (4,), (), (2, 3, 2)]
STEPS = 20


def start(seed: int = 0) -> list[np.ndarray]:
    """Parameters that float32 holds exactly."""
    generator = np.random.default_rng(seed)
    return [generator.normal(size=shape).astype(np.float32).astype(np.float64) for shape in SHAPES]


def gradient(step: int) -> list[np.ndarray]:
    """The gradient of one step, of another scale for every array; float32 holds it exactly."""
    generator = np.random.default_rng(1000 + step)
    return [
        (scale * generator.normal(size=shape)).astype(np.float32).astype(np.float64)
        for shape, scale in zip(SHAPES, (1, 0.01, 3, 0.3), strict=True)
    ]


def follow_reference(oracle: Any, steps: int = STEPS, extra: Any = None) -> list[list[np.ndarray]]:
    """The updates of a float64 reference, step by step, parameters following them."""
    params, memory, history = start(), {}, []
    for step in range(1, steps + 1):
        told = extra(step, params, gradient(step)) if extra else {}
        updates = [
            np.asarray(u, np.float64) for u in oracle(gradient(step), params, memory, step, **told)
        ]
        params = [w + u for w, u in zip(params, updates, strict=True)]
        history.append(updates)
    return history


def follow(tx: Any, dtype: Any, steps: int = STEPS, extra: Any = None) -> list[list[np.ndarray]]:
    """The updates of a transformation, gradtx's or Optax's, on the same gradients."""
    params = [jnp.asarray(w, dtype) for w in start()]
    state, update, history = tx.init(params), jax.jit(tx.update), []
    for step in range(1, steps + 1):
        grads = [jnp.asarray(g, dtype) for g in gradient(step)]
        updates, state = update(
            grads, state, params, **(extra(step, params, grads) if extra else {})
        )
        params = gradtx.apply_updates(params, updates)
        history.append([np.asarray(u, np.float64) for u in updates])
    return history


def deviation(
    ours: list[list[np.ndarray]],
    theirs: list[list[np.ndarray]],
    exact: list[list[np.ndarray]] | None = None,
) -> float:
    """The largest difference of two histories, relative to the largest entry of its array at its
    step, in theirs or in a third.

    Where that is zero up to rounding, relative to the largest of all steps.
    """
    scale = theirs if exact is None else exact
    overall = [max(largest(step[leaf]) for step in scale) for leaf in range(len(scale[0]))]
    found = 0.0
    for left, right, size in zip(ours, theirs, scale, strict=True):
        for u, v, w, most in zip(left, right, size, overall, strict=True):
            here = largest(w)
            found = max(found, largest(u - v) / max(here if here > 1e-12 * most else most, 1e-30))
    return found


def largest(array: np.ndarray) -> float:
    return float(np.max(np.abs(array), initial=0.0))
