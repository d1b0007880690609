"""Neighbouring rules on arrays, run together: one kernel per leaf, one trace per shape.

What every method needs is here, once: which leaves a rule acts on, one kernel for a whole run of
rules, what a rule concludes of the whole tree, and messages that name rule and leaf.
"""

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gradtx.definition.types import DTypeLike
from gradtx.engine.any_shape import Program, pattern_of, specialize
from gradtx.engine.checks import check_extra
from gradtx.engine.kernel import (
    LeafArgs,
    Shared,
    conclude_tree,
    measure_array,
    run_rules,
    run_stored,
)
from gradtx.engine.layer_calls import scalars_of_layers
from gradtx.engine.leaf_errors import located, missing_params
from gradtx.engine.leaf_init import check_real, widest_dtype
from gradtx.engine.multipliers import Factors, at_leaf, split_by_factors
from gradtx.engine.offload import KernelCalls, any_on_host, fetch_args, run_calls
from gradtx.engine.owner_groups import is_cut, leaf_cuts, owner_groups
from gradtx.engine.rules import Function, select_kwargs
from gradtx.engine.sharded import sharded_kernel
from gradtx.engine.slots import join_tree_slots, pack, put_slots, slots_at, unpack
from gradtx.tree.casts import as_array
from gradtx.tree.host_memory import fetch, put_back
from gradtx.tree.kernels import call_rows, group, kernel, signature, stack_scalars
from gradtx.tree.keys import path_hash

if TYPE_CHECKING:
    from gradtx.engine.leaf_rule import LeafRule
    from gradtx.engine.program import BoundRule, Flow, Step


class ActiveRule(NamedTuple):
    """One rule of a run at this step: the leaves it acts on, their slots, and its values."""

    name: str
    rule: "LeafRule"
    active: Sequence[bool]
    columns: Sequence[Any]
    """The slots of every leaf."""
    tree_slots: Any
    hyperparams: Mapping[str, Any]
    layouts: Sequence[Any]
    """How every leaf is matrices, or layers; empty for a rule on whole arrays."""
    offsets: Sequence[Any]
    factors: Sequence[Factors] = ()
    """The multipliers of its values at every leaf; empty where they are the same for all."""


class Result(NamedTuple):
    """What one rule of a run leaves behind."""

    columns: list[Any]
    tree_slots: Any
    stats: Mapping[str, Any]


def update_leaves(
    rule: "LeafRule",
    run: "Sequence[BoundRule]",
    flow: "Flow",
    step: "Step",
    to_owners: bool | None = None,
) -> "Flow":
    """Run a rule and its neighbours on every leaf that they act on.

    A rule whose matrices go to owners runs by itself.
    """
    if to_owners is None:  # a loop, no function: most steps pass by
        for bound in run:
            if getattr(bound.rule, "may_spread", False):
                for part, spreads in _parts(run, flow):
                    flow = update_leaves(rule, part, flow, step, spreads)
                return flow
    members = [_activate(bound, flow, step) for bound in run]
    work = update_sharded if to_owners else update_arrays
    updates, results = work(members, flow, step)
    slots, stats = flow.slots, dict(flow.stats)
    for bound, member, result in zip(run, members, results, strict=True):
        form = member.rule.stored_form
        if member.rule.keeps:
            own = None if form is None else pack(form, result.columns, flow.leaves)
            slots = put_slots(slots, bound.path, join_tree_slots(own, result.tree_slots))
        if result.stats:
            stats[bound.name] = result.stats
    return flow._replace(leaves=flow.leaves._replace(values=updates), slots=slots, stats=stats)


def _parts(run: "Sequence[BoundRule]", flow: "Flow") -> "list[tuple[Sequence[BoundRule], bool]]":
    """The run in parts: a rule whose matrices go to owners is a part of its own."""
    leaves = flow.leaves
    is_known = any(map(is_cut, leaves.values, leaves.paths))
    parts: list[tuple[list[BoundRule], bool]] = []
    for bound in run:
        rule: Any = bound.rule
        to_owners = rule.is_sharded or (rule.may_spread and is_known)
        if to_owners or not parts or parts[-1][1]:
            parts.append(([], to_owners))
        parts[-1][0].append(bound)
    return [(tuple(part), to_owners) for part, to_owners in parts]


def _activate(bound: "BoundRule", flow: "Flow", step: "Step") -> ActiveRule:
    """A rule with everything that it needs at this step."""
    rule: Any = bound.rule
    like = step.params or flow.leaves
    active = bound.active(like, flow.leaves)
    columns, tree_slots = [None] * len(active), None
    if rule.keeps:
        own = slots_at(flow.slots, bound.path)
        columns, tree_slots = unpack(
            bound, rule.stored_form, rule.tree_kind, own, flow.leaves, active
        )
    layouts = rule.layouts(bound, like, active)
    hyperparams = step.clock.resolve(bound.hyperparams)
    offsets = rule.offsets(layouts, step.clock)
    factors = () if rule.multipliers is None else rule.multipliers.factors(bound, like)
    return ActiveRule(
        bound.name, rule, active, columns, tree_slots, hyperparams, layouts, offsets, factors
    )


def update_arrays(
    members: Sequence[ActiveRule], flow: "Flow", step: "Step"
) -> tuple[list[Any], list[Result]]:
    """Run the rules: the new updates, and for every rule its new slots by leaf."""
    programs = list(map(_numbers, zip(*(member.active for member in members), strict=True)))
    args = leaf_args(members, programs, flow, step)
    ends = [_conclude(n, members, programs, args, flow, step) for n in range(len(members))]
    kwargs = [
        select_kwargs(member.rule.update_array, {**member.hyperparams, **stats})
        for member, (stats, _) in zip(members, ends, strict=True)
    ]
    updates, columns = list(flow.leaves.values), [list(member.columns) for member in members]
    kinds = _kinds(members, programs, args)
    numbers: dict[tuple[int, ...], dict[Program, Any]] = {}
    offloaded: list[KernelCalls] = []
    patterns = Counter((*kind[:2], pattern_of(args[n[0]].grad.shape)) for kind, n in kinds.items())
    for (program, rules, *_), indices in kinds.items():
        shared = Shared(step.clock.step, step.gate, tuple(kwargs[n] for n in program))
        ours = [members[n] for n in program]
        function, values = _kernel(rules), shared
        shapes = patterns[program, rules, pattern_of(args[indices[0]].grad.shape)]
        if shapes > 1 or len(indices) > 1:
            # Two groups may have equal rules, and never share their numbers.
            known = numbers.setdefault(program, {})
            special = specialize(rules, shared, args[indices[0]], known)
            function, values = special or (function, values)
        if any(one.rule.offload for one in ours) and any_on_host(args[n] for n in indices):
            offloaded.append(KernelCalls(function, values, indices, ours, program))
            continue
        results = _call(function, values, indices, args, ours, flow)
        _put_results(program, indices, results, updates, columns)
    run = functools.partial(_call, flow=flow)
    for calls, results in run_calls(offloaded, args, step.clock.step, run) if offloaded else ():
        _put_results(calls.program, calls.indices, results, updates, columns)
    return updates, [
        Result(column, tree_slots, stats)
        for column, (stats, tree_slots) in zip(columns, ends, strict=True)
    ]


def _put_results(
    program: Sequence[int],
    indices: Sequence[int],
    results: Sequence[Any],
    updates: list[Any],
    columns: Sequence[list[Any]],
) -> None:
    """Put the updates and the new slots of some leaves into the places of the old."""
    for index, (update, slots) in zip(indices, results, strict=True):
        updates[index] = update
        for n, slot in zip(program, slots, strict=True):
            columns[n][index] = slot


def update_sharded(
    members: Sequence[ActiveRule], flow: "Flow", step: "Step"
) -> tuple[list[Any], list[Result]]:
    """Run one rule whose matrices go to the devices that own them; other leaves stay."""
    (member,) = members
    rule: Any = member.rule
    old = leaf_args(members, [(0,) if one else () for one in member.active], flow, step)
    cuts = leaf_cuts(rule.matrices.shard, flow.leaves.paths, old, member.name)
    rest = [one and n not in cuts for n, one in enumerate(member.active)]
    updates, (result,) = update_arrays([member._replace(active=rest)], flow, step)
    args = fetch_args({n: old[n] for n in cuts}) if rule.offload else old
    shared = Shared(
        step.clock.step, step.gate, (select_kwargs(rule.update_array, member.hyperparams),)
    )
    for one, own in split_by_factors(rule, member.factors, cuts):
        for indices, lies, plan in owner_groups(one, member.layouts, own, args):
            results = sharded_kernel(one, lies, plan)(shared, [args[n] for n in indices])
            for index, (update, (slots,)) in zip(indices, results, strict=True):
                updates[index] = update
                (before,) = old[index].slots
                result.columns[index] = put_back(slots, before) if rule.offload else slots
    return updates, [result]


@functools.lru_cache(maxsize=1024)
def _numbers(active: tuple[bool, ...]) -> tuple[int, ...]:
    """The rules of a run that act on a leaf, by their numbers."""
    return tuple(number for number, one in enumerate(active) if one)


class Reads(NamedTuple):
    """What the rules that act on a leaf read beside the gradient."""

    params: bool
    is_random: bool
    input_grad: bool
    matrices: bool

    @classmethod
    def of(cls, members: Sequence[ActiveRule], step: "Step") -> "Reads":
        """Look at the rules; an error where the parameters are missing."""
        rules = [member.rule for member in members]
        needing = [member.name for member in members if member.rule.needs_params]
        if needing and step.params is None:
            raise missing_params(needing[0])
        return cls(
            bool(needing),
            any(rule.is_random for rule in rules),
            any(rule.reads_input_grad for rule in rules),
            any(member.layouts for member in members),
        )


def leaf_args(
    members: Sequence[ActiveRule], programs: Sequence[tuple[int, ...]], flow: "Flow", step: "Step"
) -> dict[int, LeafArgs]:
    """The arrays that the kernel of every leaf reads, by the leaf's number."""
    leaves, args = flow.leaves, dict[int, LeafArgs]()
    reads = {one: Reads.of([members[n] for n in one], step) for one in set(programs) if one}
    params = step.params.values if step.params is not None else leaves.values
    real_only = [n for n, member in enumerate(members) if member.rule.real_only]
    for index, program in enumerate(programs):
        if not program:
            continue
        grad, read, path = as_array(leaves.values[index]), reads[program], leaves.paths[index]
        for n in real_only:
            if n in program:
                check_real(members[n].rule, members[n].name, grad, path)
        args[index] = LeafArgs(
            grad,
            tuple([members[n].columns[index] for n in program]),
            as_array(params[index]) if read.params else None,
            path_hash(path) if read.is_random else None,
            as_array(flow.input_grads[index]) if read.input_grad else None,
            _offsets(members, program, index) if read.matrices else (),
        )
    return args


def _offsets(
    members: Sequence[ActiveRule], program: tuple[int, ...], index: int
) -> tuple[Any, ...]:
    return tuple(members[n].offsets[index] if members[n].offsets else None for n in program)


def _kinds(
    members: Sequence[ActiveRule],
    programs: Sequence[tuple[int, ...]],
    args: Mapping[int, LeafArgs],
) -> dict[Any, list[int]]:
    """The leaves whose kernels are the same: equal rules, shapes, dtypes and placements."""
    plain = {one: tuple(members[n].rule for n in one) for one in set(programs)}
    has_layouts = any(member.layouts or member.factors for member in members)
    kinds: dict[Any, list[int]] = {}
    for index, one in args.items():
        program = programs[index]
        rules = _rules_at(members, program, index) if has_layouts else plain[program]
        param = None if one.param is None else signature(one.param)
        kinds.setdefault((program, rules, signature(one.grad), param), []).append(index)
    return kinds


def _rules_at(
    members: Sequence[ActiveRule], program: tuple[int, ...], index: int
) -> "tuple[LeafRule, ...]":
    """The rules as the kernel of one leaf has them: with the layout of its matrices, and with its
    multipliers.
    """
    each = (members[n] for n in program)
    plain = [(one, one.rule.at(one.layouts[index] if one.layouts else None)) for one in each]
    return tuple(at_leaf(rule, one.factors[index]) if one.factors else rule for one, rule in plain)


@functools.lru_cache(maxsize=4096)
def _kernel(rules: "tuple[LeafRule, ...]") -> Any:
    is_stored = any(rule.storage is not None for rule in rules)
    return functools.partial(run_stored if is_stored else run_rules, rules)


def _call(
    function: Any,
    shared: Any,
    indices: Sequence[int],
    args: Mapping[int, LeafArgs],
    members: Sequence[ActiveRule],
    flow: "Flow",
) -> Any:
    """Call a kernel for some leaves; an error names the first of them."""
    try:
        return call_rows(function, shared, [args[index] for index in indices])
    except Exception as error:
        first, path = indices[0], flow.leaves.paths[indices[0]]
        leaf_error = located(error, members, args[first], path, first)
        raise leaf_error from error.__cause__


def _conclude(
    n: int,
    members: Sequence[ActiveRule],
    programs: Sequence[tuple[int, ...]],
    args: Mapping[int, LeafArgs],
    flow: "Flow",
    step: "Step",
) -> tuple[dict[str, Any], Any]:
    """What a rule concludes of the whole tree, by name, and its new tree slots."""
    member, rule = members[n], members[n].rule
    if rule.conclude is None:
        return {}, member.tree_slots
    mine = {
        index: one._replace(slots=(one.slots[programs[index].index(n)],))
        for index, one in args.items()
        if n in programs[index]
    }
    if not mine:
        return {}, member.tree_slots
    old = member.tree_slots
    if rule.offload:
        mine = mine if rule.measure is None else fetch_args(mine)
        member = member._replace(tree_slots=fetch(old))
    check_extra(member.name, rule.extra, step.extra)
    measures = _measure(member, n, programs, mine, flow, step)
    dtype = np.dtype(widest_dtype([one.grad for one in mine.values()]))
    extra = {name: step.extra[name] for name in rule.extra}
    kwargs = select_kwargs(rule.conclude, {**member.hyperparams, **extra})
    run = kernel(_concluding(rule, rule.conclude, dtype))
    stats, new = run((step.clock.step, step.gate, kwargs), (measures, member.tree_slots))
    return stats, put_back(new, old) if rule.offload else new


def _measure(
    member: ActiveRule,
    n: int,
    programs: Sequence[tuple[int, ...]],
    mine: Mapping[int, LeafArgs],
    flow: "Flow",
    step: "Step",
) -> Any:
    """The measures of all leaves, as one tuple per field; None where the rule takes none."""
    if member.rule.measure is None:
        return None
    tree_slots = member.tree_slots._asdict() if member.tree_slots else {}
    values = select_kwargs(member.rule.measure, {**member.hyperparams, **tree_slots})
    found: dict[int, Any] = {}
    layouts = member.layouts or [None] * len(flow.leaves.values)
    kinds = group(
        (layouts[n], signature(one.grad), None if one.param is None else signature(one.param))
        for n, one in mine.items()
    )
    order = list(mine)
    for (layout, *_), places in kinds.items():
        indices = [order[place] for place in places]
        shared, rule = (step.clock.step, values), member.rule
        rule = rule if layout is None else rule.at(layout)
        results = _call(_measuring(rule, rule.measure), shared, indices, mine, [member], flow)
        found |= dict(zip(indices, results, strict=True))
    rows = [found[index] for index in sorted(found)]
    columns = zip(*rows, strict=True)
    if any(layouts):
        return type(rows[0])(*map(scalars_of_layers, columns))
    return type(rows[0])(*map(stack_scalars, columns))


@functools.lru_cache(maxsize=4096)
def _measuring(rule: "LeafRule", measure: Function) -> Any:
    return functools.partial(measure_array, rule, measure)


@functools.lru_cache(maxsize=4096)
def _concluding(rule: "LeafRule", conclude: Function, dtype: DTypeLike) -> Any:
    return functools.partial(conclude_tree, rule, conclude, dtype)
