"""Rules on matrices over several devices: each device works on its share of the matrices.

Sharded leaves (n, m) are stacked as they lie, (N, n, m), and the stack is cut along N by
`shard_map`, for which XLA moves it once, all to all; the results go back the same way. No device
repeats the work of another, and one device works on the whole of a matrix.
"""

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gradtx.definition.errors import GradtxError
from gradtx.definition.types import PyTree, Slots
from gradtx.engine.checks import call_rule
from gradtx.engine.kernel import LeafArgs, array_kwargs, cast_slots, decode_slots
from gradtx.engine.matrix_layout import Layout
from gradtx.engine.matrix_rules import as_arrays, as_matrices, matrix_kwargs
from gradtx.engine.storage import store_slots
from gradtx.tree.casts import cast_inexact, compute_dtype
from gradtx.tree.kernels import group, kernel, signature
from gradtx.tree.known_shardings import known_sharding
from gradtx.tree.maps import choose
from gradtx.tree.rounding import noise

if TYPE_CHECKING:
    from gradtx.engine.leaf_rule import MatrixRule

BY_MATRIX = ("input_grad", "refresh_offset", "key")
"""What a rule receives for every matrix; its other values are numbers for all."""


class ShardPlan(NamedTuple):
    """The axes of a mesh that a batch is spread over, and how its matrices were cut before."""

    mesh: Any
    axes: tuple[str, ...]
    cut: PartitionSpec | None
    """None where nobody knows."""

    @property
    def devices(self) -> int:
        """How many devices share the work."""
        return math.prod(self.mesh.shape[axis] for axis in self.axes)

    def put(self, array: jax.Array, spec: PartitionSpec) -> jax.Array:
        """Move an array to where a spec says."""
        is_explicit = all(kind == AxisType.Explicit for kind in self.mesh.axis_types)
        move = jax.sharding.reshard if is_explicit else jax.lax.with_sharding_constraint
        return move(array, NamedSharding(self.mesh, spec))


def gather_kinds(
    rule: Any, layouts: Sequence[Any], args: Mapping[int, LeafArgs]
) -> list[list[int]]:
    """The leaves whose matrices are gathered into one batch."""
    order = list(args)
    kinds = group(_kind(layouts[index], args[index]) for index in order)
    return [[order[place] for place in places] for places in kinds.values()]


def _kind(layout: Any, args: LeafArgs) -> Any:
    """What must be equal: the shape of matrices, dtypes, and the slots of each matrix."""
    slots = tuple(signature(leaf)[1:2] for leaf in jax.tree.leaves(args.slots))
    return layout.shape[-2:], args.grad.dtype, slots, args.param is None or args.param.dtype


def sharded_kernel(
    rule: Any, layouts: tuple[Any, ...], paths: Sequence[str], arrays: Sequence[Any], owner: str
) -> Any:
    """The jitted kernel of some leaves whose matrices are alike."""
    plan = _plan(rule.matrices.shard, layouts, paths, arrays, owner)
    return kernel(_function(rule.at(None), layouts, plan))


def _plan(
    shard: Any, layouts: Sequence[Layout], paths: Sequence[str], arrays: Sequence[Any], owner: str
) -> ShardPlan:
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
            f"{owner}: shard = {axes!r} names axes of no mesh that is known here: call within "
            f"jax.set_mesh(mesh), "
            "or give shard=gradtx.sharding.owners(params, axes)"
        )
    if any(
        kind == AxisType.Manual
        for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True)
        if name in axes
    ):
        raise GradtxError(
            f"{owner}: shard = {axes!r} within a shard_map over these axes, where every device "
            f"has its own: leave shard out"
        )
    specs = [_spec(layout, one) for layout, one in zip(layouts, known, strict=True)]
    return ShardPlan(mesh, axes, specs[0] if len(set(specs)) == 1 else None)


def _sharding(shard: Any, path: str, array: Any) -> NamedSharding | None:
    """How a leaf is cut: as the owners say, or as the trace knows it."""
    said = getattr(shard, "shardings", {}).get(path)
    return known_sharding(array, path) if said is None else said


def _spec(layout: Layout, sharding: NamedSharding | None) -> PartitionSpec | None:
    """How the two axes of matrices are cut; None where nobody knows, or where a batch axis is cut,
    too.
    """
    if sharding is None or layout.whole != layout.shape:
        return None
    spec = (*sharding.spec, *(None for _ in layout.shape))[: len(layout.shape)]
    return PartitionSpec(*spec[-2:]) if not any(spec[:-2]) else None


@functools.lru_cache(maxsize=1024)
def _function(rule: "MatrixRule", layouts: tuple[Layout, ...], plan: ShardPlan) -> Any:
    return functools.partial(run_sharded, rule, layouts, plan)


def run_sharded(
    rule: "MatrixRule",
    layouts: Sequence[Layout],
    plan: ShardPlan,
    shared: Any,
    args: Sequence[LeafArgs],
) -> list[Any]:
    """The kernel of all leaves whose matrices are alike: updates and slots, leaf by leaf."""
    rules = [rule.at(layout) for layout in layouts]
    inputs = [
        _prepare(one, layout, row, shared)
        for one, layout, row in zip(rules, layouts, args, strict=True)
    ]
    sides = layouts[0].shape[-2:]
    stack = functools.partial(_stack, plan, sides)
    stacked = jax.tree.map(stack, *(matrices for _, matrices, _ in inputs))
    share = jax.shard_map(
        functools.partial(_share, rule),
        mesh=plan.mesh,
        in_specs=(PartitionSpec(), PartitionSpec(plan.axes)),
        out_specs=PartitionSpec(plan.axes),
        axis_names=set(plan.axes),
        check_vma=False,
    )
    results = share((shared.step, inputs[0][2]), stacked)
    results = jax.tree.map(functools.partial(_send_back, plan, sides), results)
    starts = np.cumsum([0, *(math.prod(layout.batch) for layout in layouts)]).tolist()
    each = zip(rules, layouts, args, inputs, itertools.pairwise(starts), strict=True)
    return [
        _finish(one, layout, row, slots, _slice(results, cut), shared)
        for one, layout, row, (slots, *_), cut in each
    ]


def _slice(tree: PyTree, cut: tuple[int, int]) -> Any:
    return jax.tree.map(lambda array: array[slice(*cut)], tree)


def _prepare(
    rule: "MatrixRule", layout: Layout, args: LeafArgs, shared: Any
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The slots of one leaf; its matrices along a first axis, by name; and the numbers for all."""
    dtype = compute_dtype(args.grad.dtype)
    kwargs = array_kwargs(rule, rule.update_array, shared.kwargs[0], shared.step, args)
    numbers = matrix_kwargs(rule, kwargs, args.offsets[0])
    whole = {name: numbers.pop(name) for name in BY_MATRIX if name in numbers}
    if "key" in whole:
        whole["key"] = jax.random.key_data(whole["key"])  # shard_map takes no typed keys
    (stored,) = args.slots
    slots = None if stored is None else decode_slots(rule, stored, args.grad.shape, dtype)
    param = None if args.param is None else layout.matrix(cast_inexact(args.param, dtype))
    whole |= {"grad": layout.matrix(args.grad.astype(dtype)), "param": param}
    whole["slots"] = as_matrices(rule, slots)
    return slots, jax.tree.map(functools.partial(_in_line, layout), whole), numbers


def _in_line(layout: Layout, array: jax.Array) -> jax.Array:
    """The batch axes of an array as one."""
    return array.reshape(math.prod(layout.batch), *array.shape[len(layout.batch) :])


def _stack(plan: ShardPlan, sides: tuple[int, ...], *arrays: jax.Array) -> jax.Array:
    """The batches of all leaves as one, filled up to a multiple of the devices."""
    whole = arrays[0] if len(arrays) == 1 else jnp.concatenate(arrays)
    if plan.cut is not None and whole.shape[1:] == sides:
        whole = plan.put(whole, PartitionSpec(None, *plan.cut))
    missing = -whole.shape[0] % plan.devices
    filled = jnp.pad(whole, [(0, missing), *[(0, 0)] * (whole.ndim - 1)]) if missing else whole
    return plan.put(filled, PartitionSpec(plan.axes))


def _share(rule: "MatrixRule", given: Any, matrices: dict[str, Any]) -> Any:
    """Run the rule on the matrices of one device."""
    step, numbers = given
    grad, slots, param = (matrices[name] for name in ("grad", "slots", "param"))
    more = {name: value for name, value in matrices.items() if name in BY_MATRIX}
    if "key" in more:
        more["key"] = jax.random.wrap_key_data(more["key"])
    function = functools.partial(rule.update_array, **numbers, **more, **rule.static_kwargs)
    with jax.named_scope(rule.name):
        return call_rule(rule, function, grad, slots, param, step.astype(grad.real.dtype))


def _send_back(plan: ShardPlan, sides: tuple[int, ...], array: jax.Array) -> jax.Array:
    """A batch with each matrix cut as its leaf is, or by rows where nobody knows how that is."""
    if array.ndim != 3:
        return array
    if plan.cut is not None and array.shape[1:] == sides:
        return plan.put(array, PartitionSpec(None, *plan.cut))
    fits = array.shape[1] % plan.devices == 0
    return plan.put(array, PartitionSpec(None, plan.axes)) if fits else array


def _finish(
    rule: "MatrixRule", layout: Layout, args: LeafArgs, slots: Slots, results: Any, shared: Any
) -> tuple[Any, Any]:
    """The update of one leaf, and its slots as a state holds them."""
    (stored,) = args.slots
    batched = jax.tree.map(lambda one: one.reshape(*layout.batch, *one.shape[1:]), results)
    update, new = layout.array(batched[0]).astype(args.grad.dtype), as_arrays(rule, batched[1])
    if stored is None:
        return update, (None,)
    if rule.storage is None:
        return update, (choose(shared.gate, cast_slots(new, stored), stored),)
    draws = None if args.leaf is None else noise(shared.step, args.leaf)
    new = store_slots(rule.storage, stored, slots, draws, 0, shared.gate, cast_slots(new, slots))[0]
    return update, (new,)
