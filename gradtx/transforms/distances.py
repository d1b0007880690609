"""Distances to a solution, and how learning-rate-free methods estimate them.

    d ← max(d, r / Σ ‖s‖₁)            D-Adaptation and Prodigy: from weighted sums of gradients
    r ← max(r, ‖θ − θ0‖)              DoG and DoWG: from the distance travelled

All of these are scalars of the whole tree.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.descend import descend
from gradtx.compose.transformation import GradientTransformation
from gradtx.definition.types import Hyperparam, NonNegative, Precise
from gradtx.engine.selector import Where
from gradtx.tree.arithmetic import abs_sq, finite, where_finite
from gradtx.tree.casts import float_copy


class Estimate(NamedTuple):
    """The estimated distance d, and the numerator r of its next value."""

    estim_lr: jax.Array
    numerator: jax.Array


class EstimateParts(NamedTuple):
    """Terms of one array in the numerator and in the denominator of the estimate."""

    inner: jax.Array
    norm1: jax.Array


def init_estimate(*, estim_lr0: jax.Array) -> Estimate:
    """An estimate before the first gradient."""
    return Estimate(jnp.asarray(estim_lr0), jnp.zeros(()))


def raise_estimate(old: Estimate, numerator: jax.Array, divisor: jax.Array) -> Estimate:
    """d ← max(d, r / divisor).

    A divisor of zero and sums that overflow leave the estimate as it was.
    """
    ratio = numerator / jnp.where(divisor > 0, divisor, 1.0)
    usable = (divisor > 0) & jnp.isfinite(ratio)
    distance = jnp.where(usable, jnp.maximum(old.estim_lr, ratio), old.estim_lr)
    return Estimate(distance, where_finite(numerator, old.numerator))


def finite_norm1(array: jax.Array) -> jax.Array:
    """‖x‖₁ of the finite entries."""
    return jnp.sum(jnp.abs(finite(array)))


def finite_square(array: jax.Array) -> jax.Array:
    """‖x‖² of the finite entries, so that one bad entry does not ruin the sum."""
    return jnp.sum(abs_sq(finite(array)))


class Start(NamedTuple):
    """The first parameters."""

    init_params: Precise


class SquaredNorms(NamedTuple):
    """Of one array: ‖g‖², ‖θ − θ0‖² and ‖θ0‖²."""

    grad: jax.Array
    way: jax.Array
    start: jax.Array


def init_start(param: jax.Array) -> Start:
    """The `init` of a rule that measures the distance from the first parameters."""
    return Start(float_copy(param))


def measure_distance(
    grad: jax.Array, slots: Start, param: jax.Array, step: jax.Array
) -> SquaredNorms:
    """The `measure` of such a rule."""
    way = finite_square(param - slots.init_params)
    return SquaredNorms(finite_square(grad), way, finite_square(slots.init_params))


def scale_by_rate(
    grad: jax.Array, slots: Start, param: jax.Array, step: jax.Array, *, rate: jax.Array
) -> tuple[jax.Array, Start]:
    """The update of a rule whose `conclude` returns a rate for the whole tree."""
    return rate * grad, slots


def rate_of(distance: jax.Array, divisor: jax.Array) -> jax.Array:
    """distance / divisor; 0 where the divisor is 0, because there is no gradient then."""
    return jnp.where(divisor > 0, distance / jnp.where(divisor > 0, divisor, 1.0), 0.0)


def descend_with_penalty(
    rule: GradientTransformation,
    learning_rate: Hyperparam,
    weight_decay: NonNegative | None,
    mask: Where | None,
) -> GradientTransformation:
    """θ ← θ − η u. Weight decay, if any, is an L2 penalty in the gradient of the rule."""
    if weight_decay is None:
        return descend(rule, learning_rate)
    return descend(rule, learning_rate, weight_decay, mask, decay_form="l2")
