"""Wrapping rules: a transformation around another one, with slots and a clock of its own."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from gradtx.definition.errors import GradtxError
from gradtx.definition.types import Params, Slots, Updates
from gradtx.engine.checks import check_tree_slots, describe_result, describe_value, explain
from gradtx.engine.clock import Clock, next_count
from gradtx.engine.rules import Child, Function, select_kwargs
from gradtx.engine.selector import Leaves
from gradtx.engine.slots import attach, detach
from gradtx.engine.storage import decode_tree, encode_init_tree, encode_tree
from gradtx.engine.tree_rule import TreeRule
from gradtx.tree.host_memory import fetch, put_back
from gradtx.tree.maps import choose

if TYPE_CHECKING:
    from gradtx.engine.program import BoundRule, Flow, Step


class Member(NamedTuple):
    """The transformation inside a wrapper, at this step: `update` runs it."""

    tx: Any
    slots: Any
    count: Any
    """The updates that it has made: what its clock says."""
    step: Any = None
    """The number of its next update; None: one more than `count`."""
    extra: Mapping[str, Any] = {}
    """The extra arguments of `update`, by name."""
    gate: jax.Array | None = None
    """Whether this step changes anything, as a wrapper further out decided; None: it does."""
    stats: Mapping[str, Any] = {}
    """After `update`: what its rules concluded of the whole tree, by member and name."""

    def update(
        self,
        updates: Updates,
        params: Params,
        *,
        gate: Any = None,
        extra: Mapping[str, Any] | None = None,
    ) -> "tuple[Any, Member]":
        """Run one step of the member: its updates, and the member after the step.

        Where `gate` is False the member keeps its slots, and its updates mean nothing.
        """
        extra = self.extra if extra is None else extra
        step = next_count(self.count) if self.step is None else self.step
        updates, slots, stats = self.tx.update_slots(
            updates, self.slots, params, step, extra, self.both(gate), with_stats=True
        )
        return updates, self._replace(slots=slots, stats=stats)

    def both(self, gate: Any) -> Any:
        """This gate and the one of wrappers further out; None where neither is set."""
        if gate is None or self.gate is None:
            return self.gate if gate is None else gate
        return gate & self.gate

    def evaluate(self, params: Params) -> Any:
        """The parameters to evaluate, as `eval_params` returns them for the member."""
        return self.tx.evaluate_slots(self.slots, params, self.count)


@dataclass(frozen=True)
class WrapRule(TreeRule):
    """A rule around one transformation, whose own slots are stored beside the member's."""

    member_params: Function | None = None
    """The parameters as the member sees them."""
    member_slots: Function | None = None
    """The slots of the member as a state holds them."""
    is_transparent: bool = False
    """Whether the updates of the member leave it unchanged."""
    find_overrides: Function | None = None
    """The hyperparameters of the member that the own slots hold."""
    own_evaluation: bool = False
    """Whether `evaluate_tree` reads parameters that the wrapper itself averages."""
    clock: str | None = None
    """The field of the own slots that counts the updates of the member."""
    slot: str = ""
    """The name that the own slots are stored under."""
    slot_fields: tuple[str, ...] | None = None
    """Where wrappers of one kind share that name: the fields that are this one's."""

    @property
    def tx(self) -> Any:
        """The transformation inside."""
        return self.members["inner"]

    @property
    def keeps(self) -> bool:
        return True

    @property
    def keeps_at_root(self) -> bool:
        return True

    @property
    def has_evaluation(self) -> bool:
        return self.own_evaluation or self.tx.has_evaluation

    @property
    def fields_of_members(self) -> frozenset[str]:
        return frozenset()

    def init(self, bound: "BoundRule", leaves: Leaves, clock: Clock) -> Any:
        values = {**clock.resolve(bound.hyperparams), **self.options}
        params = leaves.narrow(leaves.tree, bound.mask(leaves))
        seen = params
        if self.member_params is not None:
            seen = self.member_params(params, **select_kwargs(self.member_params, values))
        slots = self.tx.init_slots(seen)
        if self.member_slots is not None:
            slots = self.member_slots(slots, params, **select_kwargs(self.member_slots, values))
        if self.init_tree is None:
            return slots
        kwargs = select_kwargs(self.init_tree, {**values, "inner": self.tx})
        try:
            own = self.init_tree(params, **kwargs)
        except Exception as error:
            explain(error, self, self.init_tree, params)
            raise
        return self._attach(slots, encode_init_tree(self.storage, self.name, frozenset(), own))

    def member(self, slots: Slots, count: Any) -> tuple[Member, Any]:
        """The member with its part of the slots, and the wrapper's own slots."""
        if self.init_tree is None:
            return Member(self.tx, slots, count), None
        held, stored = self._detach(slots)
        own = decode_tree(self.storage, self.name, frozenset(), stored)
        count = count if self.clock is None else getattr(own, self.clock)
        return Member(self.tx, held, count), own

    def _attach(self, slots: Slots, own: Slots) -> dict[str, Any]:
        """The slots of the member, and beside them those of the wrapper."""
        if self.slot_fields is None:
            return attach(slots, self.slot, own)
        return {**slots, self.slot: {**slots.get(self.slot, {}), **own}}

    def _detach(self, slots: Slots) -> tuple[Any, Any]:
        """The slots of the member, and those of the wrapper."""
        held, own = detach(slots, self.slot)
        if self.slot_fields is None:
            return held, own
        inner = fields_under(self.slot, self.tx) - {*self.slot_fields}
        others = {name: one for name, one in own.items() if name in inner}
        # An entry of the user's own belongs to nobody, and is carried along.
        mine = {name: one for name, one in own.items() if name not in inner}
        return ({**held, self.slot: others} if others else held), mine

    def _run(
        self, bound: "BoundRule", old: Any, mask: Sequence[bool], flow: "Flow", step: "Step"
    ) -> tuple[Any, Any]:
        on_host, old = old, old if self.offload is None else self._fetch_own(old)
        member, own = self.member(old, step.clock.count)
        extra = self.masked_extra(flow.leaves, step, mask)
        number = step.clock.step if self.clock is None else None
        member = member._replace(step=number, extra=extra, gate=step.gate)
        values = {**self._clock(old, step.clock).resolve(bound.hyperparams), **self.options}
        values |= {**extra, "inner": member, "extra": extra, "gate": step.gate}
        kwargs = select_kwargs(self.update_tree, values)
        leaves = flow.leaves
        params = None if step.params is None else leaves.narrow(step.params.tree, mask)
        updates = leaves.narrow(leaves.tree, mask)
        try:
            result = self.update_tree(updates, own, params, step.clock.step, **kwargs)
        except Exception as error:
            explain(error, self, self.update_tree, params)
            raise
        updates, member, new = self._checked_triple(result, own)
        if self.init_tree is None:
            return updates, member.slots
        new = new if "gate" in kwargs else choose(step.gate, new, own)
        before = self._detach(old)[1]
        stored = encode_tree(
            self.storage, self.name, frozenset(), new, before, step.clock.step, step.gate
        )
        if self.offload is not None:
            stored = put_back(stored, self._detach(on_host)[1])
        return updates, self._attach(member.slots, stored)

    def _fetch_own(self, slots: Slots) -> Any:
        """The slots, the wrapper's own on the device; the member fetches its own."""
        if self.init_tree is None:
            return slots
        held, own = self._detach(slots)
        return self._attach(held, fetch(own))

    def _checked_triple(self, result: Any, old: Any) -> tuple[Any, Member, Any]:
        """The updates, the member and the own slots that the rule returned."""
        is_triple = isinstance(result, tuple) and len(result) == 3
        if not is_triple or not isinstance(result[1], Member):
            shown = f"{describe_value(result[1])} second" if is_triple else describe_result(result)
            raise GradtxError(
                f"{self.described} returned {shown}: return (updates, inner, own), with the member "
                f"that inner.update returned"
            )
        updates, member, new = result
        check_tree_slots(self.described, new, old)
        return updates, member, new

    def children(self, slots: Slots, count: Any) -> list[Child]:
        member, _ = self.member(slots, count)
        return [Child(member.tx, member.slots, member.count)]

    def evaluate(self, bound: "BoundRule", slots: Slots, leaves: Leaves, count: Any) -> Any:
        params = leaves.narrow(leaves.tree, bound.mask(leaves))
        near = slots if self.offload is None else self._fetch_own(slots)
        member, own = self.member(near, count)
        if self.evaluate_tree is None:
            return member.evaluate(params)
        values = {**Clock(count, None, {}).resolve(bound.hyperparams), **self.options}
        kwargs = select_kwargs(self.evaluate_tree, {**values, "inner": member})
        return self.evaluate_tree(params, own, **kwargs)

    def own_slots(self, slots: Slots) -> Any:
        own = None if self.init_tree is None else self._detach(slots)[1]
        return own if hasattr(own, "_fields") else None

    def encoded_once(self, slots: Slots) -> Any:
        if self.init_tree is None:
            return slots
        args, (held, own) = (self.storage, self.name, frozenset[str]()), self._detach(slots)
        return self._attach(held, decode_tree(*args, encode_init_tree(*args, own)))

    def report(self, slots: Slots) -> dict[str, Any]:
        if self.report_tree is None:
            return {}
        return self.report_tree(
            self._detach(slots)[1], **select_kwargs(self.report_tree, self.options)
        )

    def overrides(self, slots: Slots) -> dict[str, Any]:
        if self.find_overrides is None:
            return {}
        kwargs = select_kwargs(self.find_overrides, self.options)
        return self.find_overrides(self._detach(slots)[1], **kwargs)

    def with_last(self, last: "BoundRule") -> "WrapRule | None":
        if not self.is_transparent:
            return None
        return dataclasses.replace(self, members={"inner": self.tx.followed_by(last)})

    def with_storage(self, storage: Any, member: Function) -> "WrapRule":
        return dataclasses.replace(self, members={"inner": member(self.tx)}, storage=storage)


def fields_under(slot: str, tx: Any) -> frozenset[str]:
    """The fields that wrappers in a transformation store under a name that they share."""
    wrappers = [bound.rule for bound in tx.rules if not bound.path]
    fields = [
        fields_under(slot, one.tx) | frozenset((one.slot_fields or ()) if one.slot == slot else ())
        for one in wrappers
        if isinstance(one, WrapRule)
    ]
    return frozenset[str]().union(*fields)
