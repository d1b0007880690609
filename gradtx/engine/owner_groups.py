"""Which leaves of a rule on matrices go to owners: those whose cut over a mesh is known."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gradtx.definition.errors import GradtxError
from gradtx.engine.kernel import LeafArgs
from gradtx.engine.matrix_layout import Layout
from gradtx.engine.matrix_rules import slots_of_type
from gradtx.engine.owner_moves import Axes
from gradtx.engine.owner_plan import (
    Group,
    MeshSizes,
    OwnerPlan,
    axes_of_spec,
    frame_of,
    mesh_sizes,
    plan_groups,
)
from gradtx.engine.sharded import Lie
from gradtx.tree.kernels import group, signature
from gradtx.tree.known_shardings import known_sharding

if TYPE_CHECKING:
    from gradtx.engine.leaf_rule import MatrixRule

Cuts = tuple[MeshSizes, list[Axes]]


def is_cut(array: Any, path: str) -> bool:
    """Whether an array is known to be cut over several devices of a mesh."""
    known = known_sharding(array, path)
    return known is not None and _cuts_of(known, array) is not None


def _cuts_of(sharding: NamedSharding, array: Any) -> Cuts | None:
    """The mesh of an array and the axes that cut it; None where none does, or where the mesh is not
    that of this program.
    """
    mesh, context = mesh_sizes(sharding.mesh), jax.sharding.get_abstract_mesh()
    if not context.empty and (_is_manual(context) or mesh_sizes(context) != mesh):
        return None
    if len(sharding.spec) > array.ndim:
        return None
    cuts = axes_of_spec(sharding, array.ndim)
    parts = [math.prod(mesh.sizes[axis] for axis in axes) for axes in cuts]
    fits = all(size % part == 0 for size, part in zip(array.shape, parts, strict=True))
    return (mesh, cuts) if fits and math.prod(parts) > 1 else None


def _is_manual(mesh: Any) -> bool:
    return any(kind == AxisType.Manual for kind in mesh.axis_types)


def leaf_cuts(
    shard: Any, paths: Sequence[str], args: Mapping[int, LeafArgs], owner: str
) -> dict[int, Cuts]:
    """How the leaves are cut, by number, as far as it is known, or as `shard` names the axes."""
    if shard is None:
        known = {n: known_sharding(one.grad, paths[n]) for n, one in args.items()}
        cuts = {n: _cuts_of(one, args[n].grad) for n, one in known.items() if one is not None}
        return {n: one for n, one in cuts.items() if one is not None}
    _check_manual(shard, owner)
    return {n: _named_cuts(shard, paths[n], one.grad, args, owner) for n, one in args.items()}


def _check_manual(shard: Any, owner: str) -> None:
    axes, context = getattr(shard, "axes", shard), jax.sharding.get_abstract_mesh()
    if context.empty:
        return
    kinds = dict(zip(context.axis_names, context.axis_types, strict=True))
    if any(kinds.get(axis) == AxisType.Manual for axis in axes):
        raise GradtxError(
            f"{owner}: shard = {axes!r} within a shard_map over these axes, where every device "
            f"has its own: leave shard out"
        )


def _named_cuts(
    shard: Any, path: str, array: Any, args: Mapping[int, LeafArgs], owner: str
) -> Cuts:
    """How a leaf is cut: as the owners say, as it is known, or else by the axes of `shard`."""
    said = getattr(shard, "cuts", {}).get(path)
    if said is not None:
        return shard.mesh, list(said)
    known = known_sharding(array, path)
    cuts = None if known is None else _cuts_of(known, array)
    axes = getattr(shard, "axes", shard)
    if cuts is not None and set(axes) <= set(cuts[0].names):
        return cuts
    mesh = getattr(shard, "mesh", None) or _find_mesh(axes, args, owner)
    # Rows, or else columns: XLA moves a leaf that lies otherwise.
    devices = math.prod(mesh.sizes[axis] for axis in axes)
    places = [n for n in range(max(array.ndim - 2, 0), array.ndim) if array.shape[n] % devices == 0]
    return mesh, [axes if n in places[:1] else () for n in range(array.ndim)]


def _find_mesh(axes: Axes, args: Mapping[int, LeafArgs], owner: str) -> MeshSizes:
    """The mesh that has the axes: that of the context, or of a leaf."""
    known = (known_sharding(one.grad) for one in args.values())
    meshes = [jax.sharding.get_abstract_mesh(), *(one.mesh for one in known if one is not None)]
    for mesh in meshes:
        if set(axes) <= set(mesh.axis_names):
            return mesh_sizes(mesh)
    raise GradtxError(
        f"{owner}: shard = {axes!r} names axes of no mesh that is known here: call within "
        f"jax.set_mesh(mesh), or give shard=gradtx.sharding.owners(params, axes)"
    )


def owner_groups(
    rule: "MatrixRule",
    layouts: Sequence[Layout],
    cuts: Mapping[int, Cuts],
    args: Mapping[int, LeafArgs],
) -> list[tuple[list[int], tuple[Lie, ...], OwnerPlan]]:
    """The leaves whose matrices are worked on together, how each lies, and where matrices go."""
    lies = {n: _lie(rule.at(layouts[n]), one, args[n]) for n, one in cuts.items()}
    order = list(cuts)
    kinds = group(_kind(cuts[n][0], lies[n], args[n]) for n in order)
    numbers = [[order[place] for place in places] for places in kinds.values()]
    shard = rule.matrices.shard
    names = getattr(shard, "axes", shard)
    plans: dict[int, OwnerPlan] = {}
    meshes = group(cuts[indices[0]][0] for indices in numbers)
    for mesh, places in meshes.items():
        groups = [_group(mesh, [lies[n] for n in numbers[place]]) for place in places]
        plans |= dict(zip(places, plan_groups(groups, mesh, names), strict=True))
    return [
        (indices, tuple(lies[n] for n in indices), plans[place])
        for place, indices in enumerate(numbers)
    ]


def _lie(rule: "MatrixRule", cuts: Cuts, args: LeafArgs) -> Lie:
    (mesh, axes), layout = cuts, rule.layout
    assert layout is not None
    (slots,) = args.slots
    made = () if slots is None else _slot_cuts(rule, mesh, tuple(axes), args.grad.dtype)
    known = made if rule.storage or slots is None else tuple(map(_known_cuts, slots, made))
    return Lie(layout, tuple(axes), frame_of(layout, axes, mesh.sizes), known)


def _known_cuts(slot: Any, made: tuple[Axes, ...]) -> tuple[Axes, ...]:
    if slot is None or (known := known_sharding(slot)) is None:
        return made
    return tuple(axes_of_spec(known, slot.ndim))


@functools.lru_cache(maxsize=4096)
def _slot_cuts(
    rule: "MatrixRule", mesh: MeshSizes, cuts: tuple[Axes, ...], dtype: Any
) -> tuple[tuple[Axes, ...], ...]:
    """How `init` cuts the slots of a leaf that is cut over these axes.

    A program whose axes are automatic does not see it; `init` on an explicit type does.
    """
    assert rule.layout is not None
    explicit = mesh.abstract(AxisType.Explicit)
    sharding = NamedSharding(explicit, PartitionSpec(*(axes or None for axes in cuts)))
    array = jax.ShapeDtypeStruct(rule.layout.whole, dtype, sharding=sharding)
    with jax.sharding.use_abstract_mesh(explicit):
        slots = slots_of_type(rule, array)
    return tuple(map(_cuts_of_type, slots))


def _cuts_of_type(slot: Any) -> tuple[Axes, ...]:
    if slot is None:
        return ()
    # A slot that no operation takes from the array has no sharding: it is whole.
    return tuple(axes_of_spec(slot.sharding, slot.ndim)) if slot.sharding else ((),) * slot.ndim


def _kind(mesh: MeshSizes, lie: Lie, args: LeafArgs) -> Any:
    """What must be equal: the mesh, cut and shape of matrices, dtypes, and the slots of each."""
    count = len(lie.layout.batch)
    sides = tuple(lie.layout.cut[axis] for axis in lie.layout.order[count:])
    batch = frozenset(axis for axes in lie.frame.batch for axis in axes)
    slots = tuple(signature(leaf)[1:2] for leaf in jax.tree.leaves(args.slots))
    param = None if args.param is None else args.param.dtype
    known = tuple(cuts[count:] for cuts in lie.slots)
    return (
        (mesh, sides, lie.layout.shape[-2:], batch, lie.frame.sides),
        (args.grad.dtype, slots, param, known),
    )


def _group(mesh: MeshSizes, lies: Sequence[Lie]) -> Group:
    """The matrices of one device's part of the batch, and the cost of one."""
    rows, columns = lies[0].layout.shape[-2:]
    parts = math.prod(mesh.sizes[axis] for axes in lies[0].frame.batch for axis in axes)
    count = sum(math.prod(lie.layout.batch) for lie in lies) // parts
    return Group(lies[0].frame, count, rows * columns * min(rows, columns))
