"""Trees as vectors of real numbers: inner products, and what lies a step along a direction."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.tree.arithmetic import dot, sum_promoted
from gradtx.tree.casts import as_array, compute_dtype, is_inexact, real_dtype, widest
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


def inner(left: Sequence[jax.Array], right: Sequence[jax.Array]) -> jax.Array:
    """The real inner product of two lists of arrays, in float32 at least; entries that are not
    finite do not count.
    """
    return sum_promoted(map_arrays(_dot, left, right) if left else [])


def _dot(left: jax.Array, right: jax.Array) -> jax.Array:
    return dot(*(one.astype(compute_dtype(one.dtype)) for one in (left, right)))


def scalar_dtype(tree: Any) -> Any:
    """The widest real dtype that any array of a tree is computed in: for the scalars of the whole
    tree.
    """
    dtypes = {real_dtype(jnp.result_type(value)) for value in flatten(tree)[0] if is_inexact(value)}
    return widest(jnp.float32, *dtypes)
