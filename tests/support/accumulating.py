"""What the tests of accumulate train, and how."""

from typing import Any

import jax.numpy as jnp

import gradtx

ONE, INF = jnp.array(1.0), jnp.array(jnp.inf)


def ramp(count: Any) -> Any:
    """k = 1, 1, 2, 2, 3, 3, ... up to 7."""
    return jnp.minimum(1 + count // 2, 7)


def optimizer() -> gradtx.GradientTransformation:
    """Its clip acts at every step, the rate changes with each, and ε is large enough that no entry
    is a ratio of two roundings.
    """
    rate = gradtx.warmup_cosine_decay_schedule(0.0, 0.05, 4, decay_steps=20)
    return gradtx.chain(
        gradtx.clip_by_global_norm(0.2), gradtx.adamw(rate, eps=1e-3, weight_decay=0.05)
    )


def step(tx: Any, params: Any, state: Any, grads: Any, **extra: Any) -> Any:
    updates, state = tx.update(grads, state, params, **extra)
    return gradtx.apply_updates(params, updates), state


def run(tx: Any, grads: Any, **extra: Any) -> tuple[list[Any], Any]:
    """The updates of scalar gradients, one after another, and the last state."""
    state, seen = tx.init(ONE), []
    for grad in grads:
        updates, state = tx.update(jnp.asarray(grad), state, ONE, **extra)
        seen.append(float(updates))
    return seen, state
