"""A transformation inside `shard_map` and `pmap` that computes as on whole arrays."""

import functools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from gradtx.definition.errors import GradtxError, StructureError
from gradtx.definition.types import Params, Slots, Updates
from gradtx.engine.axis_names import (
    bound_names,
    init_layout,
    leaf_kinds,
    leaves_like,
    slot_kinds,
    tree_of,
)
from gradtx.engine.clock import Clock
from gradtx.engine.layouts import (
    Kind,
    Layout,
    Part,
    cut_names,
    lay_out,
    materialize,
    vary,
)
from gradtx.engine.partition import run_partitioned
from gradtx.engine.selector import Leaves, leaves_of
from gradtx.engine.wrap_rule import WrapRule
from gradtx.tree.errors import AxesError
from gradtx.tree.host_memory import fetch, put_back
from gradtx.tree.manual_axes import is_checked, outer_axis_names, varying, whole_arrays

if TYPE_CHECKING:
    from gradtx.engine.program import BoundRule, Flow, Step

ANY_AXES = "any"
"""In the place of `axis_names`, where a program is traced to look at it."""
SCOPE = "over_axes"
"""The scope of operations whose reductions are right by what the caller said."""


class UpdateCall(NamedTuple):
    """The arguments of one update."""

    updates: Any
    slots: Any
    params: Any
    step: Any
    extra: Mapping[str, Any]
    gate: Any


@dataclass(frozen=True)
class AxesRule(WrapRule):
    """A transformation of whole arrays, run on the parts that each device holds."""

    axis_names: Any = ()

    def init(self, bound: "BoundRule", leaves: Leaves, clock: Clock) -> Any:
        params = leaves.narrow(leaves.tree, bound.mask(leaves))
        if outer_axis_names() or not bound_names(self.axis_names, self.name):
            return self.tx.init_slots(params)
        return _explained(self, _init_parts, params)

    def _run(
        self, bound: "BoundRule", old: Any, mask: Sequence[bool], flow: "Flow", step: "Step"
    ) -> tuple[Any, Any]:
        leaves, extra = flow.leaves, self.masked_extra(flow.leaves, step, mask)
        params = None if step.params is None else leaves.narrow(step.params.tree, mask)
        updates = leaves.narrow(leaves.tree, mask)
        number, slots = step.clock.step, fetch(old)  # the types of parts say no memory
        call = UpdateCall(updates, slots, params, number, extra, step.gate)
        with jax.named_scope(SCOPE):
            if self._is_cut(call):
                updates, new, stats = _explained(self, _update_parts, call)
            else:
                updates, new, stats = self.tx.update_slots(
                    updates, slots, params, number, extra, step.gate, with_stats=True
                )
        return (updates, stats), put_back(new, old)

    def _is_cut(self, call: UpdateCall) -> bool:
        """Whether a device holds parts of these arrays."""
        if outer := outer_axis_names():
            if outer[0] not in (ANY_AXES, self.axis_names):
                raise GradtxError(
                    f"over_axes: axis_names = {self.axis_names!r} is inside of axis_names = "
                    f"{outer[0]!r}, which makes arrays whole: name the axes once, outside"
                )
            return False
        return bool(bound_names(self.axis_names, self.name)) or _differs(call)

    def _flow_on(
        self, bound: "BoundRule", updates: Any, mask: Sequence[bool], flow: "Flow", step: "Step"
    ) -> "Flow":
        updates, stats = updates  # `with_metrics` reads the factor of a clip
        flow = flow._replace(stats={**flow.stats, **stats})
        return super()._flow_on(bound, updates, mask, flow, step)


def _differs(call: UpdateCall) -> bool:
    """Whether an array differs over devices, as its type says."""
    return is_checked() and any(map(varying, jax.tree.leaves((call.updates, call.params))))


def _explained(rule: AxesRule, run: Any, *args: Any) -> Any:
    """Call a function; where a result depends on an axis that is a guess, the error says so."""
    try:
        with whole_arrays(rule.axis_names):
            return run(rule, *args)
    except AxesError as error:
        raise AxesError(
            f"{rule.name}: {error.scope or error} depends on which axis of an array is cut, "
            f"and axis_names = {rule.axis_names!r} names the mesh axes alone: give "
            f"PartitionSpecs, axis_names=[('kernel$', P('data', None)), ('.*', P('data'))]"
        ) from None


def _parts(leaves: Leaves, kinds: Sequence[Kind | None], tree: Any) -> Any:
    """A tree of parts, where it has the structure of the parameters."""
    values = leaves_like(leaves, tree)
    if values is None:
        return tree
    each = zip(values, kinds, strict=True)
    return tree_of(leaves, [one if kind is None else _part(one, kind) for one, kind in each])


def _part(value: Any, kind: Kind) -> Any:
    """A part, cut as a parameter; axes in front of the parameter's are whole."""
    shape = getattr(value, "shape", None)
    if shape is None:
        return value
    extra = len(shape) - len(kind.shape)
    if extra < 0:
        return value
    layout = (*(None for _ in range(extra)), *kind.layout)
    return Part(value, Kind(layout, (*shape[:extra], *kind.shape), kind.guess))


def _whole_shapes(leaves: Leaves, kinds: Sequence[Kind | None]) -> Any:
    """The parameters as shapes of whole arrays."""
    return tree_of(
        leaves,
        [
            one if kind is None else jax.ShapeDtypeStruct(kind.shape, one.dtype)
            for one, kind in zip(leaves.values, kinds, strict=True)
        ],
    )


def _guesses(kinds: Sequence[Kind | None]) -> int:
    """How many axes may be the one that is cut."""
    return max((len(kind.shape) for kind in kinds if kind is not None and kind.guess), default=1)


def _init_parts(rule: AxesRule, params: Params) -> Any:
    leaves = leaves_of(params)
    kinds = leaf_kinds(rule.axis_names, leaves, rule.name, 0)
    for guess in range(1, _guesses(kinds)):
        jax.eval_shape(functools.partial(_init_once, rule, leaves, guess))
    return _init_once(rule, leaves, 0)


def _init_once(rule: AxesRule, leaves: Leaves, guess: int) -> Any:
    """The slots of whole arrays, cut as their parameters."""
    kinds = leaf_kinds(rule.axis_names, leaves, rule.name, guess)
    found = leaves_of(run_partitioned(rule.tx.init_slots, _parts(leaves, kinds, leaves.tree)))
    owners = dict(zip(leaves.paths, kinds, strict=True))
    each = zip(found.paths, found.values, strict=True)
    layouts = [
        None if one is None else init_layout(path, one.kind.shape, owners) for path, one in each
    ]
    return tree_of(found, [*map(_place, found.values, layouts)])


def _place(part: Part | None, layout: Layout | None) -> Any:
    """The array of a part in a layout."""
    if part is None or layout is None:
        return None
    return vary(lay_out(part, layout).array, cut_names(layout))


def _update_parts(rule: AxesRule, call: UpdateCall) -> Any:
    """`update_slots` on parts, as the whole arrays would have it."""
    leaves = leaves_of(call.updates if call.params is None else call.params)
    kinds = leaf_kinds(rule.axis_names, leaves, rule.name, 0)
    _check_gradients(rule, leaves, call.updates)
    _check_extra(rule, call.extra)
    for guess in range(1, _guesses(kinds)):
        jax.eval_shape(functools.partial(_update_once, rule, call, leaves, guess))
    return _update_once(rule, call, leaves, 0)


def _update_once(rule: AxesRule, call: UpdateCall, leaves: Leaves, guess: int) -> Any:
    kinds = leaf_kinds(rule.axis_names, leaves, rule.name, guess)
    with warnings.catch_warnings():  # `init` warns of guesses; an update never does
        warnings.simplefilter("ignore")
        shapes = jax.eval_shape(rule.tx.init_slots, _whole_shapes(leaves, kinds))
    slots = leaves_of(call.slots)
    owned = slot_kinds(call.slots, shapes, leaves, kinds, rule.name)
    static = {name: one for name, one in call.extra.items() if not _holds_arrays(one)}
    arrays = {name: one for name, one in call.extra.items() if name not in static}
    updates, new, stats = run_partitioned(
        functools.partial(_update_whole, rule.tx, static),
        _parts(leaves, kinds, call.updates),
        _parts(slots, owned, call.slots),
        None if call.params is None else _parts(leaves, kinds, call.params),
        call.step,
        {name: _parts(leaves, kinds, one) for name, one in arrays.items()},
        call.gate,
    )
    stats = jax.tree.map(lambda one: one.array, stats)
    return _arrays(leaves, kinds, updates), _arrays(slots, owned, new), stats


def _update_whole(
    tx: Any,
    static: Mapping[str, Any],
    updates: Updates,
    slots: Slots,
    params: Params | None,
    step: Any,
    extra: Mapping[str, Any],
    gate: Any,
) -> Any:
    """The update that is traced for whole shapes."""
    return tx.update_slots(updates, slots, params, step, {**extra, **static}, gate, with_stats=True)


def _holds_arrays(value: Any) -> bool:
    return all(
        hasattr(one, "shape") or isinstance(one, float | int) for one in jax.tree.leaves(value)
    )


def _arrays(leaves: Leaves, kinds: Sequence[Kind | None], tree: Any) -> Any:
    """The arrays of parts, each cut as its leaf."""
    values = leaves_like(leaves, tree)
    if values is None:  # a transformation that changes the structure
        return jax.tree.map(lambda one: materialize(one).array, tree)
    each = zip(values, kinds, leaves.values, strict=True)
    return tree_of(leaves, [_array(*one) for one in each])


def _array(part: Any, kind: Kind | None, like: Any) -> Any:
    if part is None or kind is None:
        return part.array if isinstance(part, Part) else part
    # A loop expects the types with which it began.
    return vary(_place(part, kind.layout), varying(like))


def _check_gradients(rule: AxesRule, leaves: Leaves, updates: Updates) -> None:
    """Raise where a gradient differs over other axes than its parameter."""
    values = leaves_like(leaves, updates)
    for path, param, grad in zip(leaves.paths, leaves.values, values or (), strict=False):
        if grad is None or not hasattr(param, "shape") or varying(grad) == varying(param):
            continue
        names = tuple(sorted(varying(grad) ^ varying(param)))
        raise StructureError(
            f"{rule.name}: the gradient and the parameter {path!r} differ over other axes: one of "
            f"them is equal along {names}: sum the gradients by jax.lax.psum, or cut both alike"
        )


def _check_extra(rule: AxesRule, extra: Mapping[str, Any]) -> None:
    """Raise where an extra argument has no meaning for whole arrays."""
    for name, value in extra.items():
        if name in rule.tx.needs and callable(value):
            raise GradtxError(
                f"{rule.name}: {name}= is a function of the arrays of this device, and "
                f"{rule.tx.name} calls it with whole ones: update outside of shard_map, under "
                f"jax.jit with shardings"
            )
        if getattr(value, "shape", None) == () and varying(value):
            raise StructureError(
                f"{rule.name}: {name}= differs over {tuple(sorted(varying(value)))}: pass its mean "
                f"over devices, jax.lax.pmean({name}, {sorted(varying(value))[0]!r})"
            )
