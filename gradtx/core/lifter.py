"""The lifter: runs leaf rules over the leaves of a tree, and owns what every method needs.

Precision, dtypes of slots, which leaves a rule acts on, one random key per leaf, one kernel per
leaf for a whole run of neighbouring rules, and the messages: all of it is written here, once.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.errors import MissingParamsError, StateError, StructureError
from gradtx.core.rules import LeafRule, Rule, wanted
from gradtx.core.show import show_array
from gradtx.tree.casts import as_array, cast_inexact, compute_dtype, real_dtype
from gradtx.tree.kernels import call_rows, group, signature
from gradtx.tree.keys import leaf_key, path_hash


class Member(NamedTuple):
    """One leaf rule of a run: its name, its values at this step, and the leaves it acts on."""

    name: str
    rule: LeafRule
    hyperparams: Mapping[str, Any]
    active: Sequence[bool]


class Row(NamedTuple):
    """What the kernel of one leaf is given."""

    grad: jax.Array
    slots: tuple[Any, ...]
    param: jax.Array | None
    leaf: np.uint32 | None
    raw: jax.Array | None


def init_leaf(member: Member, param: Any, path: str) -> Any:
    """The slots of one leaf: strongly typed arrays, none of them the parameter itself."""
    init = member.rule.rule.init
    assert init is not None
    _check_real(member, param, path)
    slots = init(param, **wanted(init, {**member.hyperparams, **member.rule.rule.options.values}))
    return type(slots)(*(_own(slot, param) for slot in slots))


def _own(slot: Any, param: Any) -> jax.Array:
    """An array that may be donated and carried: not the parameter's buffer, not weakly typed."""
    array = jnp.asarray(slot)
    return jnp.array(array, dtype=array.dtype, copy=True) if slot is param or array.weak_type else array


def _check_real(member: Member, array: Any, path: str) -> None:
    if member.rule.rule.real_only and jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise StructureError(
            f"{member.name} is not defined for complex numbers, and {path!r} is {show_array(array)}: leave that leaf out with masked(...)"
        )


def missing_params(name: str) -> MissingParamsError:
    return MissingParamsError(
        f"{name} needs the parameters: call update(grads, state, params) with the parameters that the gradients belong to"
    )


def update_leaves(
    members: Sequence[Member],
    paths: Sequence[str],
    updates: Sequence[Any],
    slots: Sequence[Sequence[Any]],
    params: Sequence[Any] | None,
    raw: Sequence[Any],
    step: Any,
) -> tuple[list[Any], list[list[Any]]]:
    """Run neighbouring rules: the new updates, and for every member its new slots by leaf."""
    programs = [tuple(n for n, member in enumerate(members) if member.active[index]) for index in range(len(updates))]
    told = [_told(member, updates) for member in members]
    rows = {
        index: _row(
            [members[n] for n in program],
            paths[index],
            updates[index],
            [slots[n][index] for n in program],
            params and params[index],
            raw[index],
        )
        for index, program in enumerate(programs)
        if program
    }
    new_updates, new_slots = list(updates), [list(column) for column in slots]
    order = list(rows)
    for (program, *_), places in group((programs[index], *_shapes(rows[index])) for index in order).items():
        chosen = [order[place] for place in places]
        shared = step, tuple(told[n] for n in program)
        try:
            results = call_rows(_kernel(tuple(members[n].rule.rule for n in program)), shared, [rows[index] for index in chosen])
        except (TypeError, ValueError) as error:
            raise _located(error, [members[n] for n in program], rows[chosen[0]], paths[chosen[0]]) from None
        for index, (update, kept) in zip(chosen, results, strict=True):
            new_updates[index] = update
            for n, slot in zip(program, kept, strict=True):
                new_slots[n][index] = slot
    return new_updates, new_slots


def _located(error: Exception, members: Sequence[Member], row: Row, path: str) -> Exception:
    """What a kernel raised, with the leaf it was for: slots of other shapes, or else the rule's own error."""
    for member, slots in zip(members, row.slots, strict=True):
        if slots is None:
            continue
        fitting = jax.eval_shape(functools.partial(init_leaf, member, path=path), row.grad)
        for name, kept, fits in zip(slots._fields, slots, fitting, strict=True):
            if kept.shape != fits.shape:
                return StateError(
                    f"slot {name!r} of member {member.name} at {path!r} is {show_array(kept)}, "
                    f"for a gradient {show_array(row.grad)}: this state was made for other parameters, call tx.init(params) again"
                )
    error.add_note(f"raised at {path!r}, a gradient {show_array(row.grad)}, in the rules of {', '.join(member.name for member in members)}")
    return error


def _told(member: Member, updates: Sequence[Any]) -> dict[str, Any]:
    """What a rule is told by name: its hyperparameters, and what it reduces the whole tree to."""
    rule, told = member.rule.rule, dict(member.hyperparams)
    if rule.reduce is not None and any(member.active):
        chosen = [as_array(leaf) for leaf, active in zip(updates, member.active, strict=True) if active]
        told |= rule.reduce(chosen, **wanted(rule.reduce, {**told, **rule.options.values}))
    return wanted(rule.update, told)


def _row(members: Sequence[Member], path: str, grad: Any, slots: Sequence[Any], param: Any, raw: Any) -> Row:
    grad = as_array(grad)
    needing = [member for member in members if member.rule.rule.needs_params]
    if needing and param is None:
        raise missing_params(needing[0].name)
    for member in members:
        _check_real(member, grad, path)
    random, wants_raw = (any(getattr(member.rule.rule, ask) for member in members) for ask in ("is_random", "wants_raw"))
    beside = as_array(param) if needing else None
    return Row(grad, tuple(slots), beside, path_hash(path) if random else None, as_array(raw) if wants_raw else None)


def _shapes(row: Row) -> tuple[Any, ...]:
    return signature(row.grad), None if row.param is None else signature(row.param)


@functools.lru_cache(maxsize=4096)
def _kernel(rules: tuple[Rule, ...]) -> Any:
    return functools.partial(run_rules, rules)


def run_rules(rules: tuple[Rule, ...], shared: Any, row: Row) -> tuple[jax.Array, tuple[Any, ...]]:
    """The kernel of one leaf: every rule in turn in compute precision, then back to the dtypes given."""
    step, told = shared
    dtype, real = compute_dtype(row.grad.dtype), real_dtype(row.grad.dtype)
    update, param = row.grad.astype(dtype), None if row.param is None else cast_inexact(row.param, dtype)
    kept: list[Any] = []
    for rule, values, slots in zip(rules, told, row.slots, strict=True):
        named = {name: leaf_key(value, step, row.leaf) if name == "key" else jnp.asarray(value, real) for name, value in values.items()}
        if rule.wants_raw and row.raw is not None:
            named["raw"] = row.raw.astype(dtype)
        decoded = None if slots is None else type(slots)(*(cast_inexact(slot, dtype) for slot in slots))
        update, new = rule.update(update, decoded, param, step.astype(real), **named, **wanted(rule.update, rule.options.values))
        kept.append(None if slots is None else _encode(new, slots))
        _check_shape("the update", update, row.grad)
    return update.astype(row.grad.dtype), tuple(kept)


def _check_shape(what: str, new: Any, old: jax.Array) -> None:
    if jnp.shape(new) != old.shape:
        raise ValueError(f"{what} of a rule must keep its shape {old.shape}, and became {jnp.shape(new)}")


def _encode(new: Any, old: Any) -> Any:
    """New slots in the dtypes, and with the shapes, of the old."""
    for name, mine, theirs in zip(old._fields, new, old, strict=True):
        _check_shape(f"slot {name!r}", mine, theirs)
    return type(old)(*(jnp.asarray(mine).astype(theirs.dtype) for mine, theirs in zip(new, old, strict=True)))
