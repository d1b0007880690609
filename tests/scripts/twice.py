"""A script that was written for Optax, run with it and with gradtx in its place."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from tests.support.peer import optax

PARAMS = {"w": jnp.array([[1.0, -2.0], [0.3, 0.4]]), "b": jnp.array([0.5, 0.0])}

LIBRARIES: dict[str, Any] = {"optax": optax, "gradtx": gradtx}
"""What a script imports under the name `optax`."""

SINGLE = 5e-5
"""Optax rounds bias corrections otherwise: 1e-5 at the second step of Adam, in float32."""


def train(tx: Any, steps: int = 5, params: Any = PARAMS, state: Any = None, **extra: Any) -> Any:
    """The parameters after some steps on a quadratic, whose gradient no step makes zero."""
    state = tx.init(params) if state is None else state
    for step in range(steps):
        grads = jax.tree.map(lambda leaf, step=step: (leaf - 0.2) * (1 + 0.1 * step), params)
        updates, state = tx.update(grads, state, params, **extra)
        params = jax.tree.map(jnp.add, params, updates)
    return params


def assert_equal_numbers(script: Callable[[Any], Any], rtol: float = SINGLE) -> Any:
    """Run a script with both libraries; its results have one structure, and equal numbers."""
    theirs, ours = script(optax), script(gradtx)
    assert jax.tree.structure(theirs) == jax.tree.structure(ours)
    for other, mine in zip(jax.tree.leaves(theirs), jax.tree.leaves(ours), strict=True):
        largest = np.max(np.abs(np.asarray(other, np.float64)), initial=0.0)
        np.testing.assert_allclose(mine, other, rtol=rtol, atol=rtol * largest)
    return ours
