"""A tree as vectors: all of its entries as one, or one along some axes of every array."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.definition.errors import StructureError
from gradtx.tree.arithmetic import abs_sq
from gradtx.tree.casts import as_array, is_inexact, real_dtype, widest
from gradtx.tree.paths import match_leaves, tree_paths

Axis = int | Sequence[int] | None
"""The axes of one vector, as NumPy counts them; None: all entries of a tree are one vector."""
Axes = tuple[int, ...] | None
Rule = Callable[..., list[jax.Array]]
"""`rule(arrays, *rest, axes)`: the projections of arrays that are one vector, or of one array."""


class Leaves(NamedTuple):
    """A flattened tree, with the name of the function that reads it."""

    name: str
    arrays: list[jax.Array]
    paths: Callable[[], tuple[str, ...]]
    treedef: Any

    def beside(self, other: Any, argument: str) -> list[Any]:
        """The values of another tree, or one value for every array."""
        if jax.tree_util.all_leaves([other]):
            return [other] * len(self.arrays)
        error = functools.partial(_trees_differ, self.name, argument)
        return match_leaves(self.treedef, self.paths, other, "the tree", argument, error)

    def at(self, number: int) -> str:
        """The place of an array in a message; "" for a bare array."""
        path = self.paths()[number]
        return f" at {path!r}" if path else ""

    def check_real(self, cure: str) -> None:
        """Raise where an array is complex."""
        for number, array in enumerate(self.arrays):
            if jnp.iscomplexobj(array):
                raise StructureError(
                    f"{self.name}: the array{self.at(number)} is {array.dtype}, and "
                    f"complex numbers have no order: {cure}"
                )


def _trees_differ(name: str, argument: str, difference: str) -> StructureError:
    return StructureError(f"{name}: the tree and {argument} differ in structure: {difference}")


def leaves_of(name: str, tree: Any) -> Leaves:
    """Flatten a tree; None has no entries."""
    values, treedef = jax.tree.flatten(tree)
    return Leaves(name, [as_array(one) for one in values], lambda: _paths(tree), treedef)


def _paths(tree: Any) -> tuple[str, ...]:
    values = jax.tree.leaves(tree, is_leaf=lambda node: node is None)
    each = zip(tree_paths(tree), values, strict=True)
    return tuple(path for path, value in each if value is not None)


def map_vectors(
    rule: Rule,
    leaves: Leaves,
    axis: Axis,
    trees: Mapping[str, Any] | None = None,
    numbers: Mapping[str, Any] | None = None,
) -> Any:
    """Apply a rule to every vector of a tree.

    `trees` have an array beside each array of the tree, `numbers` one number for each vector; both
    are by the name of their argument. The rule receives them in this order. It computes in float32
    at least, and each result has the dtype of its array.
    """
    columns = [_cast_beside(leaves, name, tree) for name, tree in (trees or {}).items()]
    scalars = numbers or {}
    if axis is None:
        rest = [_one_number(leaves.name, name, value) for name, value in scalars.items()]
        results = compute(rule, None)(leaves.arrays, columns, rest) if leaves.arrays else []
        return jax.tree.unflatten(leaves.treedef, results)
    results = []
    for number, array in enumerate(leaves.arrays):
        axes = _axes(leaves, number, axis)
        rest = [per_vector(leaves, number, name, value, axes) for name, value in scalars.items()]
        row = [[column[number]] for column in columns]
        results += compute(rule, axes)([array], row, rest)
    return jax.tree.unflatten(leaves.treedef, results)


@functools.lru_cache(maxsize=1024)
def compute(rule: Rule, axes: Axes) -> Callable[..., list[jax.Array]]:
    """The rule with its casts, jitted: in eager mode it is one call, not one for each operation."""
    return jax.jit(functools.partial(_compute, rule, axes))


def _compute(
    rule: Rule,
    axes: Axes,
    arrays: Sequence[jax.Array],
    columns: Sequence[Sequence[jax.Array]],
    numbers: Sequence[jax.Array],
) -> list[jax.Array]:
    dtype = widest(*(real_dtype(array.dtype) for array in arrays))
    rest = [[_cast(one, dtype) for one in column] for column in columns]
    rest += [_cast(number, dtype) for number in numbers]
    results = rule([_cast(array, dtype) for array in arrays], *rest, axes=axes)
    each = zip(results, arrays, strict=True)
    return [_cast(result, float_dtype(array)) for result, array in each]


def _cast(array: jax.Array, dtype: Any) -> jax.Array:
    """An array in a precision; complex numbers stay complex."""
    if jnp.iscomplexobj(array) and not jnp.issubdtype(dtype, jnp.complexfloating):
        dtype = widest(dtype, jnp.complex64)
    return array.astype(dtype)


def float_dtype(array: jax.Array) -> Any:
    """The dtype of an array, or the default float where it holds integers."""
    return array.dtype if is_inexact(array) else jnp.zeros(()).dtype


def _cast_beside(leaves: Leaves, name: str, tree: Any) -> list[jax.Array]:
    """The arrays of another tree, each in the shape of its array."""
    return [
        _broadcast(leaves, number, name, as_array(value), leaves.arrays[number].shape)
        for number, value in enumerate(leaves.beside(tree, name))
    ]


def _broadcast(
    leaves: Leaves, number: int, name: str, value: jax.Array, shape: tuple[int, ...]
) -> jax.Array:
    try:
        return jnp.broadcast_to(value, shape)
    except ValueError:
        raise StructureError(
            f"{leaves.name}: {name} has shape {value.shape}{leaves.at(number)}, where "
            f"{shape} is due: give one number, or an array that broadcasts to it"
        ) from None


def _one_number(owner: str, name: str, value: Any) -> jax.Array:
    if jnp.shape(value):
        raise StructureError(
            f"{owner}: {name} has shape {jnp.shape(value)}, and the whole tree is one vector: give "
            f"one number, or say with axis= which axes are a vector"
        )
    return as_array(value)


def per_vector(leaves: Leaves, number: int, name: str, value: Any, axes: Axes) -> jax.Array:
    """One number for each vector of an array, with axes of length 1 where the vector is."""
    shape = leaves.arrays[number].shape
    batch = tuple(size for place, size in enumerate(shape) if place not in (axes or ()))
    return jnp.expand_dims(_broadcast(leaves, number, name, as_array(value), batch), axes or ())


def _axes(leaves: Leaves, number: int, axis: int | Sequence[int]) -> tuple[int, ...]:
    """The axes of an array, counted from 0."""
    rank = leaves.arrays[number].ndim
    asked = (axis,) if isinstance(axis, int) else tuple(axis)
    if not all(-rank <= one < rank for one in asked):
        raise StructureError(
            f"{leaves.name}: axis={axis} is not an axis of the "
            f"array{leaves.at(number)}, whose shape is {leaves.arrays[number].shape}"
        )
    return tuple(sorted({one % rank for one in asked}))


def per_entry(leaves: Leaves, number: int, name: str, value: Any, axis: Axis) -> jax.Array:
    """A bound of every entry of an array; with an axis, of every vector."""
    if axis is not None:
        return per_vector(leaves, number, name, value, _axes(leaves, number, axis))
    shape = leaves.arrays[number].shape
    array = as_array(value)
    return array if not array.shape else _broadcast(leaves, number, name, array, shape)


def total(arrays: Sequence[jax.Array], axes: Axes) -> jax.Array:
    """The sum of a vector: one number for all arrays, or one for each vector of the one array."""
    sums = [jnp.sum(array, axis=axes, keepdims=axes is not None) for array in arrays]
    return functools.reduce(jnp.add, sums)


def largest(arrays: Sequence[jax.Array], axes: Axes) -> jax.Array:
    """The largest entry of a vector; -inf where it is empty."""
    tops = [
        jnp.max(array, axis=axes, keepdims=axes is not None, initial=-jnp.inf) for array in arrays
    ]
    return functools.reduce(jnp.maximum, tops)


def inner(lefts: Sequence[jax.Array], rights: Sequence[jax.Array], axes: Axes) -> jax.Array:
    """The inner product of two vectors of one dtype, conjugate in the first."""
    each = zip(lefts, rights, strict=True)
    return total([left.conj() * right for left, right in each], axes)


def squares(arrays: Sequence[jax.Array], axes: Axes) -> jax.Array:
    """The squared 2-norm of a vector."""
    return total([abs_sq(array) for array in arrays], axes)


def length(arrays: Sequence[jax.Array], axes: Axes) -> float:
    """The number of entries of a vector."""
    if axes is None:
        return float(sum(array.size for array in arrays))
    return float(math.prod(arrays[0].shape[axis] for axis in axes))
