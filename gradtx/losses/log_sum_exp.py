"""log Σ exp along some axes, whose gradient computes the softmax again and stores none of it."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.tree.casts import compute_dtype


def recompute(
    function: Callable[..., Any], static_argnums: tuple[int, ...] = ()
) -> Callable[..., Any]:
    """A function whose gradient computes p again from the logits, and stores none of it.

    In float32 p would be twice the logits in bfloat16.
    """
    # XLA decides what it shares, so nothing has to prevent that.
    return jax.checkpoint(function, prevent_cse=False, static_argnums=static_argnums)


def accurate(array: jax.Array) -> jax.Array:
    return array.astype(compute_dtype(array.dtype))


def sum_over(array: jax.Array, axes: tuple[int, ...], mask: jax.Array | None = None) -> jax.Array:
    return jnp.sum(array if mask is None else jnp.where(mask, array, 0), axes, keepdims=True)


def find_peak(logits: jax.Array, mask: jax.Array | None, axes: tuple[int, ...]) -> jax.Array:
    """The largest logit of each example, finite, without a derivative: L does not depend on it."""
    logits = jax.lax.stop_gradient(logits)
    visible = logits if mask is None else jnp.where(mask, logits, -jnp.inf)
    # ∞ − ∞ would be nan where all logits are −∞ or masked.
    limit = float(jnp.finfo(logits.dtype).max)
    return accurate(jnp.minimum(jnp.max(visible, axes, keepdims=True, initial=-limit), limit))


def log_sum_exp(
    logits: jax.Array, peak: jax.Array, mask: jax.Array | None, axes: tuple[int, ...]
) -> jax.Array:
    """log Σ exp(z − peak)."""
    return _log_sum_exp(logits, peak, mask, axes)


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _log_sum_exp(
    logits: jax.Array, peak: jax.Array, mask: jax.Array | None, axes: tuple[int, ...]
) -> jax.Array:
    # Else XLA:CPU stores z − peak, because the sum over labels reads it as well.
    peak = jax.lax.platform_dependent(peak, cpu=jax.lax.optimization_barrier, default=_same)
    return jnp.log(sum_over(_exp(accurate(logits) - peak, mask), axes))


def _same(array: jax.Array) -> jax.Array:
    return array


def _exp(powers: jax.Array, mask: jax.Array | None) -> jax.Array:
    """e^x, and 0 where the mask is False, whose derivatives are 0 whatever the entry is."""
    return jnp.exp(powers if mask is None else jnp.where(mask, powers, -jnp.inf))


@_log_sum_exp.defjvp
def _log_sum_exp_jvp(
    axes: tuple[int, ...], primals: Any, tangents: Any
) -> tuple[jax.Array, jax.Array]:
    logits, peak, mask = primals
    log_sum = log_sum_exp(logits, peak, mask, axes)
    return log_sum, _mean_tangent(logits, peak, log_sum, mask, tangents[0], axes)


@functools.partial(recompute, static_argnums=(5,))
def _mean_tangent(
    logits: jax.Array,
    peak: jax.Array,
    log_sum: jax.Array,
    mask: jax.Array | None,
    tangent: jax.Array,
    axes: tuple[int, ...],
) -> jax.Array:
    """Σ p dz, the derivative of log Σ exp z."""
    return sum_over(softmax(logits, peak, log_sum, mask) * accurate(tangent), axes)


def softmax(
    logits: jax.Array, peak: jax.Array, log_sum: jax.Array, mask: jax.Array | None
) -> jax.Array:
    return _exp(accurate(logits) - peak - log_sum, mask)
