"""Arrays of which each device holds a part, inside `shard_map` and `pmap`: how each axis is cut.

A layout has an entry for every axis of the whole array: None (a device holds all of it), the names
of the mesh axes that cut it, or `SPREAD` (every index along it is alike: one is held).
"""

import enum
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from gradtx.tree.manual_axes import Names, varying


class Spread(enum.Enum):
    """The entry of an axis along which an array does not change."""

    SPREAD = "spread"


SPREAD = Spread.SPREAD
Entry = Names | Spread | None
Layout = tuple[Entry, ...]


class Kind(NamedTuple):
    """The facts of a part that a program needs before it is traced."""

    layout: Layout
    shape: tuple[int, ...]
    """The shape of the whole array."""
    guess: bool = False
    """Whether the axis that is cut is a guess: no result may depend on it."""


@dataclass(frozen=True)
class Part:
    """The part of an array that this device holds; a leaf of a tree."""

    array: Any
    kind: Kind

    @property
    def names(self) -> Names:
        """The mesh axes that cut the array."""
        return cut_names(self.kind.layout)


def whole(array: Any) -> Part:
    """An array that each device holds whole."""
    shape = tuple(jnp.shape(array))
    return Part(array, Kind((None,) * len(shape), shape))


def cut_names(layout: Iterable[Entry]) -> Names:
    """The mesh axes in a layout, in order."""
    return tuple(name for entry in layout if isinstance(entry, tuple) for name in entry)


def axis_sizes(names: Names) -> int:
    """The number of parts that mesh axes make together."""
    return math.prod(lax.axis_size(name) for name in names)


def whole_shape(shape: Sequence[int], layout: Layout) -> tuple[int, ...]:
    """The shape of the whole array, of which a device holds a part of `shape`."""
    each = zip(shape, layout, strict=True)
    return tuple(
        size * axis_sizes(entry) if isinstance(entry, tuple) else size for size, entry in each
    )


def vary(array: Any, names: Iterable[str]) -> Any:
    """The value with a type that says that it differs over mesh axes."""
    lacking = tuple(sorted(set(names) - varying(array)))
    return lax.pcast(array, lacking, to="varying") if lacking else array


def vary_alike(arrays: Sequence[Any]) -> list[Any]:
    """The values with types of the same varying axes, as an operation of JAX expects them."""
    names = frozenset[str]().union(*map(varying, arrays))
    return [vary(array, names) for array in arrays] if names else list(arrays)


def lay_out(part: Part, layout: Layout) -> Part:
    """The same array in another layout."""
    array, kind = part.array, part.kind
    if kind.layout == layout:
        return part
    for axis, (entry, wanted) in enumerate(zip(kind.layout, layout, strict=True)):
        if isinstance(entry, tuple) and entry != wanted:
            array = _gather(array, axis, entry)
    array = _spread_out(array, kind, layout)
    for axis, (entry, wanted) in enumerate(zip(kind.layout, layout, strict=True)):
        if isinstance(wanted, tuple) and entry != wanted and entry is not SPREAD:
            array = _slice(array, axis, wanted)
    return Part(array, kind._replace(layout=layout))


def materialize(part: Part) -> Part:
    """The array with all indices along an axis that it does not change along."""
    return lay_out(part, tuple(None if one is SPREAD else one for one in part.kind.layout))


def make_whole(part: Part) -> Part:
    """The whole array on each device."""
    return lay_out(part, (None,) * len(part.kind.shape))


def _spread_out(array: Any, kind: Kind, layout: Layout) -> Any:
    """Write down the indices that are alike, as many as this device holds."""
    shape = list(array.shape)
    for axis, (entry, wanted) in enumerate(zip(kind.layout, layout, strict=True)):
        if entry is SPREAD and wanted is not SPREAD:
            parts = axis_sizes(wanted) if isinstance(wanted, tuple) else 1
            shape[axis] = kind.shape[axis] // parts
    if tuple(shape) == tuple(array.shape):
        return array
    return lax.broadcast_in_dim(array, tuple(shape), tuple(range(len(shape))))


def _slice(array: Any, axis: int, names: Names) -> Any:
    """The part of this device of a whole array."""
    size = array.shape[axis] // axis_sizes(names)
    index = lax.axis_index(names)
    array, start = vary_alike([array, index * size])
    return lax.dynamic_slice_in_dim(array, start, size, axis)


def _gather(array: Any, axis: int, names: Names) -> Any:
    """The whole array from the parts of all devices."""
    if array.dtype == bool:
        return _gather(array.astype(jnp.int8), axis, names).astype(bool)
    if not varying(array):
        return lax.all_gather(array, names, axis=axis, tiled=True)
    # The type of a sum says that it is equal on all devices; that of `all_gather` does not.
    shape = [*array.shape]
    shape[axis] *= axis_sizes(names)
    index = lax.axis_index(names) * array.shape[axis]
    zeros = jnp.zeros(shape, array.dtype)
    zeros, array, index = vary_alike([zeros, array, index])
    return lax.psum(lax.dynamic_update_slice_in_dim(zeros, array, index, axis), names)
