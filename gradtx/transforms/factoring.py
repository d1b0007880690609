"""Factored second moments: row and column means in place of one number per entry.

The product of row means r and column means c replaces a matrix of averages of squares, r ⊗ c /
mean(r): n + m numbers for n · m. In an array with more axes the two longest are factored, and the
others stay whole.
"""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.definition.types import SQUARES
from gradtx.transforms.moments import average, divide_by_root
from gradtx.tree.arithmetic import abs_sq, divide, finite
from gradtx.tree.casts import real_zeros, real_zeros_along


class Factored(NamedTuple):
    """Averages of squares: of rows and columns where the array is factored, of entries elsewhere.

    The other fields are None.
    """

    nu_row: Any
    nu_col: Any
    nu: Annotated[Any, SQUARES]


Pair = tuple[int, int] | None
"""The axes of rows and columns; None where an array is not factored."""


def factored_axes(shape: tuple[int, ...], min_dim_size_to_factor: int) -> Pair:
    """The two longest axes, the longest second.

    Of equal axes the last count as the longest. None: one of them is too short to factor.
    """
    by_length = sorted(range(len(shape)), key=lambda axis: shape[axis])
    if len(shape) < 2 or shape[by_length[-2]] < min_dim_size_to_factor:
        return None
    return by_length[-2], by_length[-1]


def init_factored(param: jax.Array, axes: Pair) -> Factored:
    """Averages of zero, factored along `axes`."""
    if axes is None:
        return Factored(None, None, real_zeros(param))
    row, col = axes
    row_axes = [axis for axis in range(param.ndim) if axis != col]
    col_axes = [axis for axis in range(param.ndim) if axis != row]
    return Factored(real_zeros_along(param, row_axes), real_zeros_along(param, col_axes), None)


def bounded_square(array: jax.Array) -> jax.Array:
    """|x|², no more than a mean of an array can hold where x is finite.

    As inf it would not count in the means, and x would be divided by the root of smaller squares.
    """
    limit = float(jnp.finfo(array.dtype).max) / max(array.size, 1)
    return jnp.where(jnp.isfinite(array), jnp.minimum(abs_sq(array), limit), abs_sq(array))


def average_factored(slots: Factored, square: jax.Array, decay: jax.Array, axes: Pair) -> Factored:
    """One step of the averages."""
    if axes is None:
        return Factored(None, None, average(slots.nu, square, decay))
    row, col = axes
    # inf and nan count as 0 in the means, so that one entry does not spoil a whole row and column.
    row_means, col_means = jnp.mean(finite(square), axis=col), jnp.mean(finite(square), axis=row)
    return Factored(
        average(slots.nu_row, row_means, decay), average(slots.nu_col, col_means, decay), None
    )


def divide_by_factored_root(grad: jax.Array, slots: Factored, axes: Pair) -> jax.Array:
    """g / √v, and 0 where the divisor is 0; v = r ⊗ c / mean(r) where the array is factored."""
    eps = jnp.zeros((), grad.real.dtype)
    if axes is None:
        return divide_by_root(grad, slots.nu, eps, True)
    row, col = axes
    rows, cols = jnp.expand_dims(slots.nu_row, col), jnp.expand_dims(slots.nu_col, row)
    mean = jnp.mean(rows, axis=row, keepdims=True)
    # Two divisions: the product r ⊗ c would hold fourth powers of gradients, which underflow.
    by_rows = divide_by_root(grad, divide(rows, jnp.where(mean > 0, mean, 1.0)), eps, True)
    return divide_by_root(by_rows, cols, eps, True)
