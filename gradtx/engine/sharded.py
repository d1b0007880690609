"""Rules on matrices over several devices: each device works on its share of the matrices.

Leaves (n, m) that are cut over a mesh are stacked as they lie, piece by piece, (N, n', m'). The
stack goes all to all, so that each device holds some of the matrices whole, and the results go back
the same way. No device repeats the work of another.
"""

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from gradtx.definition.types import Slots
from gradtx.engine.checks import call_rule
from gradtx.engine.kernel import LeafArgs, array_kwargs, cast_slots, decode_slots
from gradtx.engine.matrix_layout import Layout
from gradtx.engine.matrix_rules import matrix_kwargs, slots_alike
from gradtx.engine.owner_moves import Axes, give_back, own_share, owner_number
from gradtx.engine.owner_plan import Frame, OwnerPlan, slot_frame
from gradtx.engine.storage import store_slots
from gradtx.tree.casts import cast_inexact, compute_dtype
from gradtx.tree.kernels import kernel
from gradtx.tree.maps import choose
from gradtx.tree.placement import run_auto
from gradtx.tree.rounding import noise

if TYPE_CHECKING:
    from gradtx.engine.leaf_rule import MatrixRule

OF_LEAF, OF_MATRIX = ("input_grad",), ("refresh_offset", "key")
"""What a rule receives in the shape of the leaf, and for every matrix; other values are numbers for
all.
"""


class Piece(NamedTuple):
    """How one array of a leaf lies, and whether it has the leaf's own axes or a batch in front."""

    frame: Frame
    is_leaf: bool


class Lie(NamedTuple):
    """How one leaf lies: its matrices, the axes that cut them, and those that cut its slots."""

    layout: Layout
    cuts: tuple[Axes, ...]
    """The axes that cut each axis of the leaf."""
    frame: Frame
    """Those that cut its batch and its matrices, as far as whole matrices can be put together."""
    slots: tuple[tuple[Axes, ...], ...]

    @property
    def batch(self) -> tuple[int, ...]:
        return self.layout.batch


def sharded_kernel(rule: "MatrixRule", lies: tuple[Lie, ...], plan: OwnerPlan) -> Any:
    """The jitted kernel of some leaves whose matrices are alike."""
    return kernel(_function(rule.at(None), lies, plan))


@functools.lru_cache(maxsize=1024)
def _function(rule: "MatrixRule", lies: tuple[Lie, ...], plan: OwnerPlan) -> Any:
    return functools.partial(run_sharded, rule, lies, plan)


def run_sharded(
    rule: "MatrixRule",
    lies: Sequence[Lie],
    plan: OwnerPlan,
    shared: Any,
    args: Sequence[LeafArgs],
) -> list[Any]:
    """The kernel of all leaves whose matrices are alike: updates and slots, leaf by leaf."""
    if (mesh := jax.typeof(args[0].grad).sharding.mesh).explicit_axes:
        run = functools.partial(run_sharded, rule, lies, plan)
        return run_auto(run, mesh, [(row.grad, row.slots) for row in args], shared, args)
    rules = [rule.at(lie.layout) for lie in lies]
    inputs = [
        _prepare(one, lie.layout, row, shared)
        for one, lie, row in zip(rules, lies, args, strict=True)
    ]
    arrays = [own for own, _ in inputs]
    pieces = [_pieces(one, lie, own) for one, lie, own in zip(rules, lies, arrays, strict=True)]
    results = _on_owners(rules, lies, plan, pieces, (shared.step, inputs[0][1]), arrays)
    each = zip(rules, lies, args, arrays, results, strict=True)
    return [
        _finish(one, lie.layout, row, own["slots"], result, shared)
        for one, lie, row, own, result in each
    ]


def _prepare(
    rule: "MatrixRule", layout: Layout, args: LeafArgs, shared: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays of one leaf by name, and the numbers for all matrices."""
    dtype = compute_dtype(args.grad.dtype)
    kwargs = array_kwargs(rule, rule.update_array, shared.kwargs[0], shared.step, args)
    arrays = {name: kwargs.pop(name) for name in OF_LEAF if name in kwargs}
    numbers = matrix_kwargs(rule, kwargs, args.offsets[0])
    arrays |= {name: numbers.pop(name) for name in OF_MATRIX if name in numbers}
    if "key" in arrays:
        arrays["key"] = jax.random.key_data(arrays["key"])  # shard_map takes no typed keys
    (stored,) = args.slots
    slots = None if stored is None else decode_slots(rule, stored, args.grad.shape, dtype)
    param = None if args.param is None else cast_inexact(args.param, dtype)
    return arrays | {"grad": args.grad.astype(dtype), "param": param, "slots": slots}, numbers


def _pieces(rule: "MatrixRule", lie: Lie, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """How every array of a leaf lies, in the structure of the arrays."""
    alike = slots_alike(rule)
    whole = Piece(lie.frame, True)
    pieces: dict[str, Any] = {}
    for name, value in arrays.items():
        if name == "slots" and value is not None:
            pieces[name] = type(value)(
                *itertools.starmap(
                    functools.partial(_slot_piece, lie), zip(value, alike, lie.slots, strict=True)
                )
            )
        elif value is not None and name in OF_MATRIX:
            sides = ((),) * (value.ndim - len(lie.batch))
            pieces[name] = Piece(Frame(lie.frame.batch, sides), False)
        else:
            pieces[name] = None if value is None else whole
    return pieces


def _slot_piece(
    lie: Lie, slot: jax.Array | None, is_alike: bool, cuts: tuple[Axes, ...]
) -> Piece | None:
    if slot is None:
        return None
    if is_alike:
        return Piece(lie.frame, True)
    return Piece(slot_frame(lie.frame, len(lie.batch), cuts), False)


def _on_owners(
    rules: Sequence["MatrixRule"],
    lies: Sequence[Lie],
    plan: OwnerPlan,
    pieces: Sequence[Any],
    numbers: Any,
    arrays: Sequence[Any],
) -> list[tuple[Any, Any]]:
    """Run the rule on the owners of all matrices: the update of each leaf, and its slots."""
    cut = _each(_as_cut, lies, arrays, pieces)
    specs = _each(_spec, lies, cut, pieces)
    # The mesh of the context, if there is one, must be the one that is named.
    is_set = not jax.sharding.get_abstract_mesh().empty
    run = jax.shard_map(
        functools.partial(_share, rules[0], lies, plan, pieces),
        mesh=None if is_set else plan.mesh.abstract(),
        in_specs=(PartitionSpec(), specs),
        out_specs=[(own["grad"], own["slots"]) for own in specs],
        check_vma=False,
    )
    results = run(numbers, cut)
    return [
        jax.tree.map(functools.partial(_as_leaf, plan, lie), result, _returned(kinds))
        for lie, kinds, result in zip(lies, pieces, results, strict=True)
    ]


def _each(
    function: Callable[[Layout, Any, Piece], Any],
    lies: Sequence[Lie],
    arrays: Sequence[Any],
    pieces: Sequence[Any],
) -> list[Any]:
    """`function(layout, array, piece)` of every array, leaf by leaf."""
    return [
        jax.tree.map(functools.partial(function, lie.layout), own, kinds)
        for lie, own, kinds in zip(lies, arrays, pieces, strict=True)
    ]


def _as_cut(layout: Layout, array: jax.Array, piece: Piece) -> jax.Array:
    """An array with the axes that a layout speaks of."""
    return array.reshape(layout.cut) if piece.is_leaf else array


def _as_leaf(plan: OwnerPlan, lie: Lie, array: jax.Array, piece: Piece) -> jax.Array:
    """An array with the axes of the leaf, cut as the leaf is."""
    if not piece.is_leaf or lie.layout.whole == lie.layout.cut:
        return array
    # Several matrices side by side in one axis came in cut otherwise.
    spec = PartitionSpec(*(axes or None for axes in lie.cuts))
    context = jax.sharding.get_abstract_mesh()
    sharding = NamedSharding(plan.mesh.abstract() if context.empty else context, spec)
    return jax.lax.with_sharding_constraint(array.reshape(lie.layout.whole), sharding)


def _spec(layout: Layout, array: jax.Array, piece: Piece) -> PartitionSpec:
    if not piece.is_leaf:
        return piece.frame.spec
    entries = tuple(piece.frame.spec)
    return PartitionSpec(*(entries[place] for place in np.argsort(layout.order)))


def _share(
    rule: "MatrixRule",
    lies: Sequence[Lie],
    plan: OwnerPlan,
    pieces: Sequence[Any],
    numbers: Any,
    arrays: Sequence[Any],
) -> list[tuple[Any, Any]]:
    """Run the rule on the matrices of one device, which holds a piece of every leaf."""
    lines = _each(_in_line, lies, arrays, pieces)
    owned = jax.tree.map(
        functools.partial(_to_owner, plan, lies[0].layout),
        jax.tree.map(_concatenate, *lines),
        pieces[0],
    )
    results = _run_if_any(rule, plan, numbers, owned)
    kinds = (pieces[0]["grad"], pieces[0]["slots"])
    stacks = jax.tree.map(functools.partial(_from_owner, plan, lies[0].layout), results, kinds)
    counts = [own["grad"].shape[0] for own in lines]
    starts = np.cumsum([0, *counts]).tolist()
    return [
        jax.tree.map(functools.partial(_place_back, lie.layout, cut), stacks, _returned(own), old)
        for lie, cut, own, old in zip(
            lies, itertools.pairwise(starts), pieces, map(_returned, arrays), strict=True
        )
    ]


def _returned(tree: Mapping[str, Any]) -> tuple[Any, Any]:
    """Of the arrays of a leaf those that a rule returns."""
    return tree["grad"], tree["slots"]


def _concatenate(*arrays: jax.Array) -> jax.Array:
    return arrays[0] if len(arrays) == 1 else jnp.concatenate(arrays)


def _in_line(layout: Layout, array: jax.Array, piece: Piece) -> jax.Array:
    """The pieces of the matrices of one array along a first axis."""
    count = len(layout.batch)
    moved = array.transpose(layout.order) if piece.is_leaf else array
    return moved.reshape(math.prod(moved.shape[:count]), *moved.shape[count:])


def _to_owner(plan: OwnerPlan, layout: Layout, array: jax.Array, piece: Piece) -> jax.Array:
    own = own_share(array, piece.frame.sides, plan.spread, plan.mesh.sizes, plan.span)
    return own.reshape(own.shape[0], *layout.shape[-2:]) if piece.is_leaf else own


def _from_owner(plan: OwnerPlan, layout: Layout, array: jax.Array, piece: Piece) -> jax.Array:
    if piece.is_leaf:
        sides = [layout.cut[axis] for axis in layout.order[len(layout.batch) :]]
        array = array.reshape(array.shape[0], *sides)
    return give_back(array, piece.frame.sides, plan.spread, plan.mesh.sizes, plan.span)


def _place_back(
    layout: Layout, cut: tuple[int, int], stack: jax.Array, piece: Piece, old: jax.Array
) -> jax.Array:
    """The pieces of one leaf, with the axes that the leaf has."""
    own = stack[slice(*cut)]
    if not piece.is_leaf:
        return own.reshape(old.shape)
    moved = tuple(old.shape[axis] for axis in layout.order)
    return own.reshape(moved).transpose(np.argsort(layout.order))


def _run_if_any(rule: "MatrixRule", plan: OwnerPlan, numbers: Any, own: dict[str, Any]) -> Any:
    """Run the rule where a device owns a matrix; others are idle, and free for other shapes."""
    run = functools.partial(_run, rule)
    if not plan.leaves_idle:
        return run(numbers, own)
    shapes = jax.eval_shape(run, numbers, own)
    zeros = jax.tree.map(lambda one: jnp.zeros(one.shape, one.dtype), shapes)
    span = plan.span
    first = owner_number(plan.spread) * span.each
    is_busy = (first < span.start + span.matrices) & (first + span.each > span.start)
    return jax.lax.cond(is_busy, run, lambda *_: zeros, numbers, own)


def _run(rule: "MatrixRule", numbers: Any, own: dict[str, Any]) -> Any:
    """Run the rule on some matrices."""
    step, values = numbers
    grad, slots, param = (own[name] for name in ("grad", "slots", "param"))
    more = {name: value for name, value in own.items() if name in (*OF_LEAF, *OF_MATRIX)}
    if "key" in more:
        more["key"] = jax.random.wrap_key_data(more["key"])
    function = functools.partial(rule.update_array, **values, **more, **rule.static_kwargs)
    with jax.named_scope(rule.name):
        return call_rule(rule, function, grad, slots, param, step.astype(grad.real.dtype))


def _finish(
    rule: "MatrixRule", layout: Layout, args: LeafArgs, slots: Slots, results: Any, shared: Any
) -> tuple[Any, Any]:
    """The update of one leaf, and its slots as a state holds them."""
    (stored,) = args.slots
    update, new = results[0].astype(args.grad.dtype), results[1]
    if stored is None:
        return update, (None,)
    if rule.storage is None:
        return update, (choose(shared.gate, cast_slots(new, stored), stored),)
    draws = None if args.leaf is None else noise(shared.step, args.leaf)
    new = store_slots(rule.storage, stored, slots, draws, 0, shared.gate, cast_slots(new, slots))[0]
    return update, (new,)
