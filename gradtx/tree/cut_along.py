"""Arrays that are cut over a mesh as another array is, along the axes that both have.

Where the sharding of the other is known (a concrete array, explicit axes), it is set. Within a
program whose axes are automatic nobody knows it before XLA has decided. There the array takes part
in an operation with the other, and XLA gives both the same sharding.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding

from gradtx.tree.known_shardings import known_sharding
from gradtx.tree.placement import parts_of, sharding_as_returned

Axes = Sequence[int | None]
"""For each axis of an array the axis of another that it is cut as; None: it is not cut."""


def cut_along(array: jax.Array, like: Any, axes: Axes | None = None) -> jax.Array:
    """Cut each axis of an array as one axis of another, or not at all.

    Args:
      array: any values, of any dtype but that of random keys.
      like: the array whose sharding decides, or its shape.
      axes: for each axis of `array` an axis of `like`, each once, or None; None: the same axes.
    """
    axes = range(array.ndim) if axes is None else axes
    sharding = sharding_along(array.shape, like, axes)
    if sharding is None:
        return join_sharding(array, like, axes) if is_decided_later(like) else array
    if isinstance(like, Tracer):  # its type says the sharding: its axes are explicit
        return jax.sharding.reshard(array, sharding)
    # An abstract mesh has no devices to put an array on.
    return jax.device_put(array, sharding) if isinstance(sharding.mesh, Mesh) else array


def sharding_along(shape: Sequence[int], like: Any, axes: Axes) -> NamedSharding | None:
    """The sharding of an array whose axes are cut as those of another; None where nobody knows it.

    An axis may count equal parts of the other, blocks for example. It is cut where each device has
    whole parts.
    """
    sharding = known_sharding(like)
    if sharding is None:
        return None
    spec, sizes = (*sharding.spec, *(None for _ in like.shape)), sharding.mesh.shape
    entries = [
        None if axis is None or size % parts_of(sizes, spec[axis]) else spec[axis]
        for size, axis in zip(shape, _common(shape, like, axes), strict=True)
    ]
    return sharding_as_returned(sharding.mesh, entries)


def _common(shape: Sequence[int], like: Any, axes: Axes) -> list[int | None]:
    """The axes counted from 0; None for one whose length does not divide that of the other."""
    positive = [axis if axis is None else axis % len(like.shape) for axis in axes]
    return [
        axis if axis is not None and size and like.shape[axis] % size == 0 else None
        for size, axis in zip(shape, positive, strict=True)
    ]


def is_decided_later(array: Any) -> bool:
    """Whether only XLA will decide how an array is cut: in a program of several devices, where no
    type says it.
    """
    if not isinstance(array, Tracer) or jax.device_count() == 1:
        return False
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.empty or (bool(mesh.auto_axes) and not mesh.manual_axes)


def join_sharding(array: jax.Array, like: jax.Array, axes: Axes) -> jax.Array:
    """The same array, to which XLA gives the sharding of another along common axes."""
    common = _common(array.shape, like, axes)
    if not array.size or all(axis is None for axis in common):
        return array
    source = _along(jax.lax.stop_gradient(like), array.shape, common)
    source = source if jnp.iscomplexobj(array) else source.real
    # Always False, which the barrier hides: compilers fold a choice that they can decide, before
    # they know any sharding. Each device reads its part of the other array, and stores none of it.
    never = jax.lax.optimization_barrier(jnp.zeros((), bool))
    return jax.lax.select(never, source.astype(array.dtype), array)


def _along(like: jax.Array, shape: Sequence[int], axes: Axes) -> jax.Array:
    """An array of a shape from another: sums over axes that it lacks, copies along new axes."""
    # Pairs (axis, size); the axis is None where it is summed. An axis that counts parts of the
    # other's is the first of the two that the other's is split into.
    split: list[tuple[int | None, int]] = []
    for axis, size in enumerate(like.shape):
        count = shape[axes.index(axis)] if axis in axes else size
        split.append((axis if axis in axes else None, count))
        if count != size:
            split.append((None, size // count))
    sizes = tuple(size for _, size in split)
    parts = like if sizes == like.shape else like.reshape(sizes)
    summed = [place for place, (axis, _) in enumerate(split) if axis is None]
    total = jax.lax.reduce_sum(parts, summed) if summed else parts
    order = [axis for axis in axes if axis is not None]
    ranks = [sorted(order).index(axis) for axis in order]
    moved = total if order == sorted(order) else total.transpose(ranks)
    places = [place for place, axis in enumerate(axes) if axis is not None]
    return jax.lax.broadcast_in_dim(moved, tuple(shape), places)
