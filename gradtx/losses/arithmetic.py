"""Arithmetic that losses share: powers, sums over a mask, and log-probabilities."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from gradtx.losses.inputs import Axis


@jax.custom_jvp
def power(base: jax.Array, exponent: jax.Array) -> jax.Array:
    """xᵃ of numbers x ≥ 0, with derivative 0 at x = 0.

    For a < 1 the derivative at 0 is infinite, and the gradient of a norm or of a focal weight would
    be nan there.
    """
    return jnp.power(base, exponent)


def _power_jvp(arrays: tuple[jax.Array, jax.Array], tangents: tuple[Any, Any]) -> Any:
    (base, exponent), (base_tangent, exponent_tangent) = arrays, tangents
    result = power(base, exponent)
    is_zero = base == 0
    slope = jnp.zeros_like(result)
    if not isinstance(base_tangent, SymbolicZero):
        rate = exponent * power(jnp.where(is_zero, 1, base), exponent - 1)
        slope += jnp.where(is_zero, 0, rate) * base_tangent
    if not isinstance(exponent_tangent, SymbolicZero):
        slope += result * jnp.log(jnp.where(is_zero, 1, base)) * exponent_tangent
    return result, slope


power.defjvp(_power_jvp, symbolic_zeros=True)


def select(mask: jax.Array | None, array: jax.Array, other: float = 0) -> jax.Array:
    """The array where a mask is True, else `other`; the array itself without a mask.

    A loss selects its inputs: a masked nan then reaches neither the value nor the gradient.
    """
    return array if mask is None else jnp.where(mask, array, other)


def log_softmax(logits: jax.Array, axis: Axis, mask: jax.Array | None = None) -> jax.Array:
    """log(exp(z) / Σ exp(z)) along some axes, of the entries that a mask selects; else 0."""
    axes = axis if isinstance(axis, int | None) else tuple(axis)
    logits = select(mask, logits, -jnp.inf)
    top = jnp.max(logits, axis=axes, keepdims=True, initial=-jnp.inf)
    # Where all entries are masked, or -inf, the largest is -inf too, and -inf + inf is nan.
    top = jax.lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0))
    shifted = logits - top
    total = jnp.sum(jnp.exp(shifted), axis=axes, keepdims=True)
    return select(mask, shifted - jnp.log(jnp.where(total == 0, 1, total)))


def weigh(weights: jax.Array, values: jax.Array) -> jax.Array:
    """w · x, where 0 · ±inf is 0: an event of probability 0 costs nothing."""
    return weights * jnp.where((weights == 0) & jnp.isinf(values), 0, values)
