"""Arithmetic that losses share: powers, sums over a mask, and log-probabilities."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero


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


def log_softmax(
    logits: jax.Array, axes: tuple[int, ...], mask: jax.Array | None = None
) -> jax.Array:
    """log(exp(z) / Σ exp(z)) along some axes, of the entries that a mask selects.

    An entry of probability 0 has the lowest float, −3.4e38, because −∞ times a label of 0 is nan. A
    masked entry has some finite number.
    """
    lowest = float(jnp.finfo(logits.dtype).min)
    logits = select(mask, logits, lowest)
    top = jnp.max(jax.lax.stop_gradient(logits), axis=axes, keepdims=True, initial=lowest)
    shifted = jnp.maximum(logits - top, lowest)
    total = jnp.sum(jnp.exp(shifted), axis=axes, keepdims=True, where=mask)
    # A vector without entries has a sum of 0.
    return shifted - jnp.log(total if mask is None else jnp.maximum(total, 1))
