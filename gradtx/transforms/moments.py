"""First and second moments: what adaptive methods keep, and the arithmetic that they share."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.definition.types import Squares


class Moments(NamedTuple):
    """Averages of gradients (mu) and of squared gradients (nu)."""

    mu: jax.Array
    nu: Squares


class SecondMoment(NamedTuple):
    """An average of squared gradients."""

    nu: Squares


def average(moment: jax.Array, value: jax.Array, decay: jax.Array) -> jax.Array:
    """One step of an exponential average: m ← β m + (1 − β) x."""
    return decay * moment + (1 - decay) * value


def debias(moment: jax.Array, decay: jax.Array, step: jax.Array) -> jax.Array:
    """An exponential average that started at zero, corrected: m / (1 − β^t).

    Written with expm1 and log1p, which keep full precision for β close to 1, where 1 − β^t in
    float32 loses four digits.
    """
    return moment / _one_minus_power(decay, step)


def corrected_mean(
    mu: jax.Array, grad: jax.Array, b1: jax.Array, step: jax.Array, nesterov: bool
) -> jax.Array:
    """An average of gradients without its start at zero; with Nesterov (NAdam) that of a step
    ahead, g counted once more.
    """
    return (
        b1 * debias(mu, b1, step + 1) + (1 - b1) * debias(grad, b1, step)
        if nesterov
        else debias(mu, b1, step)
    )


def corrected_rate(rate: jax.Array, b1: jax.Array, b2: jax.Array, step: jax.Array) -> jax.Array:
    """The bias correction of both moments as a factor of the rate: η √(1 − β2^t) / (1 − β1^t)."""
    return debias(rate, b1, step) * jnp.sqrt(_one_minus_power(b2, step))


@jax.jit
def _one_minus_power(decay: jax.Array, step: jax.Array) -> jax.Array:
    """1 − β^t, which is 1 for β = 0; jitted, so that kernels share its trace."""
    power = jnp.expm1(step * jnp.log1p(jnp.where(decay > 0, decay, 0.5) - 1))
    return jnp.where(decay > 0, -power, 1.0)


def divide_by_root(
    grad: jax.Array, square: jax.Array, eps: jax.Array, eps_in_sqrt: bool
) -> jax.Array:
    """g / √(s + ε), or g / (√s + ε); 0 where the divisor is 0."""
    divisor = jnp.sqrt(square + eps) if eps_in_sqrt else jnp.sqrt(square) + eps
    return jnp.where(divisor == 0, 0.0, grad / jnp.where(divisor == 0, 1.0, divisor))
