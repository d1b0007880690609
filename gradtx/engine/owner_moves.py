"""Moves of stacked matrices from the devices that hold their pieces to the devices that own them.

Everything here runs within a `shard_map` over the whole mesh, on the pieces of one device. A stack
(N, ...) goes by one axis of the mesh after the other: an axis that cuts the matrices sends each
device its share of the stack, all to all; where the stack is not cut the device takes its share of
what it has. An axis that is left out of the spread gathers the pieces of few matrices.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

Axes = tuple[str, ...]


class Move(NamedTuple):
    """One step of the way: axes of the mesh, how many devices they count, and whether the stack is
    spread over them.
    """

    axes: Axes
    size: int
    is_spread: bool


class Span(NamedTuple):
    """The places of a stack: how many each device owns, and where the matrices are among them."""

    start: int
    """Empty places before the first matrix."""
    count: int
    """Matrices of one device's part of the batch."""
    places: int
    """All places: a multiple of the devices."""


def spread_moves(sides: Sequence[Axes], sizes: Mapping[str, int], spread: Axes) -> list[Move]:
    """The order of moves for matrices whose dimensions are cut over these axes.

    The last axis of a dimension comes first, so that its pieces are neighbours. Axes that are not
    spread gather, as late as that allows: the fewer matrices are left, the fewer bytes.
    """
    early: list[Move] = []
    late: list[Move] = []
    for axes in sides:
        if axes and set(axes) <= set(spread):
            early.append(Move(axes, math.prod(sizes[axis] for axis in axes), True))
            continue
        gathers = False
        for axis in reversed(axes):
            is_spread = axis in spread
            gathers |= not is_spread
            (late if gathers else early).append(Move((axis,), sizes[axis], is_spread))
    used = {axis for axes in sides for axis in axes}
    rest = [Move((axis,), sizes[axis], True) for axis in spread if axis not in used]
    return [*rest, *early, *late]


def own_share(
    array: jax.Array, moves: Sequence[Move], sides: Sequence[Axes], span: Span
) -> jax.Array:
    """The matrices that this device owns, whole, from a stack (N, ...) of pieces of all."""
    after = span.places - span.start - span.count
    if span.start or after:
        array = jnp.pad(array, [(span.start, after), *[(0, 0)] * (array.ndim - 1)])
    for move in moves:
        side = _side(move, sides)
        if side is None and move.is_spread:
            share = array.shape[0] // move.size
            first = jax.lax.axis_index(move.axes) * share
            array = jax.lax.dynamic_slice_in_dim(array, first, share)
        elif side is not None and move.is_spread:
            array = jax.lax.all_to_all(array, move.axes, 0, side, tiled=True)
        elif side is not None:
            array = jax.lax.all_gather(array, move.axes, axis=side, tiled=True)
    return array


def give_back(
    array: jax.Array, moves: Sequence[Move], sides: Sequence[Axes], span: Span
) -> jax.Array:
    """A stack (N, ...) of this device's pieces of all matrices, from those that each one owns."""
    for move in reversed(moves):
        side = _side(move, sides)
        if side is None and move.is_spread:
            array = jax.lax.all_gather(array, move.axes, axis=0, tiled=True)
        elif side is not None and move.is_spread:
            array = jax.lax.all_to_all(array, move.axes, side, 0, tiled=True)
        elif side is not None:
            share = array.shape[side] // move.size
            first = jax.lax.axis_index(move.axes) * share
            array = jax.lax.dynamic_slice_in_dim(array, first, share, side)
    return array[span.start : span.start + span.count]


def place_of(moves: Sequence[Move], span: Span) -> jax.Array:
    """The first place that this device owns."""
    first, places = jnp.int32(0), span.places
    for move in moves:
        if move.is_spread:
            places //= move.size
            first += jax.lax.axis_index(move.axes) * places
    return first


def _side(move: Move, sides: Sequence[Axes]) -> int | None:
    """The dimension of a stack that the axes of a move cut."""
    places = [n for n, axes in enumerate(sides, 1) if set(move.axes) <= set(axes)]
    return places[0] if places else None
