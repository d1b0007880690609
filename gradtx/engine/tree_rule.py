"""Rules on whole trees: for what one array cannot know, and for combinators."""

import dataclasses
import functools
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.definition.errors import GradtxError
from gradtx.definition.types import Params, Slots, Updates
from gradtx.engine.checks import (
    check_extra,
    check_meeting,
    check_tree_slots,
    describe_result,
    explain,
    is_sequence,
)
from gradtx.engine.clock import Clock, clock_at
from gradtx.engine.layers import Stack
from gradtx.engine.leaf_errors import missing_params
from gradtx.engine.multipliers import Multipliers
from gradtx.engine.rules import (
    Child,
    Function,
    Rule,
    all_replica_axes,
    reads_argument,
    select_kwargs,
)
from gradtx.engine.selector import Leaves, active_leaves, leaves_of
from gradtx.engine.slot_form import returned_type
from gradtx.engine.slot_memory import Offload
from gradtx.engine.slots import put_slots, slots_at
from gradtx.engine.storage import (
    Storage,
    decode_tree,
    encode_init_tree,
    encode_tree,
    own_slots,
)
from gradtx.tree.host_memory import fetch, put_back
from gradtx.tree.maps import choose

if TYPE_CHECKING:
    from gradtx.engine.program import BoundRule, Flow, Step

FUNCTIONS_OF_PARAMS = frozenset({"value_fn", "obj_fn", "grad_fn"})
"""The extra arguments that are functions whose first argument is the whole tree of parameters."""


@dataclass(frozen=True)
class TreeRule:
    """A rule on whole trees: its functions, its options, and the members that it runs."""

    name: str
    update_tree: Function
    init_tree: Function | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    members: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    find_children: Function | None = None
    evaluate_tree: Function | None = None
    report_tree: Function | None = None
    extra: tuple[str, ...] = ()
    needs_params: bool = False
    changes_structure: bool = False
    own_clock: bool = False
    own_replica_axes: tuple[str, ...] = ()
    storage: Storage | None = None
    offload: Offload | None = None

    @property
    def keeps(self) -> bool:
        return self.init_tree is not None

    @property
    def keeps_at_root(self) -> bool:
        kind = None if self.init_tree is None else returned_type(self.init_tree)
        return kind is not None and issubclass(kind, dict)

    @property
    def needs(self) -> frozenset[str]:
        inside: list[frozenset[str]] = [one.needs for one in self.members.values()]
        own = frozenset((*self.extra, *(["params"] if self.needs_params else [])))
        return frozenset(own.union(*inside))

    @property
    def replica_axes(self) -> frozenset[str]:
        inside = (all_replica_axes(one) for one in self.members.values())
        return frozenset(self.own_replica_axes).union(*inside)

    @property
    def reads_tree(self) -> bool:
        return True

    @property
    def reads_step(self) -> bool:
        return reads_argument(self.update_tree, 3)

    @property
    def ignores_input(self) -> bool:
        return False

    @property
    def has_evaluation(self) -> bool:
        inside = (member.has_evaluation for member in self.members.values())
        return self.evaluate_tree is not None or any(inside)

    @property
    def values(self) -> dict[str, Any]:
        """What the functions ask for by name, beside hyperparameters."""
        return {**self.options, **self.members}

    def joins(self, before: Rule) -> bool:
        return False

    def init(self, bound: "BoundRule", leaves: Leaves, clock: Clock) -> Any:
        if self.init_tree is None:
            bound.mask(leaves)  # a mask that fits no leaf is an error before the first update
            return None
        values = {**clock.resolve(bound.hyperparams), **self.values}
        params = leaves.narrow(leaves.tree, bound.mask(leaves))
        try:
            slots = self.init_tree(params, **select_kwargs(self.init_tree, values))
        except Exception as error:
            explain(error, self, self.init_tree, params)
            raise
        return encode_init_tree(self.storage, self.name, self.fields_of_members, slots)

    def decode(self, slots: Slots) -> Any:
        """The slots as the rule knows them: JAX's arrays, also where a state was read as NumPy's.

        A rule on a tree runs outside of a kernel, which would make them.
        """
        slots = slots if self.offload is None else fetch(slots)
        own = decode_tree(self.storage, self.name, self.fields_of_members, slots)
        return jax.tree.map(_from_numpy, own)

    @property
    def fields_of_members(self) -> frozenset[str]:
        """The fields in which the slots of members are, by the names that the rule gives them."""
        return frozenset(self.members)

    def update(self, run: "Sequence[BoundRule]", flow: "Flow", step: "Step") -> "Flow":
        (bound,) = run
        if self.needs_params and step.params is None:
            raise missing_params(bound.name)
        check_extra(bound.name, self.extra, step.extra)
        if "grad" in self.extra:
            flow.leaves.match(step.extra["grad"], "grad=")
        if bound.selectors and step.params is not None:
            flow.leaves.match(step.params.tree, "the parameters")
        mask = bound.mask(step.params or flow.leaves)
        old = slots_at(flow.slots, bound.path) if self.keeps else None
        updates, new = self._run(bound, old, mask, flow, step)
        slots = put_slots(flow.slots, bound.path, new) if self.keeps else flow.slots
        return self._flow_on(bound, updates, mask, flow._replace(slots=slots), step)

    def _run(
        self, bound: "BoundRule", old: Any, mask: Sequence[bool], flow: "Flow", step: "Step"
    ) -> tuple[Any, Any]:
        """Call the rule's own function: updates, and its slots as a state holds them."""
        on_host, old = old, old if self.offload is None else fetch(old)
        slots, leaves = self.decode(old), flow.leaves
        clock = self._clock(slots, step.clock)
        extra = self.masked_extra(leaves, step, mask)
        values = {**clock.resolve(bound.hyperparams), **self.values, **extra}
        values |= {"extra": extra, "gate": step.gate}
        check_meeting(self.name, step.gate, self.own_replica_axes)
        params = None if step.params is None else leaves.narrow(step.params.tree, mask)
        kwargs = select_kwargs(self.update_tree, values)
        try:
            result = self.update_tree(
                leaves.narrow(leaves.tree, mask), slots, params, step.clock.step, **kwargs
            )
        except Exception as error:
            explain(error, self, self.update_tree, params)
            raise
        updates, new = self._checked(result, slots)
        if step.gate is not None and self.keeps and "gate" not in kwargs:
            new = choose(step.gate, new, slots)
        args = self.storage, self.name, self.fields_of_members
        new = encode_tree(*args, new, old, step.clock.step, step.gate)
        return updates, new if self.offload is None else put_back(new, on_host)

    def masked_extra(self, leaves: Leaves, step: "Step", mask: Sequence[bool]) -> dict[str, Any]:
        """The extra arguments as a rule under a mask sees them."""
        each = step.extra.items()
        return {name: _masked(name, one, leaves, step.params, mask) for name, one in each}

    @property
    def described(self) -> str:
        """The rule in a message: the builder's name and the function's."""
        return f"{self.name}: {self.update_tree.__name__}"

    def _checked(self, result: Any, old: Any) -> tuple[Any, Any]:
        """The updates and the slots that the rule returned."""
        if not is_sequence(result) or len(result) != 2:
            raise GradtxError(
                f"{self.described} returned {describe_result(result)}: return a pair, "
                f"(updates, slots)"
            )
        updates, slots = result
        check_tree_slots(self.described, slots, old)
        return updates, slots

    def _clock(self, slots: Slots, clock: Clock) -> Clock:
        """The clock that its hyperparameters follow: its member's, where that is its own."""
        return clock_at(self.children(slots, clock.count)[0].count) if self.own_clock else clock

    def _flow_on(
        self, bound: "BoundRule", updates: Updates, mask: Sequence[bool], flow: "Flow", step: "Step"
    ) -> "Flow":
        """The updates of the chosen leaves among those of all others."""
        leaves = flow.leaves
        if (
            self.changes_structure
            and step.params is not None
            and step.params.treedef != leaves.treedef
        ):
            new = leaves_of(updates)
            return flow._replace(leaves=new, input_grads=new.values)
        values = leaves.match(updates, f"the update that {bound.name} returns")
        each = zip(values, active_leaves(mask, leaves.values), leaves.values, strict=True)
        merged = [new if one else old for new, one, old in each]
        return flow._replace(leaves=leaves._replace(values=merged))

    def children(self, slots: Slots, count: Any) -> list[Child]:
        if self.find_children is None:
            return []
        kwargs = select_kwargs(self.find_children, self.values)
        return list(self.find_children(slots, count, **kwargs))

    def evaluate(self, bound: "BoundRule", slots: Slots, leaves: Leaves, count: Any) -> Any:
        params = leaves.narrow(leaves.tree, bound.mask(leaves))
        if self.evaluate_tree is None:
            return _evaluate_children(self.children(self.decode(slots), count), params)
        values = {**Clock(count, None, {}).resolve(bound.hyperparams), **self.values}
        kwargs = select_kwargs(self.evaluate_tree, values)
        return self.evaluate_tree(params, self.decode(slots), count, **kwargs)

    def report(self, slots: Slots) -> dict[str, Any]:
        if self.report_tree is None:
            return {}
        return self.report_tree(slots, **select_kwargs(self.report_tree, self.values))

    def overrides(self, slots: Slots) -> dict[str, Any]:
        return {}

    def own_slots(self, slots: Slots) -> Any:
        """The slots in the rule's own form; None where that is not a NamedTuple."""
        return own_slots(self.name, slots)[0]

    def encoded_once(self, slots: Slots) -> Any:
        """Slots as they are after the storage encoded them once."""
        args = self.storage, self.name, self.fields_of_members
        return decode_tree(*args, encode_init_tree(*args, slots))

    def slot_names(self) -> tuple[str, ...]:
        inside = [name for one in self.members.values() for name in one.slot_names]
        return (
            *inside,
            *(name for name in _own_fields(self.init_tree) if name not in self.members),
        )

    def with_last(self, last: "BoundRule") -> "Rule | None":
        return None

    def with_storage(self, storage: Storage, member: Function) -> "TreeRule":
        members = {name: member(one) for name, one in self.members.items()}
        return dataclasses.replace(self, members=members, storage=storage)

    def with_offload(self, offload: Offload, member: Function) -> "TreeRule":
        members = {name: member(one) for name, one in self.members.items()}
        return dataclasses.replace(self, members=members, offload=offload)

    def with_multipliers(self, multipliers: Multipliers, member: Function) -> "TreeRule":
        return dataclasses.replace(
            self, members={name: member(one) for name, one in self.members.items()}
        )

    def with_stack(self, stack: Stack, member: Function) -> "TreeRule":
        members = {name: member(one) for name, one in self.members.items()}
        return dataclasses.replace(self, members=members)


def _from_numpy(leaf: Any) -> Any:
    """An array of NumPy's as one of JAX's; anything else as it is."""
    return jnp.asarray(leaf) if isinstance(leaf, np.ndarray | np.generic) else leaf


def _evaluate_children(children: Sequence[Child], params: Params) -> Any:
    """The parameters to evaluate of the last child that has any of its own."""
    result = params
    for child in children:
        if child.member.has_evaluation:
            result = child.member.evaluate_slots(child.slots, params, child.count)
    return result


def _own_fields(init: Function | None) -> tuple[str, ...]:
    """The fields of the NamedTuple that a rule on trees keeps, by the annotation of its `init`."""
    hint = None if init is None else typing.get_type_hints(init).get("return")
    kinds = typing.get_args(hint) if typing.get_origin(hint) is dict else (hint,)
    return next(
        (getattr(one, "_fields", ()) for one in reversed(kinds) if hasattr(one, "_fields")), ()
    )


def _masked(
    name: str, value: Any, leaves: Leaves, params: Leaves | None, mask: Sequence[bool]
) -> Any:
    """An extra argument as a rule under a mask sees it."""
    if name in FUNCTIONS_OF_PARAMS and params is not None and not all(mask):
        narrowed = functools.partial(_on_whole, value, leaves, params.values, mask)
        # So that a rule can see which other arguments the function takes.
        vars(narrowed)["__wrapped__"] = value
        return narrowed
    return leaves.narrow(value, mask)


def _on_whole(
    function: Any,
    leaves: Leaves,
    values: Sequence[Any],
    mask: Sequence[bool],
    params: Params,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """A function of all parameters as one of those under a mask; the others stay as they are."""
    each = zip(leaves.treedef.flatten_up_to(params), values, mask, strict=True)
    whole = leaves._replace(values=[new if one else old for new, old, one in each]).tree
    return leaves.narrow(function(whole, *args, **kwargs), mask)
