"""A definition as a program: a flat list of rules, each with the leaves that it acts on.

Chains, masks and partitions are compiled away: a chain is its members in order, a mask narrows
the leaves of what is inside it, a partition is its groups one after another, since no two touch
the same leaf. What is left is a list of rules, and neighbouring leaf rules run as one kernel per
leaf."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.definition.errors import StateError, StructureError
from gradtx.definition.schedule import Schedule, value_at
from gradtx.engine.lifter import (
    ActiveRule,
    check_extra,
    init_leaf,
    init_tree_slots,
    missing_params,
    update_leaves,
)
from gradtx.engine.rules import LeafRule, Rule, TreeRule, keyword_names, select_kwargs
from gradtx.engine.selector import Leaves, Selector
from gradtx.engine.sharded import update_spread
from gradtx.engine.slots import put_slots, slots_at
from gradtx.engine.storage import decode_tree, encode_init_tree, encode_tree
from gradtx.tree.casts import as_array, is_inexact
from gradtx.tree.maps import choose
from gradtx.tree.paths import describe_difference, flatten, leaf_paths, repeated

FUNCTIONS_OF_PARAMS = frozenset({"value_fn", "obj_fn", "grad_fn"})
"""The extra arguments that are functions whose first argument is the whole tree of parameters."""


class BoundRule(NamedTuple):
    """One rule of a program: where its slots are, and which leaves it is for."""

    path: tuple[str, ...]
    rule: LeafRule | TreeRule
    selectors: tuple[Selector, ...]
    idle: tuple[tuple[Selector, ...], ...] = ()
    """Leaves for which a later rule absorbs what this one would do, each set as the selectors that
    all choose it.
    """
    origin: LeafRule | TreeRule | None = None
    """The rule as its builder made it, where a storage was put on it."""

    @property
    def name(self) -> str:
        return "/".join(self.path) or self.rule.name

    @property
    def as_built(self) -> "BoundRule":
        """The item without a storage on its rule: what the data of a definition says."""
        return self if self.origin is None else self._replace(rule=self.origin, origin=None)


def without_idle(items: Sequence[BoundRule]) -> tuple[BoundRule, ...]:
    """Every leaf rule told of the leaves that a later rule absorbs, with nothing between that looks
    at the tree.
    """
    found: list[BoundRule] = []
    absorbed: tuple[tuple[Selector, ...], ...] = ()
    for item in reversed(items):
        if isinstance(item.rule, TreeRule) or item.rule.rule.reads_tree:
            absorbed = ()
        found.append(item._replace(idle=absorbed))
        if isinstance(item.rule, LeafRule) and item.rule.rule.ignores_input:
            absorbed = (*absorbed, item.selectors)
    return tuple(reversed(found))


class Clock(NamedTuple):
    """One step count for every member: updates made so far, and the number of this one."""

    count: Any
    step: Any

    def resolve(self, hyperparams: Mapping[str, Any], known: dict[int, Any]) -> dict[str, Any]:
        """Hyperparameters at this count; a schedule that several members share is evaluated once."""
        for value in hyperparams.values():
            if isinstance(value, Schedule) and id(value) not in known:
                known[id(value)] = value_at(value, self.count)
        return {name: known.get(id(value), value) for name, value in hyperparams.items()}


def tick(count: Any) -> Clock:
    """The clock of the update after `count`; it saturates at the largest integer, it never wraps."""
    limit = jnp.iinfo(jnp.asarray(count).dtype).max
    return Clock(count, jnp.where(count < limit, count + 1, limit))


def runs(items: Sequence[BoundRule]) -> tuple[tuple[BoundRule, ...], ...]:
    """Neighbouring leaf rules together; one that first looks at the whole tree begins a run, a tree
    rule is one.
    """
    found: list[list[BoundRule]] = []
    for item in items:
        if found and _joins(found[-1][-1].rule, item.rule):
            found[-1].append(item)
        else:
            found.append([item])
    return tuple(map(tuple, found))


def _joins(before: LeafRule | TreeRule, rule: LeafRule | TreeRule) -> bool:
    """Whether a rule runs in the same kernels as the one before it."""
    if not isinstance(before, LeafRule) or not isinstance(rule, LeafRule):
        return False
    return not rule.rule.reads_tree and not before.rule.is_spread and not rule.rule.is_spread


def init_program(items: Iterable[BoundRule], params: Any, count: Any) -> dict[str, Any]:
    """The slots of every member, by name."""
    leaves, known, slots = leaves_of(params), {}, {}
    for item in items:
        hyperparams = Clock(count, None).resolve(item.rule.hyperparams, known)
        chosen = _chosen(item, leaves)
        if item.rule.keeps:
            init = _init_leaves if isinstance(item.rule, LeafRule) else _init_tree
            slots = put_slots(slots, item.path, init(item, hyperparams, chosen, leaves))
        else:
            _as_matrices(
                item, leaves, _active(chosen, leaves.values)
            )  # what is no matrix is told of now, not at the first step
    return slots


def _init_leaves(
    item: BoundRule, hyperparams: Mapping[str, Any], chosen: Sequence[bool], leaves: Leaves
) -> Any:
    assert isinstance(item.rule, LeafRule)
    rule, member = (
        item.rule.rule,
        ActiveRule(item.name, item.rule, hyperparams, _active(chosen, leaves.values)),
    )
    values = [
        value if hasattr(value, "dtype") else as_array(value) if active else value
        for value, active in zip(leaves.values, member.active, strict=True)
    ]
    shared = None if rule.shared is None else init_tree_slots(member, values)
    if rule.kept is None:
        return shared
    stored = [None] * len(values) if rule.storage is None else rule.storage.leaf_policy(leaves)
    layouts = (
        [None] * len(values)
        if rule.matrices is None
        else rule.matrices.layouts(leaves, member.active, item.name)
    )
    each = zip(member.active, values, leaves.paths, stored, layouts, strict=True)
    rows = [
        init_leaf(member, value, path, chosen, layout) if active else None
        for active, value, path, chosen, layout in each
    ]
    return _merge(_pack(rule.kept, rows, leaves), shared)


def _merge(slots: Any, shared: Any) -> Any:
    """What one rule keeps, as it stands in the state: slots by array, shared scalars, or a dict of
    both.
    """
    if slots is None or shared is None:
        return shared if slots is None else slots
    return {**slots._asdict(), **shared._asdict()}


def _init_tree(
    item: BoundRule, hyperparams: Mapping[str, Any], chosen: Sequence[bool], leaves: Leaves
) -> Any:
    assert isinstance(item.rule, TreeRule) and item.rule.init is not None
    given = select_kwargs(item.rule.init, {**hyperparams, **item.rule.options})
    return encode_init_tree(
        item.rule, item.rule.init(_narrow(leaves.tree, leaves, chosen), **given)
    )


def _reshapes(run: Sequence[BoundRule]) -> bool:
    """Whether a rule takes gradients that are not like the parameters."""
    return isinstance(run[0].rule, TreeRule) and run[0].rule.changes_structure


class Call(NamedTuple):
    """What every run of one update is told: the time, the extra arguments, and whether slots may
    change (None: they may).
    """

    clock: Clock
    extra: Mapping[str, Any]
    gate: Any
    known: dict[int, Any]


def update_program(
    program: Sequence[Sequence[BoundRule]], updates: Any, slots: Any, params: Any, call: Call
) -> Any:
    """Every run in turn: the new updates and slots, and what leaf rules concluded of the whole
    tree, by member.
    """
    leaves = leaves_of(updates)
    attach = (
        None
        if params is None
        else leaves_of(params)
        if program and _reshapes(program[0])
        else _beside(leaves, params)
    )
    input_grad, seen = leaves.values, dict[str, Any]()
    for run in program:
        if attach is not None and attach.treedef != leaves.treedef and not _reshapes(run):
            _match(leaves, attach.tree, "the parameters")
        if isinstance(run[0].rule, LeafRule):
            leaves, slots, concluded = _update_leaves(run, leaves, slots, attach, input_grad, call)
            seen |= concluded
        else:
            before = leaves.treedef
            leaves, slots = _update_tree(run[0], leaves, slots, attach, call)
            input_grad = input_grad if leaves.treedef == before else leaves.values
    return leaves.tree, slots, seen


def _update_leaves(
    run: Sequence[BoundRule],
    leaves: Leaves,
    slots: Any,
    params: Leaves | None,
    input_grad: Sequence[Any],
    call: Call,
) -> Any:
    members, columns = [], []
    for item in run:
        assert isinstance(item.rule, LeafRule)
        active = _active(_chosen(item, params or leaves), leaves.values)
        column, shared = columns_of(item, item.rule.rule, slots, leaves, active)
        values = call.clock.resolve(item.rule.hyperparams, call.known)
        members.append(
            ActiveRule(
                item.name,
                item.rule,
                values,
                active,
                shared,
                call.extra,
                *_as_matrices(item, params or leaves, active),
            )
        )
        columns.append(column)
    run_on = update_spread if members[0].rule.rule.is_spread else update_leaves
    new, kept, totals, concluded = run_on(
        members,
        leaves.paths,
        leaves.values,
        columns,
        None if params is None else params.values,
        input_grad,
        call.clock.step,
        call.gate,
    )
    for item, rows, shared in zip(run, kept, totals, strict=True):
        if item.rule.keeps:
            kind = item.rule.rule.kept if isinstance(item.rule, LeafRule) else None
            slots = put_slots(
                slots,
                item.path,
                _merge(None if kind is None else _pack(kind, rows, leaves), shared),
            )
    return (
        leaves._replace(values=new),
        slots,
        {item.name: more for item, more in zip(run, concluded, strict=True) if more},
    )


def _as_matrices(
    item: BoundRule, leaves: Leaves, active: Sequence[bool]
) -> tuple[Sequence[Any], Sequence[Any]]:
    """For every leaf how it is matrices, and their turns; nothing for a rule on arrays."""
    matrices = item.rule.rule.matrices if isinstance(item.rule, LeafRule) else None
    if matrices is None:
        return (), ()
    layouts = matrices.layouts(leaves, active, item.name)
    return layouts, matrices.turns(layouts)


def _update_tree(
    item: BoundRule, leaves: Leaves, slots: Any, params: Leaves | None, call: Call
) -> Any:
    rule, extra = item.rule, call.extra
    assert isinstance(rule, TreeRule)
    if rule.needs_params and params is None:
        raise missing_params(item.name)
    check_extra(item.name, rule.extra, extra)
    if params is not None and params.treedef != leaves.treedef and item.selectors:
        _match(leaves, params.tree, "the parameters")
    chosen = _chosen(item, params or leaves)
    attach = None if params is None else _narrow(params.tree, leaves, chosen)
    held = slots_at(slots, item.path) if rule.keeps else None
    kept = decode_tree(rule, held)
    given = {
        **_values(rule, kept, call),
        **rule.options,
        **(
            told := {
                name: _told(name, value, leaves, params, chosen) for name, value in extra.items()
            }
        ),
        "extra": told,
        "gate": call.gate,
    }
    updates, new = rule.update(
        _narrow(leaves.tree, leaves, chosen),
        kept,
        attach,
        call.clock.step,
        **select_kwargs(rule.update, given),
    )
    if call.gate is not None and rule.keeps and "gate" not in keyword_names(rule.update):
        new = choose(call.gate, new, kept)
    new = encode_tree(rule, new, held, call.clock.step, call.gate)
    if rule.changes_structure and params is not None and params.treedef != leaves.treedef:
        return leaves_of(updates), put_slots(slots, item.path, new) if rule.keeps else slots
    values = _match(leaves, updates, f"the update that {item.name} returns")
    merged = [
        value if gate else old
        for value, gate, old in zip(
            values, _active(chosen, leaves.values), leaves.values, strict=True
        )
    ]
    return leaves._replace(values=merged), put_slots(slots, item.path, new) if rule.keeps else slots


def _values(rule: TreeRule, slots: Any, call: Call) -> dict[str, Any]:
    """The hyperparameters of a rule on trees, at the clock of its one member if that has one of its
    own.
    """
    if not rule.own_clock:
        return call.clock.resolve(rule.hyperparams, call.known)
    return tick(rule.members(slots, call.clock.count)[0].count).resolve(rule.hyperparams, {})


def leaves_of(tree: Any) -> Leaves:
    values, treedef = flatten(tree)
    paths = leaf_paths(treedef)
    if (twice := repeated(paths)) is not None:
        raise StructureError(
            f"two leaves have the same path {twice!r}; rename a key, so that paths tell leaves apart"
        )
    return Leaves(treedef, paths, values)


def _match(leaves: Leaves, tree: Any, what: str) -> Sequence[Any]:
    """The leaves of another tree, in the order of ours; or an error that names the first
    difference.
    """
    try:
        return leaves.treedef.flatten_up_to(tree)
    except (ValueError, TypeError, KeyError):
        difference = describe_difference(
            leaves.paths, leaf_paths(flatten(tree)[1]), "the gradients", what
        )
        raise StructureError(
            f"the gradients and {what} differ in structure: {difference}"
        ) from None


def _beside(leaves: Leaves, params: Any) -> Leaves:
    """The parameters, leaf by leaf beside the gradients, with equal shapes."""
    values = _match(leaves, params, "the parameters")
    for path, grad, param in zip(leaves.paths, leaves.values, values, strict=True):
        if is_inexact(grad) and jnp.shape(grad) != getattr(
            param, "shape", () if isinstance(param, float | complex) else None
        ):
            found = getattr(param, "shape", None)
            has = type(param).__name__ if found is None else tuple(found)
            raise StructureError(
                f"gradient at {path!r} has shape {tuple(jnp.shape(grad))}, its parameter {has}: "
                "pass the parameters that the gradients were taken with respect to"
            )
    return leaves._replace(values=values)


def _chosen(item: BoundRule, leaves: Leaves) -> Sequence[bool]:
    chosen = _all(item.selectors, leaves)
    for selectors in item.idle:
        chosen = [
            mine and not absorbed
            for mine, absorbed in zip(chosen, _all(selectors, leaves), strict=True)
        ]
    return chosen


def chosen_leaves(item: BoundRule, leaves: Leaves) -> list[bool]:
    """The leaves that the rule of an item acts on."""
    return _active(_chosen(item, leaves), leaves.values)


def shown(item: BoundRule, leaves: Leaves) -> Any:
    """A tree as the rule of an item sees it: None at the leaves that it is not for."""
    return _narrow(leaves.tree, leaves, _chosen(item, leaves))


def _all(selectors: Sequence[Selector], leaves: Leaves) -> Sequence[bool]:
    masks = [selector(leaves) for selector in selectors]
    return (
        [all(answers) for answers in zip(*masks, strict=True)]
        if masks
        else [True] * len(leaves.values)
    )


def _active(chosen: Sequence[bool], values: Sequence[Any]) -> list[bool]:
    """The chosen leaves that are arrays of floats: None, integers and keys are left alone."""
    return [choice and is_inexact(value) for choice, value in zip(chosen, values, strict=True)]


def _narrow(tree: Any, leaves: Leaves, chosen: Sequence[bool]) -> Any:
    """A tree like the gradients with None at what was not chosen; anything else as it is."""
    if all(chosen):
        return tree
    values, treedef = flatten(tree)
    if treedef != leaves.treedef:
        return tree
    return jax.tree.unflatten(
        treedef, [value if choice else None for value, choice in zip(values, chosen, strict=True)]
    )


def _told(
    name: str, value: Any, leaves: Leaves, params: Leaves | None, chosen: Sequence[bool]
) -> Any:
    """An extra argument as a rule under a mask sees it."""
    if name in FUNCTIONS_OF_PARAMS and params is not None and not all(chosen):
        return functools.partial(_on_whole, value, leaves, params.values, chosen)
    return _narrow(value, leaves, chosen)


def _on_whole(
    function: Any,
    leaves: Leaves,
    values: Sequence[Any],
    chosen: Sequence[bool],
    params: Any,
    *args: Any,
) -> Any:
    """A function of the parameters, of those under a mask: the others stand as they are."""
    moved = leaves.treedef.flatten_up_to(params)
    whole = [new if choice else old for new, old, choice in zip(moved, values, chosen, strict=True)]
    return _narrow(function(jax.tree.unflatten(leaves.treedef, whole), *args), leaves, chosen)


def _pack(kind: type[Any], rows: Sequence[Any], leaves: Leaves) -> Any:
    """Slots by leaf as one tree per field."""
    fields = range(len(kind._fields))
    return kind(
        *(
            jax.tree.unflatten(
                leaves.treedef, [None if row is None else row[field] for row in rows]
            )
            for field in fields
        )
    )


def columns_of(
    item: BoundRule,
    rule: Rule,
    slots: Any,
    leaves: Leaves,
    active: Sequence[bool],
    what: str = "the gradients",
) -> tuple[list[Any], Any]:
    """What a rule keeps, out of a state: one tree per field as slots by leaf, and its shared
    scalars. `what` says what the leaves are.
    """
    if not rule.keeps:
        return [None] * len(leaves.values), None
    kept = slots_at(slots, item.path)
    kind, shared = rule.kept, None
    if rule.shared is not None:
        fields = (
            kept
            if isinstance(kept, Mapping)
            else kept._asdict()
            if isinstance(kept, rule.shared)
            else {}
        )
        if set(fields) != {*rule.shared._fields, *(kind._fields if kind else ())}:
            raise _not_ours(item, rule.shared, kept)
        shared = rule.shared(*(fields[name] for name in rule.shared._fields))
        kept = None if kind is None else kind(*(fields[name] for name in kind._fields))
    if kind is None:
        return [None] * len(leaves.values), shared
    if type(kept) is not kind:
        raise _not_ours(item, kind, kept)
    return _unpack_leaves(item, kind, kept, leaves, active, what), shared


def _not_ours(item: BoundRule, kind: type[Any], kept: Any) -> StateError:
    return StateError(
        f"member {item.name} keeps {kind.__name__}, its state holds {type(kept).__name__}: this state belongs to another definition"
    )


def _unpack_leaves(
    item: BoundRule, kind: type[Any], kept: Any, leaves: Leaves, active: Sequence[bool], what: str
) -> list[Any]:
    columns = [
        _match_slots(leaves, tree, item.name, name, what)
        for name, tree in zip(kind._fields, kept, strict=True)
    ]
    rows = list(zip(*columns, strict=True)) if columns else []
    for row, path, gate in zip(rows, leaves.paths, active, strict=True):
        if gate and all(slot is None for slot in row):
            raise StateError(
                f"member {item.name} acts on {path!r}, for which its state holds nothing: this state was made with another mask"
            )
    return [kind(*row) if gate else row for row, gate in zip(rows, active, strict=True)]


def _match_slots(leaves: Leaves, tree: Any, member: str, field: str, what: str) -> Sequence[Any]:
    try:
        return leaves.treedef.flatten_up_to(tree)
    except (ValueError, TypeError, KeyError):
        difference = describe_difference(
            leaves.paths, leaf_paths(flatten(tree)[1]), what, "the state"
        )
        raise StateError(
            f"slot {field!r} of member {member} was made for other parameters: {difference}"
        ) from None
