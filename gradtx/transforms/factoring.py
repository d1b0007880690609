"""Second moments of rows and columns in place of second moments of entries.

A matrix of averages of squares is replaced by the product of its row means r and column means c, r
⊗ c / mean(r): n + m numbers for n · m. Of an array with more axes the two longest are factored, and
the others are kept."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.definition.types import SQUARES
from gradtx.transforms.moments import average, divide_by_root
from gradtx.tree.arithmetic import finite
from gradtx.tree.casts import real_zeros, real_zeros_along


class Factored(NamedTuple):
    """Averages of squares: of rows and columns where the array is factored, of entries where it is
    not; None for the others.
    """

    nu_row: Any
    nu_col: Any
    nu: Annotated[Any, SQUARES]


Pair = tuple[int, int] | None
"""The axes that rows and columns are counted along; None where an array is not factored."""


def factored_axes(shape: tuple[int, ...], min_dim_size_to_factor: int) -> Pair:
    """The two longest axes, the longest second, if both have the length that factoring takes; of
    equal ones the last.
    """
    by_length = sorted(range(len(shape)), key=lambda axis: shape[axis])
    if len(shape) < 2 or shape[by_length[-2]] < min_dim_size_to_factor:
        return None
    return by_length[-2], by_length[-1]


def init_factored(param: jax.Array, axes: Pair) -> Factored:
    if axes is None:
        return Factored(None, None, real_zeros(param))
    row, col = axes
    by_row, by_col = ([axis for axis in range(param.ndim) if axis != gone] for gone in (col, row))
    return Factored(real_zeros_along(param, by_row), real_zeros_along(param, by_col), None)


def average_factored(slots: Factored, square: jax.Array, decay: jax.Array, axes: Pair) -> Factored:
    """One step of the averages; inf and nan count as 0 in the means, so that they do not reach a
    whole row and column.
    """
    if axes is None:
        return Factored(None, None, average(slots.nu, square, decay))
    row, col = axes
    over_rows, over_cols = jnp.mean(finite(square), axis=row), jnp.mean(finite(square), axis=col)
    return Factored(
        average(slots.nu_row, over_cols, decay), average(slots.nu_col, over_rows, decay), None
    )


def divide_by_factored_root(grad: jax.Array, slots: Factored, axes: Pair) -> jax.Array:
    """g / √v, v = r ⊗ c / mean(r) where the array is factored; 0 where the divisor is 0."""
    nothing = jnp.zeros((), grad.real.dtype)
    if axes is None:
        return divide_by_root(grad, slots.nu, nothing, True)
    row, col = axes
    rows, cols = jnp.expand_dims(slots.nu_row, col), jnp.expand_dims(slots.nu_col, row)
    mean = jnp.mean(rows, axis=row, keepdims=True)
    return divide_by_root(
        divide_by_root(grad, rows / jnp.where(mean > 0, mean, 1.0), nothing, True),
        cols,
        nothing,
        True,
    )
