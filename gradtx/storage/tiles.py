"""The kernel of a leaf by tiles, for block-wise codes: decode, run the rules, encode.

The scale of a block needs all of its entries. So if an array is computed as a whole, it is written
to memory in float32 before it is encoded. A rule that treats every entry alike can run on one tile
at a time instead. The lifter's kernel is traced on a tile: on a TPU and a GPU within one Pallas
kernel, on a CPU within a loop whose tiles stay in the cache.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.storage.blockwise import layout
from gradtx.storage.elementwise import is_elementwise
from gradtx.storage.two_passes import run_in_two_passes
from gradtx.tree.rounding import add_opaque_zero, positions

ENTRIES = 2**19
"""The most entries of a tile on a CPU: a few megabytes of temporary arrays."""


class Plane(NamedTuple):
    """A leaf as rows and columns, with blocks along the rows."""

    rows: int
    columns: int
    block: int

    def flat(self, array: Any) -> Any:
        """Reshape an array of the leaf, its codes or its scales to the same columns."""
        return array.reshape(-1, self.columns)

    def fits(self, array: Any) -> bool:
        """Whether an array has one row per row, per two rows, or per block."""
        return array.size * self.block in (
            self.rows * self.columns * n for n in (self.block, self.block // 2, 1)
        )


def plane(shape: tuple[int, ...], block: int) -> Plane | None:
    """A leaf as a plane of whole blocks.

    None where blocks lie along the last axis, or where the last block lacks entries.
    """
    if not shape or 0 in shape:
        return None
    view = layout(shape, block)
    if view.padding or view.axis != len(view.shape) - 2:
        return None
    return Plane(math.prod(view.shape[:-1]), view.shape[-1], block)


def run_by_tiles(
    function: Callable[..., Any],
    rules: Sequence[Any],
    shared: Any,
    row: Any,
    block: int,
    fused: bool | None,
) -> Any:
    """`function(rules, shared, row)`, tile by tile where that gives the same and saves memory.

    With `fused=None` it uses tiles on one device or within `shard_map` only: XLA cannot divide a
    kernel of its own among devices. Elsewhere the kernel runs in two passes.
    """
    if not _has_blocks(row):  # of 16 bits each, for which XLA needs no tiles
        return function(rules, shared, row)
    leaf = _plane_for(row, block, fused)
    if leaf is not None and is_elementwise(function, rules, shared, row):
        return _platform_run(function, rules, leaf, shared, row)
    grouped = _grouped(row, block)
    if grouped is None or not is_elementwise(function, rules, shared, row):
        return run_in_two_passes(function, rules, shared, row)
    update, slots = run_in_two_passes(function, rules, shared, grouped)
    slots = jax.tree.map(lambda new, old: new.reshape(old.shape), slots, row.slots)
    return update.reshape(row.grad.shape), slots


def _grouped(row: Any, block: int) -> Any:
    """The arrays of a leaf with each block along an axis of its own; None where blocks lie else.

    A maximum along a whole axis is part of the kernel that computes its entries.
    """
    shape = row.grad.shape
    if not shape or 0 in shape:
        return None
    view = layout(shape, block)
    if view.padding or view.axis != len(view.shape) - 2:
        return None
    sizes = {math.prod(shape) * n // block: n for n in (block, block // 2, 1)}
    arrays = jax.tree.leaves(row._replace(leaf=None))
    if any(array.size not in sizes for array in arrays):
        return None
    *before, _, after = view.view
    shapes = {size: (*before, entries, after) for size, entries in sizes.items()}
    grouped = jax.tree.map(lambda one: one.reshape(shapes[one.size]), row._replace(leaf=None))
    return grouped._replace(leaf=row.leaf)


def _plane_for(row: Any, block: int, fused: bool | None) -> Plane | None:
    """The plane of a leaf, where all of its arrays can be divided into tiles."""
    leaf = plane(row.grad.shape, block)
    if leaf is None or fused is False or (fused is None and not _is_on_one_device(row)):
        return None
    arrays = [row.grad, *jax.tree.leaves((row.slots, row.param, row.input_grad))]
    return leaf if all(map(leaf.fits, arrays)) else None


def _has_blocks(row: Any) -> bool:
    """Whether some slots have codes or scales of blocks."""
    return any(array.shape != row.grad.shape for array in jax.tree.leaves(row.slots))


def _is_on_one_device(row: Any) -> bool:
    """Whether a device has all entries that the arrays have here, as far as their types know.

    The type of an array names its mesh, also where it does not say how the array is cut.
    """
    context = jax.sharding.get_abstract_mesh()
    meshes = [jax.typeof(array).sharding.mesh for array in jax.tree.leaves(row)]
    known = [mesh for mesh in (context, *meshes) if not mesh.empty]
    if not known:  # a constraint within the program may still name a mesh
        return jax.device_count() == 1
    return all(_is_whole(mesh) for mesh in known)


def _is_whole(mesh: Any) -> bool:
    """Whether XLA divides nothing over a mesh: its axes are manual or of one device."""
    return all(size == 1 or name in mesh.manual_axes for name, size in mesh.shape.items())


def _platform_run(
    function: Callable[..., Any], rules: Sequence[Any], leaf: Plane, shared: Any, row: Any
) -> Any:
    from gradtx.storage.pallas_kernel import pallas_run  # late: Pallas takes long to import

    on_tpu = functools.partial(pallas_run, function, rules, leaf, (256, 512), True)
    on_gpu = functools.partial(pallas_run, function, rules, leaf, (32, 64), False)
    plain = functools.partial(function, rules)
    # A loop of one turn would copy the whole kernel, and XLA compiles it twice as long.
    is_one_tile = tile_rows(leaf) == leaf.rows
    loop = plain if is_one_tile else functools.partial(loop_run, function, rules, leaf)
    return jax.lax.platform_dependent(
        shared, row, tpu=on_tpu, cuda=on_gpu, rocm=on_gpu, cpu=loop, default=plain
    )


def tile_rows(plane: Plane) -> int:
    """The rows of a tile on a CPU: whole blocks that divide all rows, at most `ENTRIES` entries."""
    blocks = plane.rows // plane.block
    limit = max(ENTRIES // (plane.columns * plane.block), 1)
    return plane.block * max(
        count for count in range(1, min(blocks, limit) + 1) if blocks % count == 0
    )


class Loop(NamedTuple):
    """The constants of the loop: the kernel, the leaf as planes, and the rows of a tile."""

    function: Callable[..., Any]
    rules: Sequence[Any]
    plane: Plane
    height: int
    shared: Any
    row: Any

    @property
    def in_place(self) -> bool:
        """Whether the new parameter overwrites the old one."""
        return self.rules[-1].returns_params

    def turn(self, number: Any, carry: Any) -> Any:
        update, slots = carry
        plane, origin = self.plane, (number * self.height, 0)
        cut, put = (
            functools.partial(function, plane, self.height, number) for function in (_tile, _put)
        )
        row = self.row._replace(param=update) if self.in_place else self.row
        tile = jax.tree.map(cut, row._replace(slots=slots, leaf=None))
        tile = tile._replace(leaf=self.row.leaf)
        # The entries of a tile are numbered as in the whole leaf, for the random bits.
        entries = positions((self.height, plane.columns), origin, (plane.rows, plane.columns))
        part, encoded = self.function(self.rules, self.shared, tile, entries)
        old, treedef = jax.tree.flatten(slots)
        arrays = [put(update, part)]
        for array, new in zip(old, jax.tree.leaves(encoded), strict=True):
            # Each write depends on the one before, see `loop_run`.
            arrays.append(put(array, add_opaque_zero(new, cut(arrays[-1])[:1, :1])))
        return arrays[0], jax.tree.unflatten(treedef, arrays[1:])


def loop_run(
    function: Callable[..., Any], rules: Sequence[Any], plane: Plane, shared: Any, row: Any
) -> Any:
    """Run tile by tile in a loop that updates slots in place, and the parameter if rules return it.

    XLA copies an array that is written while a tile of it is still to be read. So the loop writes
    one array after another, codes before their scales, and each write depends on the one before.
    """
    flat = jax.tree.map(plane.flat, row._replace(leaf=None))._replace(leaf=row.leaf)
    loop = Loop(function, rules, plane, tile_rows(plane), shared, flat)
    dtype = jax.eval_shape(functools.partial(function, rules), shared, row)[0].dtype
    start = flat.param if loop.in_place else jnp.zeros((plane.rows, plane.columns), dtype)
    update, slots = jax.lax.fori_loop(0, plane.rows // loop.height, loop.turn, (start, flat.slots))
    slots = jax.tree.map(lambda new, old: new.reshape(old.shape), slots, row.slots)
    return update.reshape(row.grad.shape), slots


def _height_of(plane: Plane, height: int, array: Any) -> int:
    """The number of rows of an array that belong to `height` rows of the leaf."""
    return height * array.shape[0] // plane.rows


def _tile(plane: Plane, height: int, number: Any, array: Any) -> Any:
    rows = _height_of(plane, height, array)
    return jax.lax.dynamic_slice_in_dim(array, number * rows, rows, 0)


def _put(plane: Plane, height: int, number: Any, array: Any, tile: Any) -> Any:
    return jax.lax.dynamic_update_slice_in_dim(
        array, tile, number * _height_of(plane, height, array), 0
    )
