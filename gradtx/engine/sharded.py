"""Rules on matrices spread over devices: matrices of one shape are gathered into a batch, and each
device works on its share.

Sharded leaves (n, m) are stacked as they lie, (N, n, m), and the stack is cut along N by
`shard_map`, for which XLA moves it once, all to all; the results go back the same way. No device
does the work of another, and every matrix is worked on as a whole."""

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gradtx.definition.errors import GradtxError
from gradtx.engine.lifter import (
    ActiveRule,
    LeafArgs,
    encode_slots,
    in_compute,
    make_row,
    stored_slots,
)
from gradtx.engine.matrix_layout import Layout
from gradtx.engine.matrix_rules import as_arrays, as_matrices, matrix_kwargs
from gradtx.engine.rules import Rule, laid_out, select_kwargs
from gradtx.tree.casts import compute_dtype
from gradtx.tree.kernels import group, kernel, signature
from gradtx.tree.maps import choose
from gradtx.tree.rounding import noise

BY_MATRIX = ("input_grad", "refresh_offset", "key")
"""What a rule is told by name of every matrix; the rest are numbers for all."""


class Place(NamedTuple):
    """Over which axes of which mesh a batch is spread, and how the matrices in it were cut; None
    where nobody knows.
    """

    mesh: Any
    axes: tuple[str, ...]
    cut: PartitionSpec | None

    @property
    def devices(self) -> int:
        return math.prod(self.mesh.shape[axis] for axis in self.axes)

    def put(self, array: jax.Array, spec: PartitionSpec) -> jax.Array:
        """An array, moved."""
        explicit = all(kind == AxisType.Explicit for kind in self.mesh.axis_types)
        move = jax.sharding.reshard if explicit else jax.lax.with_sharding_constraint
        return move(array, NamedSharding(self.mesh, spec))


def update_spread(
    members: Sequence[ActiveRule],
    paths: Sequence[str],
    updates: Sequence[Any],
    slots: Sequence[Sequence[Any]],
    params: Sequence[Any] | None,
    input_grad: Sequence[Any],
    step: Any,
    gate: jax.Array | None = None,
) -> tuple[list[Any], list[list[Any]], list[Any], list[Mapping[str, Any]]]:
    """`update_leaves` of one rule whose matrices are spread over devices."""
    (member,), (column,) = members, slots
    rule, told = member.rule.rule, select_kwargs(member.rule.rule.update, member.hyperparams)
    shard = rule.matrices.shard if rule.matrices is not None else None
    rows = {
        index: make_row(
            [member],
            paths[index],
            updates[index],
            [column[index]],
            params and params[index],
            input_grad[index],
            (member.turns[index],),
        )
        for index, active in enumerate(member.active)
        if active
    }
    order = list(rows)
    kinds = group(_kind(member.layouts[index], rows[index]) for index in order)
    new_updates, new_slots = list(updates), list(column)
    for places in kinds.values():
        chosen = [order[place] for place in places]
        layouts = tuple(member.layouts[index] for index in chosen)
        place = _place(
            shard,
            layouts,
            [paths[index] for index in chosen],
            [updates[index] for index in chosen],
            member.name,
        )
        function = _function(rule.laid_out(None), layouts, place)
        for index, (update, kept) in zip(
            chosen,
            kernel(function)((step, gate, told), [rows[index] for index in chosen]),
            strict=True,
        ):
            new_updates[index], new_slots[index] = update, kept
    return new_updates, [new_slots], [member.shared], [{}]


def _kind(layout: Any, row: LeafArgs) -> Any:
    """What must be equal for leaves to be gathered: the shape of their matrices, dtypes, and the
    slots of each matrix.
    """
    kept = tuple(signature(leaf)[1:2] for leaf in jax.tree.leaves(row.slots))
    return layout.shape[-2:], row.grad.dtype, kept, row.param is None or row.param.dtype


def _place(
    shard: Any, layouts: Sequence[Layout], paths: Sequence[str], arrays: Sequence[Any], owner: str
) -> Place:
    known = [_sharding(shard, path, array) for path, array in zip(paths, arrays, strict=True)]
    axes = getattr(shard, "axes", shard)
    meshes = [
        getattr(shard, "mesh", None),
        jax.sharding.get_abstract_mesh(),
        *(one.mesh for one in known if one is not None),
    ]
    mesh = next(
        (mesh for mesh in meshes if mesh is not None and set(axes) <= set(mesh.axis_names)), None
    )
    if mesh is None:
        raise GradtxError(
            f"{owner}: shard = {axes!r} names axes of no mesh that is known here: call within jax.set_mesh(mesh), "
            "or give shard=gradtx.sharding.owners(params, axes)"
        )
    if any(
        kind == AxisType.Manual
        for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True)
        if name in axes
    ):
        raise GradtxError(
            f"{owner}: shard = {axes!r} within a shard_map over these axes, where every device has its own: leave shard out"
        )
    specs = [_spec(layout, one) for layout, one in zip(layouts, known, strict=True)]
    return Place(mesh, axes, specs[0] if len(set(specs)) == 1 else None)


def _sharding(shard: Any, path: str, array: Any) -> NamedSharding | None:
    """How a leaf lies: as the owners say, as its type says, or as it is; None in a program whose
    shardings XLA works out.
    """
    said = getattr(shard, "shardings", {}).get(path)
    if said is not None:
        return said
    found = (
        jax.typeof(array).sharding
        if isinstance(array, Tracer)
        else getattr(array, "sharding", None)
    )
    if not isinstance(found, NamedSharding) or (
        isinstance(array, Tracer) and AxisType.Explicit not in found.mesh.axis_types
    ):
        return None
    return found


def _spec(layout: Layout, sharding: NamedSharding | None) -> PartitionSpec | None:
    """How the two axes of matrices are cut; None where nobody knows, or where a batch axis is cut,
    too.
    """
    if sharding is None or layout.whole != layout.shape:
        return None
    spec = (*sharding.spec, *(None for _ in layout.shape))[: len(layout.shape)]
    return PartitionSpec(*spec[-2:]) if not any(spec[:-2]) else None


@functools.lru_cache(maxsize=1024)
def _function(rule: Rule, layouts: tuple[Layout, ...], place: Place) -> Any:
    return functools.partial(run_spread, rule, layouts, place)


def run_spread(
    rule: Rule, layouts: Sequence[Layout], place: Place, shared: Any, rows: Sequence[LeafArgs]
) -> list[Any]:
    """The kernel of all leaves whose matrices are alike."""
    rules = [laid_out(rule, layout) for layout in layouts]
    prepared = [_prepared(one, row, shared) for one, row in zip(rules, rows, strict=True)]
    stacked = jax.tree.map(
        functools.partial(_stacked, place, layouts[0].shape[-2:]),
        *(matrices for _, matrices, _ in prepared),
    )
    spread = jax.shard_map(
        functools.partial(_share, rule),
        mesh=place.mesh,
        in_specs=(PartitionSpec(), PartitionSpec(place.axes)),
        out_specs=PartitionSpec(place.axes),
        axis_names=set(place.axes),
        check_vma=False,
    )
    made = spread((shared[0], prepared[0][2]), stacked)
    made = jax.tree.map(functools.partial(_returned, place, layouts[0].shape[-2:]), made)
    starts = np.cumsum([0, *(math.prod(layout.batch) for layout in layouts)]).tolist()
    each = zip(rules, rows, prepared, itertools.pairwise(starts), strict=True)
    return [
        _kept(one, row, decoded, jax.tree.map(lambda x, cut=cut: x[slice(*cut)], made), shared)
        for one, row, (decoded, *_), cut in each
    ]


def _prepared(rule: Rule, row: LeafArgs, shared: Any) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The slots of one leaf decoded; all that belongs to its matrices, one by one along a first
    axis; and what is told of all.
    """
    step, _, values = shared
    dtype, layout = row.grad.dtype, rule.layout
    assert layout is not None
    grad, param, slots, named = in_compute(
        rule, rule.update, row, row.grad.astype(compute_dtype(dtype)), row.slots[0], values, step
    )
    told = matrix_kwargs(rule, named, row.turns[0])
    whole = {name: told.pop(name) for name in BY_MATRIX if name in told}
    if "key" in whole:
        whole["key"] = jax.random.key_data(whole["key"])
    whole |= {
        "grad": layout.matrix(grad),
        "slots": as_matrices(rule, slots),
        "param": None if param is None else layout.matrix(param),
    }
    return slots, jax.tree.map(functools.partial(_in_line, layout), whole), told


def _in_line(layout: Layout, array: jax.Array) -> jax.Array:
    """The batch axes of an array as one."""
    return array.reshape(math.prod(layout.batch), *array.shape[len(layout.batch) :])


def _stacked(place: Place, sides: tuple[int, ...], *arrays: jax.Array) -> jax.Array:
    """The batches of all leaves as one, filled up to a multiple of the devices, and placed as they
    lie.
    """
    whole = arrays[0] if len(arrays) == 1 else jnp.concatenate(arrays)
    if place.cut is not None and whole.shape[1:] == sides:
        whole = place.put(whole, PartitionSpec(None, *place.cut))
    missing = -whole.shape[0] % place.devices
    filled = jnp.pad(whole, [(0, missing), *[(0, 0)] * (whole.ndim - 1)]) if missing else whole
    return place.put(filled, PartitionSpec(place.axes))


def _share(rule: Rule, told: Any, matrices: dict[str, Any]) -> Any:
    """What one device does."""
    step, numbers = told
    grad, slots, param, *_ = (matrices[name] for name in ("grad", "slots", "param"))
    more = {name: value for name, value in matrices.items() if name in BY_MATRIX}
    if "key" in more:
        more["key"] = jax.random.wrap_key_data(more["key"])
    return rule.update(
        grad,
        slots,
        param,
        step.astype(grad.real.dtype),
        **numbers,
        **more,
        **select_kwargs(rule.update, rule.options.values),
    )


def _returned(place: Place, sides: tuple[int, ...], array: jax.Array) -> jax.Array:
    """A batch on its way back: each matrix cut as its leaf is, or by rows over all devices where
    nobody knows better.
    """
    if array.ndim != 3:
        return array
    if place.cut is not None and array.shape[1:] == sides:
        return place.put(array, PartitionSpec(None, *place.cut))
    return (
        place.put(array, PartitionSpec(None, place.axes))
        if array.shape[1] % place.devices == 0
        else array
    )


def _kept(rule: Rule, row: LeafArgs, decoded: Any, made: Any, shared: Any) -> tuple[Any, Any]:
    """The update of one leaf, and its slots as they are kept."""
    step, gate, _ = shared
    layout, (slots,) = rule.layout, row.slots
    assert layout is not None
    made = jax.tree.map(lambda array: array.reshape(*layout.batch, *array.shape[1:]), made)
    update, new = layout.array(made[0]).astype(row.grad.dtype), as_arrays(rule, made[1])
    if slots is None:
        return update, None
    if rule.storage is None:
        return update, choose(gate, encode_slots(new, slots), slots)
    random = None if row.leaf is None else noise(step, row.leaf)
    return update, stored_slots(rule.storage, slots, decoded, random, 0, gate, new)[0]
