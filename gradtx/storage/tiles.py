"""The kernel of a leaf in parts, for codes that belong to blocks: decode, run the rules, encode,
tile by tile.

A block's scale is known only after all of its entries are, so an array that is worked out as a
whole is written to memory in float32 before it is encoded. A rule that treats every entry alike can
be run on one tile at a time instead. The same kernel of the lifter's is traced on a tile: on a TPU
and a GPU within one Pallas kernel, on a CPU within a loop whose tiles stay in the cache."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.storage.blockwise import layout
from gradtx.storage.elementwise import is_elementwise
from gradtx.tree.rounding import add_opaque_zero, positions

ENTRIES = 2**19
"""How many entries a tile on the CPU has at most: a few megabytes of temporary arrays."""


class Plane(NamedTuple):
    """A leaf seen as rows and columns, blocks along the rows."""

    rows: int
    columns: int
    block: int

    def flat(self, array: Any) -> Any:
        """An array of the leaf, of its codes or of its scales, as rows of the same columns."""
        return array.reshape(-1, self.columns)

    def fits(self, array: Any) -> bool:
        """Whether an array has a row for every row, every second row, or every block."""
        return array.size * self.block in (
            self.rows * self.columns * n for n in (self.block, self.block // 2, 1)
        )


def plane(shape: tuple[int, ...], block: int) -> Plane | None:
    """A leaf as a plane of whole blocks; None where blocks lie along its last axis, or the last
    block lacks entries.
    """
    if not shape or 0 in shape:
        return None
    found = layout(shape, block)
    if found.padding or found.axis != len(found.shape) - 2:
        return None
    columns = found.shape[-1]
    return Plane(math.prod(found.shape[:-1]), columns, block)


def run_by_tiles(
    function: Callable[..., Any],
    rules: Sequence[Any],
    shared: Any,
    row: Any,
    block: int,
    fused: bool | None,
) -> Any:
    """`function(rules, shared, row)`, tile by tile where that gives the same and saves memory.

    Not where arrays may lie on several devices, of which a kernel of its own knows nothing: there,
    unless `fused` says otherwise, only within `shard_map`.
    """
    whole = functools.partial(function, rules, shared, row)
    seen = plane(row.grad.shape, block)
    if (
        fused is False
        or seen is None
        or (fused is None and not _on_one_device())
        or not _has_blocks(row)
    ):
        return whole()
    arrays = [row.grad, *jax.tree.leaves((row.slots, row.param, row.input_grad))]
    if not all(map(seen.fits, arrays)) or not is_elementwise(function, rules, shared, row):
        return whole()
    return _platform_run(function, rules, seen, shared, row)


def _on_one_device() -> bool:
    return jax.device_count() == 1 or bool(jax.sharding.get_abstract_mesh().manual_axes)


def _has_blocks(row: Any) -> bool:
    """Whether any slot is kept in blocks: others need no tiles."""
    return any(array.shape != row.grad.shape for array in jax.tree.leaves(row.slots))


def _platform_run(
    function: Callable[..., Any], rules: Sequence[Any], seen: Plane, shared: Any, row: Any
) -> Any:
    from gradtx.storage.pallas_kernel import pallas_run  # late: Pallas takes long to import

    on_tpu = functools.partial(pallas_run, function, rules, seen, (256, 512), True)
    on_gpu = functools.partial(pallas_run, function, rules, seen, (32, 64), False)
    plain = functools.partial(function, rules)
    loop = functools.partial(loop_run, function, rules, seen)
    return jax.lax.platform_dependent(
        shared, row, tpu=on_tpu, cuda=on_gpu, rocm=on_gpu, cpu=loop, default=plain
    )


def tile_rows(seen: Plane) -> int:
    """Rows of a tile on the CPU: whole blocks, dividing all rows, of at most `ENTRIES` entries."""
    blocks = seen.rows // seen.block
    limit = max(ENTRIES // (seen.columns * seen.block), 1)
    return seen.block * max(
        count for count in range(1, min(blocks, limit) + 1) if blocks % count == 0
    )


class Loop(NamedTuple):
    """What every turn of the loop needs: the kernel, the leaf as planes, and how many rows a tile
    has.
    """

    function: Callable[..., Any]
    rules: Sequence[Any]
    seen: Plane
    height: int
    shared: Any
    row: Any

    @property
    def in_place(self) -> bool:
        """Whether the new parameter takes the place of the old."""
        return self.rules[-1].returns_params

    def turn(self, number: Any, carry: Any) -> Any:
        update, slots = carry
        cut, put = (
            functools.partial(function, self.seen, self.height, number)
            for function in (_tile, _put)
        )
        given = self.row._replace(param=update) if self.in_place else self.row
        tile = jax.tree.map(cut, given._replace(slots=slots, leaf=None))._replace(
            leaf=self.row.leaf
        )
        where = positions(
            (self.height, self.seen.columns),
            (number * self.height, 0),
            (self.seen.rows, self.seen.columns),
        )
        made, kept = self.function(self.rules, self.shared, tile, where)
        old, treedef = jax.tree.flatten(slots)
        new = [put(update, made)]
        for array, part in zip(old, jax.tree.leaves(kept), strict=True):
            new.append(put(array, add_opaque_zero(part, cut(new[-1])[:1, :1])))
        return new[0], jax.tree.unflatten(treedef, new[1:])


def loop_run(
    function: Callable[..., Any], rules: Sequence[Any], seen: Plane, shared: Any, row: Any
) -> Any:
    """Tile by tile in a loop, slots updated in place, and the parameter too where it is what the
    rules return.

    One array after another, in the order in which codes come before their scales: XLA copies an
    array that is written while a tile of it is still to be read, so each is made to depend on the
    one before."""
    flat = jax.tree.map(seen.flat, row._replace(leaf=None))._replace(leaf=row.leaf)
    loop = Loop(function, rules, seen, tile_rows(seen), shared, flat)
    dtype = jax.eval_shape(functools.partial(function, rules), shared, row)[0].dtype
    start = flat.param if loop.in_place else jnp.zeros((seen.rows, seen.columns), dtype)
    update, slots = jax.lax.fori_loop(0, seen.rows // loop.height, loop.turn, (start, flat.slots))
    return update.reshape(row.grad.shape), jax.tree.map(
        lambda new, old: new.reshape(old.shape), slots, row.slots
    )


def _height_of(seen: Plane, height: int, array: Any) -> int:
    """How many rows of an array belong to so many rows of the leaf."""
    return height * array.shape[0] // seen.rows


def _tile(seen: Plane, height: int, number: Any, array: Any) -> Any:
    rows = _height_of(seen, height, array)
    return jax.lax.dynamic_slice_in_dim(array, number * rows, rows, 0)


def _put(seen: Plane, height: int, number: Any, array: Any, tile: Any) -> Any:
    return jax.lax.dynamic_update_slice_in_dim(
        array, tile, number * _height_of(seen, height, array), 0
    )
