"""Sums and norms over whole trees, in float32 at least."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.tree.casts import as_array, compute_dtype, is_inexact, widest
from gradtx.tree.kernels import map_arrays


def abs_sq(array: jax.Array) -> jax.Array:
    """|x|^2 for real and complex arrays alike, without the root that abs takes."""
    return array.real**2 + array.imag**2 if jnp.iscomplexobj(array) else array * array


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


def norm(array: jax.Array) -> jax.Array:
    """The 2-norm of one array, in its own precision."""
    return jnp.sqrt(squared_norm(array))


def root_mean_square(array: jax.Array) -> jax.Array:
    """The root mean square of one array, in its own precision; 0 for an empty one."""
    return jnp.sqrt(jnp.sum(abs_sq(array)) / max(array.size, 1))


def sum_of_squares(array: jax.Array) -> jax.Array:
    """The squared 2-norm of one array, summed in float32 at least."""
    return squared_norm(array.astype(compute_dtype(array.dtype)))


def global_norm(tree: Any) -> jax.Array:
    """The 2-norm of all arrays of a tree taken as one vector.

    Sums run in float32 at least, whatever the arrays' dtypes.

    >>> float(global_norm({"a": jnp.array([3.0]), "b": jnp.array([[4.0]])}))
    5.0
    """
    return norm_of([leaf for leaf in jax.tree.leaves(tree) if is_inexact(leaf)])


def norm_of(arrays: Sequence[jax.Array]) -> jax.Array:
    """The 2-norm of a list of arrays taken as one vector; 0 for none."""
    parts = map_arrays(sum_of_squares, [as_array(array) for array in arrays])
    return jnp.sqrt(sum_promoted(parts))


def sum_promoted(scalars: Sequence[jax.Array]) -> jax.Array:
    """The sum of scalars that may differ in dtype."""
    if not scalars:
        return jnp.zeros((), jnp.float32)
    dtypes = {scalar.dtype for scalar in scalars}
    dtype = dtypes.pop() if len(dtypes) == 1 else widest(*dtypes)
    return _add_all([scalar.astype(dtype) for scalar in scalars])


def sum_scalars(scalars: Sequence[jax.Array]) -> jax.Array:
    """The sum of one scalar for each array of a tree."""
    return sum(scalars[1:], start=scalars[0])


_add_all = jax.jit(sum_scalars)
