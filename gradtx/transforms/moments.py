"""First and second moments: the slots of adaptive methods, and the arithmetic that they share."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.definition.types import DTypeLike, Squares
from gradtx.transforms.kernel_moments import KernelMoment
from gradtx.tree.arithmetic import divide, one_minus_power, sqrt
from gradtx.tree.casts import real_zeros, zeros


class Momentum(NamedTuple):
    """An average of gradients."""

    mu: jax.Array


def init_momentum(param: jax.Array, *, mu_dtype: DTypeLike | None = None) -> Momentum:
    """Start the average of gradients at zero."""
    return Momentum(zeros(param, mu_dtype))


class Moments(NamedTuple):
    """Averages of gradients (mu) and of squared gradients (nu)."""

    mu: jax.Array
    nu: Squares


def init_moments(param: jax.Array, *, mu_dtype: DTypeLike | None = None) -> Moments:
    """Start both averages at zero; squares are real where the array is complex."""
    return Moments(mu=zeros(param, mu_dtype), nu=real_zeros(param))


class SecondMoment(NamedTuple):
    """An average of squared gradients."""

    nu: Squares


Moment = Any
"""A first moment: the array of an average, or a `KernelMoment`."""


def average(moment: Moment, value: jax.Array, decay: jax.Array) -> Any:
    """Update an exponential moving average: m ← β m + (1 − β) x."""
    if isinstance(moment, KernelMoment):
        return moment.average(value, decay)
    return decay * moment + (1 - decay) * value


def debias(moment: Moment, decay: jax.Array, step: jax.Array) -> jax.Array:
    """Correct the bias of an average that started at zero: m / (1 − β^t)."""
    if isinstance(moment, KernelMoment):
        return moment.mean(step)
    return moment / one_minus_power(decay, step)


def corrected_mean(
    mu: Moment, grad: jax.Array, b1: jax.Array, step: jax.Array, nesterov: bool
) -> jax.Array:
    """Correct the bias of an average of gradients; with Nesterov (NAdam), look one step ahead.

    The look-ahead counts the gradient of this step once more: up to 1.5 of it in the first steps,
    which may be above the largest float.
    """
    if not nesterov:
        return debias(mu, b1, step)
    # The weight of the gradient first: g / (1 − β1^t) of a large gradient may overflow.
    ahead = b1 * debias(mu, b1, step + 1) + debias(1 - b1, b1, step) * grad
    return _looking_ahead(mu, ahead, step)


def mean_of(mu: Moment) -> jax.Array:
    """Return a first moment as an array, without a correction of its bias."""
    return mu.mean() if isinstance(mu, KernelMoment) else mu


def plain_mean(mu: Moment, grad: jax.Array, b1: jax.Array, nesterov: bool) -> jax.Array:
    """Return an average of gradients without correction; with Nesterov, one step ahead."""
    mean = mean_of(mu)
    return _looking_ahead(mu, average(mean, grad, b1), None) if nesterov else mean


def _looking_ahead(mu: Moment, ahead: jax.Array, step: jax.Array | None) -> jax.Array:
    """The mean one step ahead, unless a kernel takes no look-ahead."""
    if isinstance(mu, KernelMoment):
        return mu.kernel.look_ahead(ahead, mu.mean(step), mu.seen)
    return ahead


def counted(mu: Moment, step: jax.Array) -> Any:
    """Return a first moment that has the gradients of all steps before `step`."""
    return mu._replace(seen=step - 1) if isinstance(mu, KernelMoment) else mu


def buffers_of(mu: Moment) -> Any:
    """Return the arrays of a first moment: one array, or a tuple of buffers."""
    return mu.buffers if isinstance(mu, KernelMoment) else mu


def with_buffers(mu: Moment, buffers: Any) -> Any:
    """Return a first moment with other arrays, as `buffers_of` returns them."""
    return mu._replace(buffers=buffers) if isinstance(mu, KernelMoment) else buffers


def where_moment(condition: jax.Array, mu: Moment, other: Moment) -> Any:
    """Return one first moment where a condition holds, else the other."""
    if isinstance(mu, KernelMoment):
        return mu.where(condition, other)
    return jnp.where(condition, mu, other)


def corrected_rate(rate: jax.Array, b1: jax.Array, b2: jax.Array, step: jax.Array) -> jax.Array:
    """Apply the bias corrections of both moments to the rate: η √(1 − β2^t) / (1 − β1^t)."""
    return debias(rate, b1, step) * sqrt(one_minus_power(b2, step))


def divide_by_root(
    grad: jax.Array, square: jax.Array, eps: jax.Array, eps_in_sqrt: bool
) -> jax.Array:
    """Return g / √(s + ε) or g / (√s + ε); 0 where the divisor is 0."""
    divisor = sqrt(square + eps) if eps_in_sqrt else sqrt(square) + eps
    # The inner `where` keeps 0 / 0 out of the derivative, too.
    return jnp.where(divisor == 0, 0.0, divide(grad, jnp.where(divisor == 0, 1.0, divisor)))
