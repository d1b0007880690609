"""`eval_params`: the parameters to evaluate and to save, where they are not those that are trained."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from gradtx.compose.transformation import (
    PLAIN,
    GradientTransformation,
    TransformationLike,
    as_transformation,
    checked_state,
    members_inside,
)
from gradtx.definition.errors import StateError
from gradtx.definition.show import show_array
from gradtx.definition.types import Params, State
from gradtx.engine.lifter import decoded_slots
from gradtx.engine.program import BoundRule, Clock, chosen_leaves, columns_of, leaves_of, shown
from gradtx.engine.rules import LeafRule, Rule, TreeRule, select_kwargs
from gradtx.engine.selector import Leaves
from gradtx.engine.slots import check_members, slots_at
from gradtx.engine.storage import decode_tree
from gradtx.tree.casts import as_array, compute_dtype
from gradtx.tree.kernels import call_rows, group, signature
from gradtx.tree.paths import flatten


def eval_params(tx: TransformationLike, state: Any, params: Params) -> Params:
    """The parameters to evaluate, and to save for use: the average or the slow copy that a method
    keeps beside those it trains.

    One read-out for `schedule_free`, `params_ema`, `params_average`, `ema_nesterov`, `lookahead`,
    `sam` and whatever holds them: chains, masks, partitions and wrappers. Where several members of
    a chain have such parameters, the last one counts. A definition that has none gives `params`
    back. Each array has the dtype of its parameter.

    Args:
      tx: the definition. What a transformation of Optax's keeps is not seen; Optax has functions of
        its own for that.
      state: its state.
      params: the parameters as trained. Where they are `LookaheadParams`, those of `lookahead` are
        its slow ones.

    Raises:
      StateError: the state belongs to another definition or to other parameters; or one of gradtx's
        members stands inside a chain of Optax's, where its definition cannot be seen.

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array(8.0)
    >>> tx = gradtx.chain(gradtx.sgd(1.0), gradtx.params_ema(0.5))
    >>> updates, state = tx.update(jnp.array(4.0), tx.init(w), w)
    >>> w = gradtx.apply_updates(w, updates)
    >>> float(w), float(gradtx.eval_params(tx, state, w))
    (4.0, 6.0)
    """
    tx = as_transformation(tx)
    if tx.factory is PLAIN:
        _check_foreign(tx.name, state)
        return params
    state = checked_state(tx, state)
    return evaluate_slots(tx, state.slots, params, state.count)


def evaluate_slots(tx: GradientTransformation, slots: Any, params: Params, count: Any) -> Params:
    """`eval_params` without a clock, for wrappers. Every member is shown the parameters as trained."""
    check_members(tx.items, slots)
    leaves, found = leaves_of(params), params
    for item in tx.items:
        if _reads(item.rule):
            evaluate = _evaluate_leaves if isinstance(item.rule, LeafRule) else _evaluate_tree
            found = _laid_over(
                leaves, found, evaluate(item, slots, leaves, count), chosen_leaves(item, leaves)
            )
        elif isinstance(item.rule, TreeRule) and item.rule.keeps and item.rule.children is None:
            _check_foreign(item.name, slots_at(slots, item.path))
    return found


def reads_out(tx: GradientTransformation) -> bool:
    """Whether a definition has parameters to evaluate at that are not those it trains."""
    return any(_reads(item.rule) for item in tx.items)


def _reads(rule: LeafRule | TreeRule) -> bool:
    if isinstance(rule, LeafRule):
        return rule.rule.evaluate is not None
    return rule.evaluate is not None or any(
        reads_out(one) for one in rule.options.values() if isinstance(one, GradientTransformation)
    )


def _check_foreign(name: str, kept: Any) -> None:
    """Raise when another library's transformation holds one of ours, which cannot be seen inside
    it.
    """
    nodes = jax.tree.leaves(kept, is_leaf=_is_state)
    if any(map(_is_state, nodes)):
        raise StateError(
            f"the state of {name} holds one of gradtx's, whose definition eval_params cannot see inside another library's: "
            "put the members in gradtx.chain, or call eval_params with that member and its own state"
        )


def _is_state(node: Any) -> bool:
    return isinstance(node, State)


def _laid_over(leaves: Leaves, found: Params, new: Params, chosen: Sequence[bool]) -> Params:
    """`new` at the chosen leaves and `found` at the others; all of `new` where it has another
    structure than the parameters have.
    """
    values, treedef = flatten(new)
    others, below = flatten(found)
    if treedef != leaves.treedef:
        return new
    base = others if below == treedef else leaves.values
    return jax.tree.unflatten(
        treedef,
        [one if gate else other for one, other, gate in zip(values, base, chosen, strict=True)],
    )


def _evaluate_tree(item: BoundRule, slots: Any, leaves: Leaves, count: Any) -> Params:
    rule, params = item.rule, shown(item, leaves)
    assert isinstance(rule, TreeRule)
    if rule.evaluate is not None:
        kept = decode_tree(rule, slots_at(slots, item.path)) if rule.keeps else None
        given = {**Clock(count, None).resolve(rule.hyperparams, {}), **rule.options}
        return rule.evaluate(params, kept, count, **select_kwargs(rule.evaluate, given))
    found = params
    for children in members_inside(item, slots, count):
        if reads_out(children.member):
            found = evaluate_slots(children.member, children.slots, params, children.count)
    return found


def _evaluate_leaves(item: BoundRule, slots: Any, leaves: Leaves, count: Any) -> Params:
    assert isinstance(item.rule, LeafRule)
    rows, told = _rows(item, slots, leaves, count)
    values = list(leaves.values)
    for places in group((signature(row[0]), _kinds(row[1])) for row in rows.values()).values():
        indices = [list(rows)[place] for place in places]
        _check_shape(item, told, rows[indices[0]], leaves.paths[indices[0]])
        for index, value in zip(
            indices,
            call_rows(_evaluating(item.rule.rule), told, [rows[index] for index in indices]),
            strict=True,
        ):
            values[index] = value
    return leaves._replace(values=values).tree


def _check_shape(item: BoundRule, told: Any, row: Any, path: str) -> None:
    """Raise unless what a leaf is evaluated at has its shape: a state made for others may not."""
    assert isinstance(item.rule, LeafRule)
    try:
        shape = jax.eval_shape(_evaluating(item.rule.rule), told, row).shape
    except (TypeError, ValueError):
        shape = None
    if shape != row[0].shape:
        fields = row[1]._asdict() if row[1] is not None else {}
        kept = ", ".join(
            f"{name} {show_array(slot)}" for name, slot in fields.items() if slot is not None
        )
        raise StateError(
            f"member {item.name} keeps {kept or 'nothing'} at {path!r}, and the parameter is {show_array(row[0])}: "
            "this state was made for other parameters"
        )


def _rows(
    item: BoundRule, slots: Any, leaves: Leaves, count: Any
) -> tuple[dict[int, Any], dict[str, Any]]:
    """For every leaf that the rule acts on its parameter and its slots; and what the rule is told
    by name.
    """
    assert isinstance(item.rule, LeafRule) and item.rule.rule.evaluate is not None
    chosen = chosen_leaves(item, leaves)
    columns, shared = columns_of(item, item.rule.rule, slots, leaves, chosen, "the parameters")
    rows = {
        index: (as_array(leaves.values[index]), columns[index])
        for index, gate in enumerate(chosen)
        if gate
    }
    given: Mapping[str, Any] = {
        **Clock(count, None).resolve(item.rule.hyperparams, {}),
        **(shared._asdict() if shared is not None else {}),
    }
    return rows, select_kwargs(item.rule.rule.evaluate, given)


def _kinds(slots: Any) -> tuple[Any, ...]:
    return jax.tree.structure(slots), *map(signature, jax.tree.leaves(slots))


@functools.lru_cache(maxsize=1024)
def _evaluating(rule: Rule) -> Any:
    return functools.partial(_evaluate_row, rule)


def _evaluate_row(rule: Rule, told: Mapping[str, Any], row: tuple[jax.Array, Any]) -> jax.Array:
    """What one array is evaluated at, worked out in float32 at least."""
    assert rule.evaluate is not None
    param, slots = row
    dtype = compute_dtype(param.dtype)
    kept = None if slots is None else decoded_slots(rule, slots, param.shape, dtype)
    found = rule.evaluate(
        param.astype(dtype), kept, **told, **select_kwargs(rule.evaluate, rule.options.values)
    )
    return found.astype(param.dtype)
