"""Trees as vectors of real numbers: inner products, and what lies a step along a direction."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.tree.arithmetic import dot, finite, sum_promoted
from gradtx.tree.casts import (
    ALIKE,
    as_array,
    compute_dtype,
    is_inexact,
    mixed_promotion,
    real_dtype,
    widest,
)
from gradtx.tree.kernels import map_arrays
from gradtx.tree.paths import Treedef, flatten


class Vector(NamedTuple):
    """Some arrays of a tree, in order, and how to put others in their places."""

    arrays: list[jax.Array]
    fill: Callable[[Sequence[Any]], Any]
    """The tree with other arrays in those places."""
    alone: Callable[[Sequence[Any]], Any]
    """The same, with None in all other places."""


def vector(like: Any, tree: Any) -> Vector:
    """What a tree has where another has float or complex arrays; None and integers are no part of a
    vector.
    """
    chosen, treedef = flatten(like)
    values = treedef.flatten_up_to(tree)
    places = [place for place, value in enumerate(chosen) if is_inexact(value)]
    return Vector(
        [as_array(values[place]) for place in places],
        functools.partial(_put, treedef, places, values),
        functools.partial(_put, treedef, places, [None] * len(values)),
    )


def _put(
    treedef: Treedef, places: Sequence[int], values: Sequence[Any], arrays: Sequence[Any]
) -> Any:
    filled = list(values)
    for place, array in zip(places, arrays, strict=True):
        filled[place] = array
    return jax.tree.unflatten(treedef, filled)


def value_and_grad(
    function: Callable[..., Any], params: Any, *args: Any, has_aux: bool = False, **kwargs: Any
) -> tuple[Any, Any]:
    """The value of a function, and its gradient by the float and complex arrays of a tree.

    `jax.value_and_grad` refuses a tree with an integer or a random key. Here these are arguments
    like any other, and None is their gradient.
    """
    point = vector(params, params)

    def of_arrays(arrays: Sequence[Any]) -> Any:
        return function(point.fill(arrays), *args, **kwargs)

    value, grads = jax.value_and_grad(of_arrays, has_aux=has_aux)(point.arrays)
    return value, point.alone(grads)


def inner(left: Sequence[jax.Array], right: Sequence[jax.Array]) -> jax.Array:
    """The real inner product of two lists of arrays, in float32 at least.

    Entries that are not finite do not count. Products that overflow do: the result is then exact
    where a float holds it, and else the largest number.
    """
    sizes = [size_of(arrays) for arrays in (left, right)]
    return multiply_back(scaled_inner(left, right, sizes), sizes)


def scaled_inner(
    left: Sequence[jax.Array], right: Sequence[jax.Array], sizes: Sequence[jax.Array]
) -> jax.Array:
    """The inner product of two lists of arrays, each divided by its size."""
    shared = [[size] * len(left) for size in sizes]
    return sum_promoted(map_arrays(_dot, left, right, *shared) if left else [])


def size_of(arrays: Sequence[jax.Array]) -> jax.Array:
    """A power of two near the largest finite entry; 1 where all are 0."""
    tops = map_arrays(_top, arrays) if arrays else []
    dtype = widest(jnp.float32, *(top.dtype for top in tops))
    top = functools.reduce(jnp.maximum, [one.astype(dtype) for one in tops], jnp.zeros((), dtype))
    finfo = jnp.finfo(top.dtype)
    # Half of it, because the largest number would be rounded up to inf. To divide by a power of two
    # changes no digit.
    half = jax.lax.reduce_precision(top / 2, finfo.nexp, 0)
    return jnp.where(half > 0, half, 1)


def multiply_back(product: jax.Array, sizes: Sequence[jax.Array]) -> jax.Array:
    """A product times the sizes, within the numbers that a float holds."""
    limit, (first, second) = (
        jnp.finfo(product.dtype).max,
        (size.astype(product.dtype) for size in sizes),
    )
    return jnp.clip(product * first * second, -limit, limit)


def _top(array: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(finite(array.astype(compute_dtype(array.dtype)))), initial=0)


def _dot(
    left: jax.Array, right: jax.Array, left_size: jax.Array, right_size: jax.Array
) -> jax.Array:
    pairs = ((left, left_size), (right, right_size))
    return dot(*(_divide(one.astype(compute_dtype(one.dtype)), size) for one, size in pairs))


def _divide(array: jax.Array, size: jax.Array) -> jax.Array:
    """An array divided by a real number, which has a type of its own beside complex arrays."""
    with ALIKE if array.dtype.kind != "c" else mixed_promotion():
        return array / size.astype(real_dtype(array.dtype))


def scalar_dtype(tree: Any) -> Any:
    """The widest real dtype that any array of a tree is computed in: for the scalars of the whole
    tree.
    """
    dtypes = {real_dtype(jnp.result_type(value)) for value in flatten(tree)[0] if is_inexact(value)}
    return widest(jnp.float32, *dtypes)
