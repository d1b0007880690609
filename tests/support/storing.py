"""Training with stored state, and what is compared there."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx

SHAPE = (64, 128)


def arrays(seed: int) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {
        "kernel": jnp.asarray(rng.normal(size=SHAPE), jnp.float32),
        "bias": jnp.asarray(rng.normal(size=3), jnp.float32),
    }


def run(tx: Any, steps: int = 3, params: Any = None, jit: bool = True) -> tuple[Any, Any]:
    """Parameters and state after some steps."""
    params = arrays(0) if params is None else params
    step = functools.partial(gradtx.update_params, tx)
    step, state = jax.jit(step) if jit else step, tx.init(params)
    for number in range(steps):
        params, state = step(arrays(number + 1), state, params)
    return params, state


def equal(one: Any, other: Any) -> bool:
    return all(
        jax.tree.leaves(
            jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b, equal_nan=True)), one, other)
        )
    )


def close_codes(one: Any, other: Any) -> bool:
    """Equal but for an entry in a thousand, in the middle of two codes."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(
        np.mean(np.asarray(a) != np.asarray(b)) <= 1e-3
        for a, b in pairs
        if a.dtype in (jnp.int8, jnp.uint8, jnp.bfloat16)
    )
