"""Sums and norms over whole trees, in float32 at least."""

import math
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gradtx.tree.casts import as_array, compute_dtype, is_inexact, widest
from gradtx.tree.kernels import Scalars, map_arrays, stack_scalars
from gradtx.tree.manual_axes import leaf_axes, manual_axes, reduce_over


def abs_sq(x: jax.Array) -> jax.Array:
    """|x|^2 for real and complex arrays alike, without the root that abs takes."""
    return x.real**2 + x.imag**2 if jnp.iscomplexobj(x) else x * x


# The function of JAX itself, so that a trace enters none of gradtx for it.
sqrt: jax.custom_jvp[jax.Array] = jax.custom_jvp(jax.lax.sqrt)
"""The square root of an array, with derivative 0 at 0.

The derivative of √x at 0 is infinite. Where an entry never had a gradient, 0 · ∞ would make nan of
every hypergradient.
"""


@sqrt.defjvp
def _sqrt_jvp(squares: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (square,), (tangent,) = squares, tangents
    root = sqrt(square)
    # Arithmetic, not `where`: no constant has the shape of the array, which may be symbolic.
    is_zero = (root == 0).astype(root.dtype)
    return root, tangent * (1 - is_zero) / (2 * root + is_zero)


cbrt: jax.custom_jvp[jax.Array] = jax.custom_jvp(jax.lax.cbrt)
"""The cube root of an array, with derivative 0 at 0."""


@cbrt.defjvp
def _cbrt_jvp(cubes: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (cube,), (tangent,) = cubes, tangents
    root = cbrt(cube)
    is_zero = (root == 0).astype(root.dtype)
    return root, tangent * (1 - is_zero) / (3 * root * root + is_zero)


# Of Python, for arrays of different shapes.
divide: jax.custom_jvp[jax.Array] = jax.custom_jvp(operator.truediv)
"""The quotient x / y, whose derivative does not square y.

The square of a divisor below 1e-19 is 0 in float32, and 0 · ∞ is nan.
"""


@divide.defjvp
def _divide_jvp(
    arrays: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (left, right), (left_tangent, right_tangent) = arrays, tangents
    quotient = divide(left, right)
    # The quotient first: where it is 0, nothing may overflow before.
    return quotient, left_tangent / right - quotient * (right_tangent / right)


@jax.jit  # kernels share one trace of it
def one_minus_power(decay: jax.Array, step: jax.Array) -> jax.Array:
    """1 − β^t, which is 1 for β = 0."""
    if not is_inexact(decay):
        decay = decay.astype(float)
    # Primitives in place of operators and `jnp.where`: they are traced in a fifth of the time, and
    # every kernel of every method with moments traces this function.
    is_positive = lax.gt(decay, lax.full_like(decay, 0))
    # log1p(0 − 1) is −∞, whose derivative is NaN even where the result is not selected.
    safe = lax.select(is_positive, decay, lax.full_like(decay, 0.5))
    number = step if is_inexact(step) else step.astype(decay.dtype)
    exponent = number * lax.log1p(lax.sub(safe, lax.full_like(decay, 1)))
    # For β close to 1, 1 − β^t in float32 loses four digits; expm1 and log1p keep all.
    power = lax.neg(lax.expm1(exponent))
    return lax.select(is_positive, power, lax.full_like(power, 1))


def squared_norm(array: jax.Array) -> jax.Array:
    """‖x‖² of one array, in its own precision.

    On a CPU it squares x behind a barrier. Where a rule squares x as well, XLA:CPU would else find
    the two alike, and keep all squares of an array in memory for both.
    """
    return jnp.sum(abs_sq(array) if jnp.iscomplexobj(array) else _square(array))


@jax.custom_jvp
def _square(array: jax.Array) -> jax.Array:
    return jax.lax.platform_dependent(array, cpu=_square_apart, default=abs_sq)


def _square_apart(array: jax.Array) -> jax.Array:
    return jax.lax.optimization_barrier(array) ** 2


@_square.defjvp
def _square_jvp(
    arrays: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """That of x², with no barrier in its way."""
    (array,), (tangent,) = arrays, tangents
    return _square(array), 2 * array * tangent


def finite(array: jax.Array) -> jax.Array:
    """The array with 0 in place of inf and nan: for sums and means that one bad entry must not
    ruin.
    """
    return jnp.where(jnp.isfinite(array), array, 0)


def where_finite(new: jax.Array, old: jax.Array) -> jax.Array:
    """`new` where it is finite, else `old`: for scalars of a tree that one overflow must not
    ruin.
    """
    return jnp.where(jnp.isfinite(new), new, old)


def where_summable(new: jax.Array, old: jax.Array, axes: int) -> jax.Array:
    """`new` where the sum along its last `axes` axes is finite, else `old`: for statistics of a
    matrix that the squares of one gradient must not ruin.

    Of two axes the diagonal counts: it bounds all entries of a covariance.
    """
    entries = jnp.diagonal(new, axis1=-2, axis2=-1) if axes == 2 else new
    is_finite = jnp.isfinite(jnp.sum(entries.real, axis=-1, keepdims=True))
    return jnp.where(is_finite[..., None] if axes == 2 else is_finite, new, old)


def dot(left: jax.Array, right: jax.Array) -> jax.Array:
    """The inner product of two arrays as vectors of real numbers; entries that are not finite do
    not count.
    """
    product = (
        finite(left).conj() * finite(right)
        if jnp.iscomplexobj(left)
        else finite(left) * finite(right)
    )
    return jnp.sum(product.real)


def entries(shape: Sequence[int]) -> float:
    """The number of entries of an array, 1 at least: a mean of no entries then is 0.

    A float, because an int from 2³¹ on fits into no array of int32.
    """
    return float(max(math.prod(shape), 1))


def mean(array: jax.Array, axes: int | Sequence[int]) -> jax.Array:
    """The mean over some axes, which stay with length 1.

    It is a sum of quotients: the sum of large entries may overflow where their mean does not.
    """
    places = (axes,) if isinstance(axes, int) else tuple(axes)
    number = entries([array.shape[place] for place in places])
    return jnp.sum(array / number, axis=places, keepdims=True)


def count_true(array: jax.Array) -> jax.Array:
    """The number of entries that are True."""
    if entries(array.shape) < 2.0**31:
        return jnp.sum(array)
    # An int32 would wrap, and one sum of ones in float32 would stop at 2²⁴.
    return jnp.sum(jnp.sum(array, axis=-1).astype(jnp.float32))


def norm(array: jax.Array) -> jax.Array:
    """The 2-norm of one array, in its own precision."""
    return sqrt(squared_norm(array))


def matrix_norm(matrix: jax.Array) -> jax.Array:
    """The Frobenius norm of each matrix (..., n, m), as (..., 1, 1)."""
    return sqrt(jnp.sum(abs_sq(matrix), axis=(-2, -1), keepdims=True))


def matrix_dot(left: jax.Array, right: jax.Array) -> jax.Array:
    """The inner product ⟨left, right⟩ of each pair of matrices (..., n, m), as (..., 1, 1)."""
    return jnp.sum((left * right.conj()).real, axis=(-2, -1), keepdims=True)


def over_norm(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """The quotient by a norm, or by its square; by 1 where that is 0."""
    return numerator / jnp.where(denominator == 0, 1.0, denominator)


def root_mean_square(array: jax.Array) -> jax.Array:
    """The root mean square of one array, in its own precision; 0 for an empty one."""
    return sqrt(jnp.sum(abs_sq(array)) / entries(array.shape))


def sum_of_squares(array: jax.Array) -> jax.Array:
    """The squared 2-norm of one array, summed in float32 at least."""
    return squared_norm(array.astype(compute_dtype(array.dtype)))


def global_norm(updates: Any, *, axis_names: Any = None) -> jax.Array:
    """The global norm of gradients: the 2-norm of all arrays of a tree taken as one vector.

    ‖g‖ = √(Σ |g_i|²), summed in float32 at least. None and integers do not count: they have no
    gradient. The derivative at zero is 0.

    Args:
      updates: a tree, of gradients for instance.
      axis_names: inside `shard_map` and `pmap` the mesh axes that cut the arrays: a name, several,
        or a tree of PartitionSpecs. Where types tell (`check_vma=True`), each array is summed over
        the named axes along which it differs. (): each device has a norm of its own.

    Returns: a scalar, in float32 at least; 0 for an empty tree.

    Raises:
      GradtxError: inside `shard_map`, arrays that differ over devices, and no `axis_names`.

    >>> import gradtx, jax.numpy as jnp
    >>> gradtx.global_norm({"a": jnp.array([3.0]), "b": jnp.array([[4.0]])}).item()
    5.0

    See also: `gradtx.tree.norm`, which has other orders and counts integers.
    """
    arrays = [leaf for leaf in jax.tree.leaves(updates) if is_inexact(leaf)]
    if axis_names is None and not manual_axes():
        return norm_of(arrays)
    leaves = jax.tree.leaves(updates)
    names = leaf_axes("global_norm", updates, leaves, axis_names)
    cut = [one for one, leaf in zip(names, leaves, strict=True) if is_inexact(leaf)]
    return sqrt(reduce_over(map_arrays(sum_of_squares, arrays), cut, sum_promoted))


def norm_of_tree(updates: Any) -> jax.Array:
    """`global_norm` for transformations, whose arrays `over_axes` makes whole."""
    return norm_of([leaf for leaf in jax.tree.leaves(updates) if is_inexact(leaf)])


def norm_of(arrays: Sequence[jax.Array]) -> jax.Array:
    """The 2-norm of a list of arrays taken as one vector; 0 for none."""
    parts = map_arrays(sum_of_squares, [as_array(array) for array in arrays])
    return sqrt(sum_promoted(parts))


def sum_promoted(scalars: Sequence[jax.Array]) -> jax.Array:
    """The sum of scalars that may differ in dtype."""
    if not scalars:
        return jnp.zeros((), jnp.float32)
    dtypes = {scalar.dtype for scalar in scalars}
    dtype = dtypes.pop() if len(dtypes) == 1 else widest(*dtypes)
    return _add_all(stack_scalars([scalar.astype(dtype) for scalar in scalars]))


def sum_scalars(scalars: Sequence[jax.Array]) -> jax.Array:
    """The sum of one scalar for each array of a tree."""
    if isinstance(scalars, Scalars):
        scalars = [jnp.sum(vector) for vector in scalars.vectors]
    return sum(scalars[1:], start=scalars[0])


_add_all = jax.jit(sum_scalars)
