"""A definition as a program: a flat list of rules, each with the leaves that it acts on.

Chains, masks and partitions are compiled away: a chain is its members in order, a mask narrows the
leaves of its inside, a partition is its groups one after another, since no two act on the same
leaf. A list of rules is left. Neighbouring rules on arrays run as one kernel per leaf.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from gradtx.definition.types import Params, Slots, Updates
from gradtx.engine.clock import Clock
from gradtx.engine.gradients import are_integers, fit_gradient, floats_alone
from gradtx.engine.roles import warn_of_doubts
from gradtx.engine.rules import Rule
from gradtx.engine.selector import Leaves, Selector, active_leaves, leaves_of, select_all
from gradtx.engine.slot_memory import place_slots
from gradtx.engine.slots import put_slots, slots_at
from gradtx.tree.casts import is_inexact, without_wide_numpy


class BoundRule(NamedTuple):
    """One rule of a program: its data, where its slots are, and which leaves it is for."""

    path: tuple[str, ...]
    rule: Rule
    hyperparams: Mapping[str, Any]
    selectors: tuple[Selector, ...] = ()
    origin: tuple[Any, ...] = ()
    """The definitions that it came from, outermost first."""
    idle: tuple[tuple[Selector, ...], ...] = ()
    """Leaves for which a later rule ignores its update, each set as the selectors that choose
    it.
    """

    @property
    def name(self) -> str:
        """The member in messages: its path in a state."""
        return "/".join(self.path) or self.rule.name

    def mask(self, leaves: Leaves) -> Sequence[bool]:
        """For every leaf whether the rule is for it."""
        chosen = select_all(self.selectors, leaves)
        for selectors in self.idle:
            ignored = select_all(selectors, leaves)
            chosen = [one and not other for one, other in zip(chosen, ignored, strict=True)]
        return chosen

    def active(self, leaves: Leaves, arrays: Leaves | None = None) -> list[bool]:
        """The leaves that the rule changes: arrays of floats that its masks choose."""
        return active_leaves(self.mask(leaves), (arrays or leaves).values)


class Step(NamedTuple):
    """What all rules of one update share."""

    clock: Clock
    params: Leaves | None
    extra: Mapping[str, Any]
    gate: Any = None
    """Whether slots may change; None: they may."""


class Flow(NamedTuple):
    """What flows through a program, from rule to rule."""

    leaves: Leaves
    """The updates."""
    slots: Any
    """The slots of all members, by name."""
    input_grads: Sequence[Any]
    """The gradients as the caller passed them."""
    stats: Mapping[str, Any] = {}
    """What rules concluded of the whole tree, by member and name."""


def without_ignored(rules: Sequence[BoundRule]) -> tuple[BoundRule, ...]:
    """Tell every rule of the leaves for which a later rule ignores its update.

    That holds only while no rule between them looks at the tree.
    """
    found: list[BoundRule] = []
    ignored: tuple[tuple[Selector, ...], ...] = ()
    for bound in reversed(rules):
        if bound.rule.reads_tree:
            ignored = ()
        found.append(bound._replace(idle=ignored))
        if bound.rule.ignores_input:
            ignored = (*ignored, bound.selectors)
    return tuple(reversed(found))


def group_runs(rules: Sequence[BoundRule]) -> tuple[tuple[BoundRule, ...], ...]:
    """Neighbouring rules that run in the same kernels, together."""
    found: list[list[BoundRule]] = []
    for bound in rules:
        if found and bound.rule.joins(found[-1][-1].rule):
            found[-1].append(bound)
        else:
            found.append([bound])
    return tuple(map(tuple, found))


def init_program(rules: Sequence[BoundRule], params: Params, count: Any) -> dict[str, Any]:
    """Make the slots of every member, by name."""
    leaves, clock, slots = leaves_of(params), Clock(count, None, {}), dict[str, Any]()
    leaves = leaves._replace(values=[*map(without_wide_numpy, leaves.values)])
    warn_of_doubts((selector for bound in rules for selector in bound.selectors), leaves)
    for bound in rules:
        own = bound.rule.init(bound, leaves, clock)
        if bound.rule.keeps:
            slots = put_slots(slots, bound.path, own)
    return place_slots(rules, slots)


def update_program(
    program: Sequence[Sequence[BoundRule]],
    updates: Updates,
    slots: Slots,
    params: Params,
    clock: Clock,
    extra: Mapping[str, Any],
    gate: Any,
) -> Flow:
    """Run every rule in turn on the updates."""
    leaves = leaves_of(updates)
    beside = None
    if params is None:
        if are_integers(leaves.values) and not _leaves_alone(program, slots):
            leaves = leaves._replace(values=floats_alone(leaves.values))
    else:
        leaves, beside = _pair_leaves(program, leaves, params)
    step = Step(clock, beside, extra, gate)
    flow = Flow(leaves, slots, leaves.values)
    for run in program:
        if step.params is not None:
            _check_structure(run[0].rule, flow.leaves, step.params)
        flow = run[0].rule.update(run, flow, step)
    return flow


def _leaves_alone(program: Sequence[Sequence[BoundRule]], slots: Slots) -> bool:
    """Whether a rule stores nothing of any leaf: its parameters are integers, or masked."""
    rules = (bound for run in program for bound in run if bound.rule.keeps)
    return any(not jax.tree.leaves(slots_at(slots, bound.path)) for bound in rules)


def _pair_leaves(
    program: Sequence[Sequence[BoundRule]], leaves: Leaves, params: Params
) -> tuple[Leaves, Leaves]:
    """The gradients in dtypes that fit their parameters, and these beside them, leaf by leaf."""
    changes = bool(program) and program[0][0].rule.changes_structure
    if changes:
        beside = leaves_of(params)
        if beside.treedef != leaves.treedef:
            return leaves, beside
    else:
        beside = leaves._replace(values=leaves.match(params, "the parameters"))
    grads = list(leaves.values)
    for index, (grad, param) in enumerate(zip(grads, beside.values, strict=True)):
        dtype = getattr(grad, "dtype", None)  # None: a number of Python's
        is_usual = dtype is not None and is_inexact(grad) and dtype == getattr(param, "dtype", None)
        if not is_usual or (grad.shape != param.shape and not changes):
            grads[index] = fit_gradient(leaves.paths[index], grad, param, same_shape=not changes)
    return leaves._replace(values=grads), beside


def _check_structure(rule: Rule, leaves: Leaves, params: Leaves) -> None:
    if params.treedef != leaves.treedef and not rule.changes_structure:
        leaves.match(params.tree, "the parameters")
