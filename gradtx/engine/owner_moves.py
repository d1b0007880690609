"""Moves of stacked matrices from the devices that hold their pieces to the devices that own them.

Everything here runs within a `shard_map` over the whole mesh, on the pieces of one device. One
all-to-all over the axes that cut a stack (N, ...) sends each device its share of the matrices, in
pieces, which it puts together. Over an axis that does not cut the stack a device takes its share of
what it has. An axis that matrices are not spread over gathers the pieces of few matrices.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

Axes = tuple[str, ...]


class Span(NamedTuple):
    """The places of a stack, and where the matrices are among them."""

    start: int
    """Empty places before the first matrix."""
    matrices: int
    """Matrices of one device's part of the batch."""
    each: int
    """Places that one device owns."""


class Way(NamedTuple):
    """The axes of a mesh by what they do to one array, each in the order of the mesh."""

    shared: Axes
    """They do not cut the array, and its matrices are spread over them."""
    exchanged: Axes
    """They cut the array, and its matrices are spread over them."""
    gathered: Axes
    """They cut the array, and its matrices are not spread over them."""


def way_of(sides: Sequence[Axes], spread: Axes) -> Way:
    """What the axes do to an array whose dimensions behind the first are cut over `sides`."""
    cut = [axis for axes in sides for axis in axes]
    return Way(
        tuple(axis for axis in spread if axis not in cut),
        tuple(axis for axis in spread if axis in cut),
        tuple(axis for axis in cut if axis not in spread),
    )


def own_share(
    array: jax.Array, sides: Sequence[Axes], spread: Axes, sizes: Mapping[str, int], span: Span
) -> jax.Array:
    """The matrices that this device owns, whole, from a stack (N, ...) of pieces of all."""
    way = way_of(sides, spread)
    devices = math.prod(sizes[axis] for axis in spread)
    after = devices * span.each - span.start - span.matrices
    if span.start or after:
        array = jnp.pad(array, [(span.start, after), *[(0, 0)] * (array.ndim - 1)])
    array = array.reshape(*(sizes[axis] for axis in spread), span.each, *array.shape[1:])
    array = _index(array, spread, way.shared)
    array = _exchange(array, way.exchanged)
    if way.gathered:
        front = tuple(sizes[axis] for axis in way.gathered)
        array = jax.lax.all_gather(array, way.gathered).reshape(*front, *array.shape)
    return _assemble(array, (*way.gathered, *way.exchanged), sides)


def _exchange(array: jax.Array, names: Axes) -> jax.Array:
    """One all-to-all over some axes of the mesh, of which each has an axis in front."""
    if not names:
        return array
    flat = array.reshape(-1, *array.shape[len(names) :])
    return jax.lax.all_to_all(flat, names, 0, 0, tiled=True).reshape(array.shape)


def give_back(
    array: jax.Array, sides: Sequence[Axes], spread: Axes, sizes: Mapping[str, int], span: Span
) -> jax.Array:
    """A stack (N, ...) of this device's pieces of all matrices, from those that each one owns."""
    way = way_of(sides, spread)
    array = _take_apart(array, (*way.gathered, *way.exchanged), sides, sizes)
    array = _index(array, way.gathered, way.gathered)
    array = _exchange(array, way.exchanged)
    if way.shared:
        front = tuple(sizes[axis] for axis in way.shared)
        array = jax.lax.all_gather(array, way.shared).reshape(*front, *array.shape)
        names = (*way.shared, *way.exchanged)
        order = [names.index(axis) for axis in spread]
        array = array.transpose(*order, *range(len(order), array.ndim))
    places = math.prod(array.shape[: len(spread) + 1])
    stack = array.reshape(places, *array.shape[len(spread) + 1 :])
    return stack[span.start : span.start + span.matrices]


def owner_number(spread: Axes) -> jax.Array:
    """The number of this device among those that matrices are spread over."""
    return jax.lax.axis_index(spread) if spread else jnp.int32(0)


def _index(array: jax.Array, names: Axes, axes: Axes) -> jax.Array:
    """Take this device's place along some of the first dimensions, which are those of `names`."""
    for axis in axes:
        place = names.index(axis)
        names = (*names[:place], *names[place + 1 :])
        number = jax.lax.axis_index(axis)
        array = jax.lax.dynamic_index_in_dim(array, number, place, keepdims=False)
    return array


def _assemble(array: jax.Array, names: Axes, sides: Sequence[Axes]) -> jax.Array:
    """Whole matrices (K, ...) from pieces (*names, K, ...), each axis before the side it cuts."""
    count = len(names)
    order, shape = [count], [array.shape[count]]
    for place, axes in enumerate(sides, count + 1):
        numbers = [names.index(axis) for axis in axes]
        order += [*numbers, place]
        shape.append(math.prod(array.shape[number] for number in (*numbers, place)))
    return array.transpose(order).reshape(shape)


def _take_apart(
    array: jax.Array, names: Axes, sides: Sequence[Axes], sizes: Mapping[str, int]
) -> jax.Array:
    """Pieces (*names, K, ...) of whole matrices (K, ...): the reverse of `_assemble`."""
    shape, places = [array.shape[0]], {}
    rest: list[int] = []
    for size, axes in zip(array.shape[1:], sides, strict=True):
        for axis in axes:
            places[axis] = len(shape)
            shape.append(sizes[axis])
        rest.append(len(shape))
        shape.append(size // math.prod(sizes[axis] for axis in axes))
    return array.reshape(shape).transpose(*(places[axis] for axis in names), 0, *rest)
