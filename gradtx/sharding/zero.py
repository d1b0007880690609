r"""`sharded`: ZeRO-1, the state and the update of an optimizer cut over the devices.

With n devices along an axis of the mesh, a parameter θ and its gradient g, whole on each of them:

    g_d ← the d-th part of g              reduce-scatter
    θ_d, slots_d ← one step on part d     1/n of the state, 1/n of the work
    θ ← θ_1, …, θ_n                       all-gather

Constraints on shardings say all of it. XLA inserts the collectives, overlaps them with the
backward pass, and combines those of several arrays.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import NamedSharding

from gradtx.compose.transformation import (
    GradientTransformation,
    TransformationLike,
    as_transformation,
    definition,
)
from gradtx.compose.wrapwise import Member, wrapwise
from gradtx.definition.errors import GradtxError
from gradtx.definition.types import Check, DTypeLike, Params, PyTree, Slots
from gradtx.engine.selector import Leaves, leaves_of
from gradtx.engine.tree_rule import FUNCTIONS_OF_PARAMS
from gradtx.sharding.cuts import Axes, Cut, MeshLike, plan_cuts, rules_inside, split_of
from gradtx.sharding.placing import has_explicit_axes, put, put_alike
from gradtx.sharding.slot_cuts import restore_slots, store_slots
from gradtx.tree.casts import is_inexact
from gradtx.tree.known_shardings import known_shardings
from gradtx.tree.paths import flatten

Plan = Sequence[Cut | None]


def _plan(params: Params, split: Mapping[str, Any]) -> tuple[Leaves, Plan]:
    leaves = leaves_of(params)
    return leaves, plan_cuts(leaves, split_of(**split))


def _cut_params(params, *, axes: Axes, mesh: Any, min_size: int, pad_size: int | None) -> Params:
    split = {"axes": axes, "mesh": mesh, "min_size": min_size, "pad_size": pad_size}
    leaves, plan = _plan(params, split)
    return _cut_tree(leaves.tree, leaves, plan)


def _cut_slots(
    slots, params, *, axes: Axes, mesh: Any, min_size: int, pad_size: int | None
) -> Slots:
    split = {"axes": axes, "mesh": mesh, "min_size": min_size, "pad_size": pad_size}
    return store_slots(slots, _plan(params, split)[1])


def _cut_tree(tree: PyTree, leaves: Leaves, plan: Plan) -> Any:
    """A tree like the parameters, each array cut as the plan says; any other tree as it is."""
    values, treedef = flatten(tree)
    if treedef != leaves.treedef:
        return tree
    pairs = zip(values, plan, strict=True)
    return jax.tree.unflatten(treedef, [_cut_leaf(value, cut) for value, cut in pairs])


def _cut_leaf(value: Any, cut: Cut | None) -> Any:
    if cut is None or not is_inexact(value) or jnp.shape(value) != cut.shape:
        return value
    is_traced = isinstance(value, Tracer)
    # Outside of a trace an array cannot be cut into parts of different sizes.
    return put(value, cut.sharding) if cut.padding is None or is_traced else value


def _sharded(
    updates,
    own,
    params,
    step,
    *,
    inner: Member,
    extra: Mapping[str, Any],
    axes: Axes,
    gather_dtype: DTypeLike | None,
    mesh: Any,
    min_size: int,
    pad_size: int | None,
):
    split = {"axes": axes, "mesh": mesh, "min_size": min_size, "pad_size": pad_size}
    leaves, plan = _plan(updates if params is None else params, split)
    member = inner._replace(slots=restore_slots(inner.slots, plan))
    cut_extra = {name: _cut_extra(name, one, leaves, plan) for name, one in extra.items()}
    said = {cut.path: cut.sharding for cut in plan if cut is not None and cut.is_known}
    with known_shardings(said):
        result, member = member.update(
            _cut_tree(updates, leaves, plan), _cut_tree(params, leaves, plan), extra=cut_extra
        )
    slots = store_slots(member.slots, plan, inner.slots)
    return _gather_tree(result, leaves, plan, gather_dtype), member._replace(slots=slots), own


def _cut_extra(name: str, value: Any, leaves: Leaves, plan: Plan) -> Any:
    """An extra argument as the member sees it: trees are cut, functions take cut parameters."""
    if name in FUNCTIONS_OF_PARAMS and callable(value):
        function = functools.partial(_on_whole, value, leaves, plan)
        # So that a rule can see which other arguments the function takes.
        vars(function)["__wrapped__"] = value
        return function
    return _cut_tree(value, leaves, plan)


def _on_whole(
    function: Callable[..., Any], leaves: Leaves, plan: Plan, params: Params, *args: Any, **kw: Any
) -> Any:
    """Call a function with the parameters placed as the caller placed them."""
    return _cut_tree(function(_gather_tree(params, leaves, plan, None), *args, **kw), leaves, plan)


def _gather_tree(tree: PyTree, leaves: Leaves, plan: Plan, dtype: DTypeLike | None) -> Any:
    """Updates, or new parameters, placed as the parameters are."""
    values, treedef = flatten(tree)
    if treedef != leaves.treedef:
        return tree
    rows = zip(values, leaves.values, plan, strict=True)
    return jax.tree.unflatten(treedef, [_gather_leaf(*row, dtype) for row in rows])


def _gather_leaf(value: Any, like: Any, cut: Cut | None, dtype: DTypeLike | None) -> Any:
    if cut is None or value is None or jnp.shape(value) != cut.shape:
        return value
    if dtype is None or jnp.dtype(dtype).itemsize >= value.dtype.itemsize:
        return _place_back(value, like, cut)
    # Without the barrier XLA moves the cast behind the collective, which then moves wide numbers.
    narrow = jax.lax.optimization_barrier(_place_back(value.astype(dtype), like, cut))
    return narrow.astype(value.dtype)


def _place_back(value: Any, like: Any, cut: Cut) -> Any:
    if cut.before is None and has_explicit_axes(cut.sharding.mesh):
        return put(value, cut.without_axes)
    if cut.before is None:
        return put_alike(value, like, cut.without_axes)
    return put(value, NamedSharding(cut.sharding.mesh, cut.before))


def _evaluate(
    params, own, *, inner: Member, axes: Axes, mesh: Any, min_size: int, pad_size: int | None
):
    split = {"axes": axes, "mesh": mesh, "min_size": min_size, "pad_size": pad_size}
    leaves, plan = _plan(params, split)
    member = inner._replace(slots=restore_slots(inner.slots, plan))
    return _gather_tree(member.evaluate(params), leaves, plan, None)


def _check_axes(where: str, axes: Any) -> None:
    names = (axes,) if isinstance(axes, str) else axes
    is_names = isinstance(names, tuple | list) and all(isinstance(one, str) for one in names)
    if not is_names or not names:
        raise GradtxError(
            f'{where} = {axes!r} is not an axis of a mesh: give the name of one, "data", or a '
            f"tuple of names"
        )


@definition
def sharded(
    inner: TransformationLike,
    axes: Annotated[Axes, Check(_check_axes)] = "data",
    gather_dtype: DTypeLike | None = None,
    mesh: MeshLike | None = None,
    *,
    min_size: int = 1,
    pad_size: int | None = 65_536,
) -> GradientTransformation:
    r"""ZeRO-1: shard the optimizer state and the update over the data-parallel devices.

    With n devices along `axes`, each keeps 1/n of the state and computes 1/n of the update. The
    gradients are reduce-scattered, and the new parameters (n, m) → (n, m) are gathered once, placed
    as they were before. Numbers are those of the optimizer on one device, up to the order of sums.

    Each array is cut along one of its axes that n divides, beside the axes over which the parameter
    is cut already (FSDP, tensor parallelism). If no axis fits, a large array is cut along its
    longest axis, and its slots are padded; a small one stays whole. `gradtx.sharding.cuts(tx,
    params)` prints the choice. Rules see the true shapes, so that norms, means and matrices are
    those of the whole array; methods on matrices give each matrix to one device.

    The mesh is the one of the arrays, of `jax.set_mesh`, or `mesh`. Within `jit` and with automatic
    axes a trace does not see how parameters are placed. `make_step` tells it. In a step of your own
    with tensor parallelism, use explicit axes.

    When: data parallelism with state that does not fit, or whose update takes time. When not:
    parameters that are cut over the same axis (FSDP), where the state follows them anyway; within
    `shard_map`, where each device sees its part alone.

    Args:
      inner: the transformation; put the whole chain here.
      axes: the axis of the mesh over which the batch is cut, or several, ("replica", "data").
      gather_dtype: the dtype in which updates are gathered, `jnp.bfloat16` for half the bytes; the
        parameters keep theirs. None: the new parameters are gathered, which costs less than the
        updates in the same dtype.
      mesh: where neither arrays nor `jax.set_mesh` show it, a mesh, or the sizes of its axes by
        name, `{"data": 8}`, which is data; sizes alone move no array outside of `jit`.
      min_size: arrays of fewer entries stay whole; 1 to 16,384.
      pad_size: arrays of fewer entries are not padded; None: none is. A state with padded slots
        fits meshes of the same size.

    Raises:
      GradtxError: no mesh is known, it has no such axis, or the axis is manual; `inner` contains
        `sharded`; an argument is of a wrong type.

    State: that of `inner`, cut; n times less on each device.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> tx = gradtx.sharded(gradtx.adamw(1e-3), "data")
    >>> with jax.set_mesh(jax.make_mesh((jax.device_count(),), ("data",))):
    ...     params = jnp.ones((2 * jax.device_count(), 4))
    ...     state = tx.init(params)
    >>> state.mu.sharding.spec
    P('data',)

    See also: `make_step`, `gradtx.sharding.cuts`, `gradtx.sharding.owners`.

    Rajbhandari, Rasley, Ruwase and He 2020, "ZeRO: Memory Optimizations Toward Training Trillion
    Parameter Models", SC20, section 5.1; Xu et al. 2020, arXiv:2004.13336, for its form in XLA.
    """
    tx = as_transformation(inner)
    if any(rule.name == "sharded" for rule in rules_inside(tx)):
        raise GradtxError(
            f"sharded: {tx.name} contains sharded already: cut it once, around the whole "
            f'definition, over all axes, axes=("data", ...)'
        )
    return wrapwise(
        tx,
        None,
        _sharded,
        member_params=_cut_params,
        member_slots=_cut_slots,
        evaluate=_evaluate,
        is_transparent=gather_dtype is None,
    )
