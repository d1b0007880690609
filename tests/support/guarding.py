"""What the tests of guard put it around."""

from typing import Any

import jax.numpy as jnp

import gradtx
from gradtx.testing.problems import extras

PARAMS = {
    "w": jnp.array([[0.5, -0.0, 2.0], [1.0, -3.0, 0.25]]),
    "v": jnp.array([-1.0, -0.0]),
    "s": jnp.array(0.75),
}


FALLING = gradtx.cosine_decay_schedule(0.1, 10)


def clipped() -> Any:
    return gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(FALLING, weight_decay=0.1))


def step(tx: Any, params: Any, state: Any, grads: Any) -> Any:
    updates, state = tx.update(grads, state, params, **extras(tx, params, grads))
    return gradtx.apply_updates(params, updates), state
