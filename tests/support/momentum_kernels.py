"""What the tests of momentum kernels share: small kernels, and runs over given gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx


def small_taps(**changes: Any) -> gradtx.MomentumKernel:
    numbers: dict[str, Any] = {"init_mean_age": 2.58, "end_mean_age": 1.98, "init_log_age": 1.09}
    numbers |= {"end_log_age": 0.879, "init_newest": (0.2, 0.15), "end_newest": (0.3, 0.2)}
    return gradtx.max_entropy(
        **{"taps": 7, "start": 2, "transition_steps": 4, **numbers, **changes}
    )


def run(tx: gradtx.GradientTransformation, grads: Any) -> Any:
    """The updates for gradients along a first axis, by one scan."""

    def step(state: Any, grad: Any) -> Any:
        updates, state = tx.update(grad, state)
        return state, updates

    return jax.lax.scan(step, tx.init(jax.tree.map(lambda g: g[0], grads)), grads)[1]


def response(kernel: gradtx.MomentumKernel, steps: int, before: int = 0, **options: Any) -> Any:
    """What one gradient after `before` zeros adds to each direction: c_0, c_1, ..."""
    tx = gradtx.scale_by_momentum(kernel, debias=False, **options)
    with jax.enable_x64(True):
        return np.asarray(run(tx, jnp.zeros(before + steps).at[before].set(1.0)))[before:]


KERNELS = {
    "bi_maxwell": gradtx.bi_maxwell(start=4),
    "exponentials": gradtx.exponentials((0.5, 0.9), (0.5, 0.5), start=4),
    "k_maxwell": gradtx.k_maxwell(3, start=4, transition_steps=5),
    "max_entropy": small_taps(start=4),
}
