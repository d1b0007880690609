"""The lifter: runs leaf rules over the leaves of a tree, and owns what every method needs.

Precision, dtypes of slots, which leaves a rule acts on, one random key per leaf, one kernel per
leaf for a whole run of neighbouring rules, and the messages: all of it is written here, once.
"""

import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.definition.errors import (
    MissingExtraError,
    MissingParamsError,
    StateError,
    StructureError,
)
from gradtx.definition.show import show_array
from gradtx.engine.gate import gated_update
from gradtx.engine.matrix_layout import Layout
from gradtx.engine.matrix_rules import bind_rule, init_matrices
from gradtx.engine.rules import Function, LeafRule, Rule, keyword_names, select_kwargs
from gradtx.engine.storage import Storage, update_with_storage
from gradtx.tree.casts import as_array, cast_inexact, compute_dtype, real_dtype
from gradtx.tree.kernels import call_rows, group, kernel, signature
from gradtx.tree.keys import leaf_key, path_hash
from gradtx.tree.maps import choose
from gradtx.tree.rounding import OF_PARAMS, Noise, noise, order_after, rounded_to, straight_through


class ActiveRule(NamedTuple):
    """One leaf rule of a run: its name, its values at this step, the leaves it acts on, and what it
    shares between them.
    """

    name: str
    rule: LeafRule
    hyperparams: Mapping[str, Any]
    active: Sequence[bool]
    shared: Any = None
    extra: Mapping[str, Any] = MappingProxyType({})
    layouts: Sequence[Any] = ()
    """How the leaves are matrices, for a rule on these."""
    turns: Sequence[Any] = ()

    def rule_at(self, index: int) -> Rule:
        """The rule as the kernel of a leaf has it."""
        return self.rule.rule.laid_out(self.layouts[index]) if self.layouts else self.rule.rule


class LeafArgs(NamedTuple):
    """What the kernel of one leaf is given."""

    grad: jax.Array
    slots: tuple[Any, ...]
    param: jax.Array | None
    leaf: np.uint32 | None
    input_grad: jax.Array | None
    turns: tuple[Any, ...]


def init_leaf(
    member: ActiveRule, param: Any, path: str, stored: Any = None, layout: Layout | None = None
) -> Any:
    """The slots of one leaf: strongly typed arrays, none of them the parameter itself; None for
    what this leaf does without.
    """
    rule = member.rule.rule
    assert rule.init is not None
    _check_real(member, param, path)
    slots = init_matrices(rule.init, layout, param, **select_kwargs(rule.init, _given(member)))
    slots = type(slots)(*(None if slot is None else _own(slot, param) for slot in slots))
    return slots if rule.storage is None else rule.storage.first(slots, param, stored)


def init_tree_slots(member: ActiveRule, values: Sequence[Any]) -> Any:
    """The scalars kept for the whole tree, in the widest precision that any of its leaves is
    computed in.
    """
    init = member.rule.rule.init_tree_slots
    assert init is not None
    dtype = _widest([value for value, active in zip(values, member.active, strict=True) if active])
    shared = init(**select_kwargs(init, _given(member)))
    return type(shared)(*(_own(cast_inexact(value, dtype), None) for value in shared))


def _given(member: ActiveRule) -> dict[str, Any]:
    return {**member.hyperparams, **member.rule.rule.options.values}


def _widest(arrays: Sequence[Any]) -> Any:
    """The real dtype that computes with all of some arrays."""
    return functools.reduce(
        jnp.promote_types, {real_dtype(jnp.result_type(array)) for array in arrays}, jnp.float32
    )


def _own(slot: Any, param: Any) -> jax.Array:
    """An array that may be donated and carried: not the parameter's buffer, not weakly typed."""
    array = jnp.asarray(slot)
    return (
        jnp.array(array, dtype=array.dtype, copy=True)
        if slot is param or array.weak_type
        else array
    )


def _check_real(member: ActiveRule, array: Any, path: str) -> None:
    if member.rule.rule.real_only and jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise StructureError(
            f"{member.name} is not defined for complex numbers, and {path!r} is {show_array(array)}: leave that leaf out with masked(...)"
        )


def check_extra(name: str, select_kwargs: Sequence[str], given: Mapping[str, Any]) -> None:
    """Raise when an extra argument is missing, or when a loss is no scalar."""
    lacking = [one for one in select_kwargs if one not in given]
    if lacking:
        call = ", ".join(f"{one}=..." for one in select_kwargs)
        raise MissingExtraError(
            f"{name} needs {', '.join(lacking)}: call update(grads, state, params, {call}); make_step passes what it can"
        )
    if "value" in select_kwargs and jnp.shape(given["value"]) != ():
        raise StructureError(
            f"{name} needs value= as a scalar, and it has shape {jnp.shape(given['value'])}: pass the mean loss"
        )


def missing_params(name: str) -> MissingParamsError:
    return MissingParamsError(
        f"{name} needs the parameters: call update(grads, state, params) with the parameters that the gradients belong to"
    )


def update_leaves(
    members: Sequence[ActiveRule],
    paths: Sequence[str],
    updates: Sequence[Any],
    slots: Sequence[Sequence[Any]],
    params: Sequence[Any] | None,
    input_grad: Sequence[Any],
    step: Any,
    gate: jax.Array | None = None,
) -> tuple[list[Any], list[list[Any]], list[Any], list[Mapping[str, Any]]]:
    """Run neighbouring rules: the new updates; for every member its new slots by leaf, its new
    shared scalars, and what it concluded.

    Where `acts` is False slots and shared scalars stay as they were, and the updates mean nothing.
    """
    programs = [
        tuple(n for n, member in enumerate(members) if member.active[index])
        for index in range(len(updates))
    ]
    rows = {
        index: make_row(
            [members[n] for n in program],
            paths[index],
            updates[index],
            [slots[n][index] for n in program],
            params and params[index],
            input_grad[index],
            tuple(members[n].turns[index] if members[n].turns else None for n in program),
        )
        for index, program in enumerate(programs)
        if program
    }
    concluded = [
        _conclude(n, members, programs, rows, paths, step, gate) for n in range(len(members))
    ]
    told = [
        select_kwargs(member.rule.rule.update, {**member.hyperparams, **more})
        for member, (more, _) in zip(members, concluded, strict=True)
    ]
    new_updates, new_slots = list(updates), [list(column) for column in slots]
    for (program, rules, *_), chosen in _alike(programs, rows, members).items():
        together = [members[n] for n in program]
        results = _call(
            _kernel(rules),
            (step, gate, tuple(told[n] for n in program)),
            chosen,
            rows,
            paths,
            together,
        )
        for index, (update, kept) in zip(chosen, results, strict=True):
            new_updates[index] = update
            for n, slot in zip(program, kept, strict=True):
                new_slots[n][index] = slot
    return (
        new_updates,
        new_slots,
        [shared for _, shared in concluded],
        [more for more, _ in concluded],
    )


def _alike(
    programs: Sequence[tuple[int, ...]], rows: Mapping[int, LeafArgs], members: Sequence[ActiveRule]
) -> dict[Any, list[int]]:
    """The leaves whose rows may share kernel calls, by program, its rules and shapes."""
    order = list(rows)
    rules = {index: tuple(members[n].rule_at(index) for n in programs[index]) for index in order}
    kinds = group((programs[index], rules[index], *_shapes(rows[index])) for index in order)
    return {kind: [order[place] for place in places] for kind, places in kinds.items()}


def _call(
    function: Any,
    shared: Any,
    chosen: Sequence[int],
    rows: Mapping[int, LeafArgs],
    paths: Sequence[str],
    members: Sequence[ActiveRule],
) -> Any:
    try:
        return call_rows(function, shared, [rows[index] for index in chosen])
    except (TypeError, ValueError) as error:
        raise _located(error, members, rows[chosen[0]], paths[chosen[0]], chosen[0]) from None


def _conclude(
    n: int,
    members: Sequence[ActiveRule],
    programs: Sequence[tuple[int, ...]],
    rows: Mapping[int, LeafArgs],
    paths: Sequence[str],
    step: Any,
    gate: jax.Array | None,
) -> tuple[dict[str, Any], Any]:
    """What a rule makes of the whole tree, by name, and its shared scalars."""
    member = members[n]
    rule, told = member.rule.rule, member.hyperparams
    if rule.conclude is None:
        return {}, member.shared
    mine = {
        index: row._replace(slots=(row.slots[programs[index].index(n)],))
        for index, row in rows.items()
        if n in programs[index]
    }
    if not mine:
        return {}, member.shared
    check_extra(member.name, rule.extra, member.extra)
    found: dict[int, Any] = {}
    if rule.measure is not None:
        asked = select_kwargs(
            rule.measure, {**told, **(member.shared._asdict() if member.shared else {})}
        )
        for chosen in _alike(programs, mine, members).values():
            results = _call(_measuring(rule), (step, asked), chosen, mine, paths, [member])
            found |= dict(zip(chosen, results, strict=True))
    measures = [found[index] for index in sorted(found)]
    together = type(measures[0])(*zip(*measures, strict=True)) if measures else None
    dtype = np.dtype(_widest([row.grad for row in mine.values()]))
    given = select_kwargs(
        rule.conclude, {**told, **{name: member.extra[name] for name in rule.extra}}
    )
    return kernel(_concluding(rule, dtype))((step, gate, given), (together, member.shared))


@functools.lru_cache(maxsize=4096)
def _measuring(rule: Rule) -> Any:
    return functools.partial(measure_row, rule)


def measure_row(rule: Rule, shared: Any, row: LeafArgs) -> Any:
    """The kernel of one leaf that comes before: its scalars."""
    assert rule.measure is not None
    step, values = shared
    grad = row.grad.astype(compute_dtype(row.grad.dtype))
    grad, param, slots, named = in_compute(
        rule, rule.measure, row, grad, row.slots[0], values, step
    )
    return rule.measure(
        grad,
        slots,
        param,
        step.astype(real_dtype(row.grad.dtype)),
        **named,
        **select_kwargs(rule.measure, rule.options.values),
    )


@functools.lru_cache(maxsize=4096)
def _concluding(rule: Rule, dtype: Any) -> Any:
    return functools.partial(conclude_tree, rule, dtype)


def conclude_tree(rule: Rule, dtype: Any, given: Any, kept: Any) -> tuple[dict[str, Any], Any]:
    """The kernel of the whole tree: what the scalars of its leaves come to, in the widest precision
    among them.
    """
    assert rule.conclude is not None
    (step, gate, values), (found, shared) = given, kept
    found, values = jax.tree.map(lambda value: cast_inexact(value, dtype), (found, values))
    told, new = rule.conclude(
        found,
        shared,
        step.astype(dtype),
        **values,
        **select_kwargs(rule.conclude, rule.options.values),
    )
    new = None if shared is None else encode_slots(new, shared)
    return told, choose(gate, new, shared)


def _located(
    error: Exception, members: Sequence[ActiveRule], row: LeafArgs, path: str, index: int
) -> Exception:
    """What a kernel raised, with the leaf it was for: slots of other shapes, or else the rule's own
    error.
    """
    for member, slots in zip(members, row.slots, strict=True):
        if slots is None:
            continue
        layout = member.layouts[index] if member.layouts else None
        fitting = jax.eval_shape(
            functools.partial(init_leaf, member, path=path, layout=layout), row.grad
        )
        for name, kept, fits in zip(slots._fields, slots, fitting, strict=True):
            if getattr(kept, "shape", None) != getattr(fits, "shape", None):
                return StateError(
                    f"slot {name!r} of member {member.name} at {path!r} is {None if kept is None else show_array(kept)}, "
                    f"for a gradient {show_array(row.grad)}: this state was made for other parameters, call tx.init(params) again"
                )
    error.add_note(
        f"raised at {path!r}, a gradient {show_array(row.grad)}, in the rules of {', '.join(member.name for member in members)}"
    )
    return error


def make_row(
    members: Sequence[ActiveRule],
    path: str,
    grad: Any,
    slots: Sequence[Any],
    param: Any,
    input_grad: Any,
    turns: tuple[Any, ...] = (),
) -> LeafArgs:
    grad = as_array(grad)
    needing = [member for member in members if member.rule.rule.needs_params]
    if needing and param is None:
        raise missing_params(needing[0].name)
    for member in members:
        _check_real(member, grad, path)
    random, wants_input_grad = (
        any(getattr(member.rule.rule, ask) for member in members)
        for ask in ("is_random", "wants_input_grad")
    )
    attach = as_array(param) if needing else None
    return LeafArgs(
        grad,
        tuple(slots),
        attach,
        path_hash(path) if random else None,
        as_array(input_grad) if wants_input_grad else None,
        turns,
    )


def _shapes(row: LeafArgs) -> tuple[Any, ...]:
    return signature(row.grad), None if row.param is None else signature(row.param)


@functools.lru_cache(maxsize=4096)
def _kernel(rules: tuple[Rule, ...]) -> Any:
    return functools.partial(run_rules, rules)


def run_rules(
    rules: tuple[Rule, ...], shared: Any, row: LeafArgs
) -> tuple[jax.Array, tuple[Any, ...]]:
    """The kernel of one leaf, which a storage may run part by part."""
    storages = [
        rule.storage
        for rule, slots in zip(rules, row.slots, strict=True)
        if rule.storage is not None and slots is not None
    ]
    return (
        storages[0].run(run_whole, rules, shared, row)
        if storages
        else run_whole(rules, shared, row)
    )


def run_whole(
    rules: tuple[Rule, ...], shared: Any, row: LeafArgs, position: Any = None
) -> tuple[jax.Array, tuple[Any, ...]]:
    """Every rule in turn in compute precision, then back to the dtypes given; `position` says where
    the row's entries are in their leaf.
    """
    step, gate, told = shared
    update = row.grad.astype(compute_dtype(row.grad.dtype))
    random = None if row.leaf is None else noise(step, row.leaf)._replace(position=position)
    kept: list[Any] = []
    for number, (rule, values, slots) in enumerate(zip(rules, told, row.slots, strict=True)):
        if rule.returns_params:
            update = update.astype(row.grad.dtype).astype(update.dtype)
        grad, param, decoded, named = in_compute(
            rule, rule.update, row, update, slots, {**values, "noise": random}, step
        )
        rule_update = bind_rule(rule, named, row.turns[number] if row.turns else None)
        if rule.storage is None or slots is None:
            update, new = gated_update(
                gate, rule_update, grad, decoded, param, step.astype(grad.real.dtype)
            )
            kept.append(None if slots is None else encode_slots(new, slots))
        else:
            settle = functools.partial(
                stored_slots, rule.storage, slots, decoded, random, number, gate
            )
            update, new = update_with_storage(
                settle, rule_update, grad, decoded, param, step.astype(grad.real.dtype)
            )
            kept.append(new)
        _check_shape("the update", update, row.grad)
    if not rules[-1].returns_params or row.param is None:
        return update.astype(row.grad.dtype), tuple(kept)
    bits = (
        random.sixteen(update.shape, OF_PARAMS)
        if random is not None and "noise" in keyword_names(rules[-1].update)
        else None
    )
    param = rounded_to(update, row.param.dtype, bits)
    return param, tuple(kept) if position is not None else jax.tree.map(
        functools.partial(_behind, param), tuple(kept)
    )


def _behind(param: jax.Array, kept: jax.Array) -> jax.Array:
    """A slot, written after the parameter if it is one of 16 bits in the parameter's shape."""
    return (
        order_after(kept, param)
        if kept.dtype in (jnp.bfloat16, jnp.float16) and kept.shape == param.shape and kept.size
        else kept
    )


def stored_slots(
    storage: Storage, old: Any, decoded: Any, random: Noise | None, number: int, gate: Any, new: Any
) -> tuple[Any, Any]:
    """What a storage keeps of new slots, or the old where the step is left out, and what the update
    is to see of it.
    """
    kept = storage.encode(encode_slots(new, decoded), old, random, number)
    if gate is not None:
        kept = jax.tree.map(functools.partial(jnp.where, gate), kept, old)
    seen = storage.seen(kept, decoded)
    each = zip(seen, new, decoded, strict=True)
    return kept, type(seen)(
        *(
            None if one is None else straight_through(one.astype(was.dtype), made)
            for one, made, was in each
        )
    )


def in_compute(
    rule: Rule,
    function: Function,
    row: LeafArgs,
    grad: jax.Array,
    slots: Any,
    values: Mapping[str, Any],
    step: Any,
) -> tuple[Any, Any, Any, dict[str, Any]]:
    """What a rule's function is given, in compute precision: gradient, parameter, slots, and values
    by name.
    """
    dtype, real = compute_dtype(row.grad.dtype), real_dtype(row.grad.dtype)
    asked = select_kwargs(function, values)
    given = {name: asked.pop(name) for name in ("noise",) if name in asked}
    named = {
        name: leaf_key(value, step, row.leaf) if name == "key" else jnp.asarray(value, real)
        for name, value in asked.items()
    }
    if row.input_grad is not None and "input_grad" in keyword_names(function):
        named["input_grad"] = row.input_grad.astype(dtype)
    if slots is not None:
        slots = decoded_slots(rule, slots, row.grad.shape, dtype)
    return (
        grad,
        None if row.param is None else cast_inexact(row.param, dtype),
        slots,
        {**named, **given},
    )


def decoded_slots(rule: Rule, slots: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """The slots of a leaf as its rule knows them, in compute precision."""
    if rule.storage is not None:
        slots = rule.storage.decode(slots, shape)
    return type(slots)(*(None if slot is None else cast_inexact(slot, dtype) for slot in slots))


def _check_shape(what: str, new: Any, old: jax.Array) -> None:
    if jnp.shape(new) != old.shape:
        raise ValueError(
            f"{what} of a rule must keep its shape {old.shape}, and became {jnp.shape(new)}"
        )


def encode_slots(new: Any, old: Any) -> Any:
    """New slots in the dtypes, and with the shapes, of the old; None where the old is."""
    for name, mine, theirs in zip(old._fields, new, old, strict=True):
        if (mine is None) != (theirs is None):
            raise ValueError(
                f"slot {name!r} of a rule is kept or not as `init` says, and became {'None' if mine is None else 'an array'}"
            )
        if theirs is not None:
            _check_shape(f"slot {name!r}", mine, theirs)
    return type(old)(
        *(
            None if theirs is None else jnp.asarray(mine).astype(theirs.dtype)
            for mine, theirs in zip(new, old, strict=True)
        )
    )
