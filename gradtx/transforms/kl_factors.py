r"""Kronecker factors fitted together, each to gradients that the other whitened: the part that
KL-Shampoo and KL-SOAP share.

    L ← β L + (1 − β) G R⁻¹ Gᵀ / m          R ← β R + (1 − β) Gᵀ L⁻¹ G / n
    λ_L ← β λ_L + (1 − β) diag(Q_Lᵀ (G R⁻¹ Gᵀ / m) Q_L)          λ_R alike
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from gradtx.compose.descend import StepFlags
from gradtx.definition.types import Default, NonNegative
from gradtx.linalg import Factors, multiply_sides
from gradtx.linalg.newton_schulz import adjoint
from gradtx.transforms.eigenbases import (
    BasisFlags,
    all_zero,
    identity,
    squared_size,
)
from gradtx.transforms.moments import average
from gradtx.tree.arithmetic import abs_sq, sqrt, where_summable


class KlFlags(BasisFlags, total=False):
    """The keyword arguments of KL-Shampoo and KL-SOAP."""

    floor: Annotated[NonNegative, Default(1e-6)]


class KlStepFlags(KlFlags, StepFlags, total=False):
    """The same, with the flags of the step."""


def update_kl_factors(
    grad: jax.Array,
    factors: Factors,
    bases: Factors,
    values: Factors,
    decay: jax.Array,
    floor: jax.Array,
) -> tuple[jax.Array, Factors, Factors]:
    """Return the gradient in the bases, the new factors, and the new eigenvalues."""
    n, m = grad.shape[-2:]
    factors, values = _with_start(grad, factors, values)
    # Each side uses the other as it was before this step: the two updates are simultaneous.
    left, right = inverse_roots(values, floor)
    to_left = None if bases.left is None else adjoint(bases.left)
    by_right = multiply_sides(None, grad, bases.right)
    rotated = multiply_sides(to_left, by_right, None)
    by_left = multiply_sides(to_left, grad, None)
    rows, columns = scale_sides(None, by_right, right), scale_sides(left, by_left, None)
    row_shares = abs_sq(scale_sides(None, rotated, right))
    column_shares = abs_sq(scale_sides(left, rotated, None))
    new_factors = Factors(
        None if factors.left is None else average(factors.left, rows @ adjoint(rows) / m, decay),
        None
        if factors.right is None
        else average(factors.right, adjoint(columns) @ columns / n, decay),
    )
    new_values = Factors(
        None
        if values.left is None
        else average(values.left, jnp.sum(row_shares, axis=-1) / m, decay),
        None
        if values.right is None
        else average(values.right, jnp.sum(column_shares, axis=-2) / n, decay),
    )
    return rotated, _summable(new_factors, factors, 2), _summable(new_values, values, 1)


def _summable(new: Factors, old: Factors, axes: int) -> Factors:
    """New statistics where they are finite."""
    pairs = zip(new, old, strict=True)
    return Factors(
        *(None if a is None or b is None else where_summable(a, b, axes) for a, b in pairs)
    )


def _with_start(grad: jax.Array, factors: Factors, values: Factors) -> tuple[Factors, Factors]:
    """The factors and eigenvalues; before the first gradient multiples of the identity.

    The product of these multiples is the mean square of the gradient.
    """
    is_first = all_zero(factors, grad.ndim - 2)
    size = squared_size(grad)[..., 0] / max(grad.shape[-2] * grad.shape[-1], 1)
    # Two sides share the mean square, so each has its root.
    size = sqrt(size) if None not in factors else size
    # A first gradient whose squares overflow starts nothing.
    size = jnp.where(is_first[..., None] & jnp.isfinite(size), size, 0)
    started = Factors(
        *(
            None if factor is None else factor + size[..., None] * identity(factor)
            for factor in factors
        )
    )
    return started, Factors(*(None if value is None else value + size for value in values))


def inverse_roots(values: Factors, floor: jax.Array) -> Factors:
    """1 / √max(λ, φ max λ) of each side; 0 where all are 0."""
    return Factors(*(None if value is None else _inverse_root(value, floor) for value in values))


def _inverse_root(values: jax.Array, floor: jax.Array) -> jax.Array:
    # Below the floor only rounding is left, which a root would blow up to the size of a step.
    raised = jnp.maximum(values, floor * jnp.max(values, axis=-1, keepdims=True, initial=0))
    return jnp.where(raised > 0, jax.lax.rsqrt(jnp.where(raised > 0, raised, 1)), 0)


def scale_sides(left: jax.Array | None, x: jax.Array, right: jax.Array | None) -> jax.Array:
    """X between two diagonal matrices."""
    x = x if left is None else left[..., :, None] * x
    return x if right is None else x * right[..., None, :]
