"""Numerics for transformations: counters that saturate, norms with safe gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx.tree.arithmetic import root_mean_square
from gradtx.tree.casts import as_array, compute_dtype, is_inexact
from gradtx.tree.errors import HyperparamError
from gradtx.tree.pairs import as_factor, products

Axes = int | tuple[int, ...]


def safe_increment(count: ArrayLike) -> jax.Array:
    """Add 1 to a counter that saturates: at the largest number of its dtype it stays.

    When: a count of updates in a state of your own; int32 would wrap to a negative number after
    2³¹ − 1. When not: in gradtx's rules, which receive the step.

    Args:
      count: the counter, an integer or a float, of any shape.

    Returns: the next count, of the same dtype.

    Raises:
      HyperparamError: bools or complex numbers.

    >>> import jax.numpy as jnp
    >>> from gradtx.tree.numerics import safe_increment
    >>> safe_increment(jnp.array([1, 2**31 - 1])).tolist()
    [2, 2147483647]
    """
    array = jnp.asarray(count)
    if jnp.issubdtype(array.dtype, jnp.integer):
        limit = jnp.iinfo(array.dtype).max
    elif jnp.issubdtype(array.dtype, jnp.floating):
        limit = jnp.finfo(array.dtype).max
    else:
        raise HyperparamError(
            f"safe_increment: count has dtype {array.dtype}; give an integer or a float"
        )
    largest = jnp.asarray(limit, array.dtype)
    return jnp.where(array < largest, array + np.ones((), array.dtype), largest)


def safe_int32_increment(count: ArrayLike) -> jax.Array:
    """Add 1 to a counter that saturates: the old name of `safe_increment`.

    Args:
      count: the counter, an integer or a float, of any shape.

    Returns: the next count, of the same dtype.

    Raises:
      HyperparamError: bools or complex numbers.

    >>> from gradtx.tree.numerics import safe_int32_increment
    >>> safe_int32_increment(2**31 - 1).item()
    2147483647
    """
    return safe_increment(count)


def safe_norm(
    x: ArrayLike,
    min_norm: ArrayLike,
    ord: int | float | str | None = None,
    axis: Axes | None = None,
    keepdims: bool = False,
) -> jax.Array:
    """The norm of an array, bounded from below, with a finite gradient at zero: max(‖x‖, c).

    The gradient is 0 where ‖x‖ ≤ c. Arithmetic is float32 at least; the result has the precision of
    x.

    When: a loss or an update divides by a norm that may be 0. When not: norms of trees; use
    `gradtx.tree.norm`.

    Args:
      x: the array; vectors or matrices along `axis`.
      min_norm: c, of a shape that broadcasts with that of the norms.
      ord: the order, as in `jax.numpy.linalg.norm`; None: the 2-norm, of matrices Frobenius's.
      axis: the axis of vectors, or the two axes of matrices; None: all axes.
      keepdims: keep the axes that are summed over, with size 1.

    Returns: the norms.

    Raises:
      ValueError: an order that vectors or matrices do not have.

    >>> import jax, jax.numpy as jnp
    >>> from gradtx.tree.numerics import safe_norm
    >>> jax.grad(safe_norm)(jnp.zeros(2), 1e-6).tolist()
    [0.0, 0.0]
    >>> safe_norm(jnp.array([3.0, 4.0]), 1e-6).item()
    5.0
    """
    array = as_array(x)
    precise = array.astype(compute_dtype(array.dtype))
    # The derivative of a norm at zero is not defined: there it is taken at ones, and not used.
    is_zero = jnp.linalg.norm(precise, ord, axis, keepdims=True) == 0
    safe = jnp.where(is_zero, jnp.ones((), precise.dtype), precise)
    size = jnp.linalg.norm(safe, ord, axis, keepdims=True)
    size = jnp.where(is_zero, jnp.zeros((), size.dtype), size)
    if not keepdims:
        size = jnp.squeeze(size, _axes(array.ndim, axis))
    return _at_least(size, min_norm, array.dtype)


def _axes(ndim: int, axis: Axes | None) -> Axes:
    return tuple(range(ndim)) if axis is None else axis


def _at_least(size: jax.Array, least: ArrayLike, dtype: Any) -> jax.Array:
    """max(size, least) whose gradient is that of `least` where both are equal."""
    bound = jnp.asarray(least).astype(size.dtype)
    result = jnp.where(size <= bound, bound, size)
    is_half = jnp.issubdtype(dtype, jnp.floating)
    return result.astype(dtype) if is_half else result


def safe_root_mean_squares(x: ArrayLike, min_rms: ArrayLike) -> jax.Array:
    """The root mean square, bounded from below, with a finite gradient at zero: max(rms(x), c).

    rms(x) = √(mean |x_i|²). The gradient is 0 where rms(x) ≤ c. Arithmetic is float32 at least; the
    result has the precision of x.

    Args:
      x: the array; the RMS of an empty one is 0.
      min_rms: c.

    Returns: a scalar.

    >>> import jax, jax.numpy as jnp
    >>> from gradtx.tree.numerics import safe_root_mean_squares
    >>> safe_root_mean_squares(jnp.array([1.0, 7.0]), 1e-3).item()
    5.0
    >>> jax.grad(safe_root_mean_squares)(jnp.zeros(2), 1e-3).tolist()
    [0.0, 0.0]
    """
    array = as_array(x)
    size = root_mean_square(array.astype(compute_dtype(array.dtype)))
    return _at_least(size, min_rms, array.dtype)


@jax.custom_jvp
def _scale_tangent(array: jax.Array, factor: jax.Array) -> jax.Array:
    return array


@_scale_tangent.defjvp
def _scale_tangent_jvp(
    arrays: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (array, factor), tangent = arrays, as_array(tangents[0])
    with products(tangent.dtype):
        return _scale_tangent(array, factor), as_factor(factor, tangent.dtype) * tangent


def scale_gradient(inputs: Any, scale: ArrayLike) -> Any:
    """Scale the gradient that flows back through a value: y = x, ∂y/∂x = s.

    When: s < 0 reverses gradients (domain adaptation), 0 < s < 1 lets a shared trunk learn less
    from one head. When not: gradients of parameters; use `gradtx.scale`.

    Args:
      inputs: x, a tree; integers and None do not change.
      scale: s, a real number; 0 stops the gradient, nan included. It may be traced; its own
        gradient is 0.

    Returns: the same values.

    >>> import jax
    >>> from gradtx.tree.numerics import scale_gradient
    >>> value, grad = jax.value_and_grad(lambda x: scale_gradient(x * x, -0.5))(3.0)
    >>> value.item(), grad.item()
    (9.0, -3.0)

    Ganin and Lempitsky 2015, arXiv 1409.7495, section 3.2.
    """
    if isinstance(scale, int | float) and scale == 0:
        return jax.lax.stop_gradient(inputs)
    factor = jnp.asarray(scale)
    return jax.tree.map(
        lambda leaf: _scale_tangent(as_array(leaf), factor) if is_inexact(leaf) else leaf, inputs
    )
