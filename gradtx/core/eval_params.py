"""`eval_params`: the parameters to evaluate and to save, where they are not those that are trained."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from gradtx.core.program import Clock, Item, chosen_leaves, columns_of, leaves_of, slots_at
from gradtx.core.rules import LeafRule, Rule, TreeRule, wanted
from gradtx.core.selector import Leaves
from gradtx.core.transformation import GradientTransformation, TransformationLike, as_transformation, members_inside
from gradtx.core.types import Params, State
from gradtx.tree.casts import as_array, cast_inexact, compute_dtype
from gradtx.tree.kernels import call_rows, group, signature


def eval_params(tx: TransformationLike, state: Any, params: Params) -> Params:
    """The parameters to evaluate, and to save for use: the average or the slow copy that a method keeps beside those it trains.

    One read-out for `schedule_free`, `params_ema`, `params_average`, `lookahead` and whatever holds them: chains, masks, partitions and
    wrappers. Where several members of a chain have such parameters, the last one counts. A definition that has none gives
    `params` back. Each array has the dtype of its parameter.

    Args:
      tx: the definition; a transformation of Optax's has nothing to read out.
      state: its state.
      params: the parameters as trained.

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array(8.0)
    >>> tx = gradtx.chain(gradtx.sgd(1.0), gradtx.params_ema(0.5))
    >>> updates, state = tx.update(jnp.array(4.0), tx.init(w), w)
    >>> w = gradtx.apply_updates(w, updates)
    >>> float(w), float(gradtx.eval_params(tx, state, w))
    (4.0, 6.0)
    """
    return evaluate_slots(as_transformation(tx), state.slots, params, state.count) if isinstance(state, State) else params


def evaluate_slots(tx: GradientTransformation, slots: Any, params: Params, count: Any) -> Params:
    """`eval_params` without a clock, for wrappers."""
    for item in tx.items:
        if isinstance(item.rule, LeafRule) and item.rule.rule.evaluate is not None:
            params = _evaluate_leaves(item, slots, params, count)
        elif isinstance(item.rule, TreeRule):
            params = _evaluate_tree(item, item.rule, slots, params, count)
    return params


def _evaluate_tree(item: Item, rule: TreeRule, slots: Any, params: Params, count: Any) -> Params:
    if rule.evaluate is not None:
        kept = slots_at(slots, item.path) if rule.keeps else None
        given = {**Clock(count, None).resolve(rule.hyperparams, {}), **rule.options}
        return rule.evaluate(params, kept, count, **wanted(rule.evaluate, given))
    for inside in members_inside(item, slots, count):
        params = evaluate_slots(inside.member, inside.slots, params, inside.count)
    return params


def _evaluate_leaves(item: Item, slots: Any, params: Params, count: Any) -> Params:
    leaves = leaves_of(params)
    chosen = chosen_leaves(item, leaves)
    rows, told = _rows(item, slots, leaves, chosen, count)
    values = list(leaves.values)
    assert isinstance(item.rule, LeafRule)
    for places in group((signature(row[0]), _kinds(row[1])) for row in rows.values()).values():
        indices = [list(rows)[place] for place in places]
        for index, value in zip(indices, call_rows(_evaluating(item.rule.rule), told, [rows[index] for index in indices]), strict=True):
            values[index] = value
    return leaves._replace(values=values).tree


def _rows(item: Item, slots: Any, leaves: Leaves, chosen: Sequence[bool], count: Any) -> tuple[dict[int, Any], dict[str, Any]]:
    """For every leaf that the rule acts on its parameter and its slots; and what the rule is told by name."""
    assert isinstance(item.rule, LeafRule) and item.rule.rule.evaluate is not None
    columns, shared = columns_of(item, item.rule.rule, slots, leaves, chosen)
    rows = {index: (as_array(leaves.values[index]), columns[index]) for index, acts in enumerate(chosen) if acts}
    given: Mapping[str, Any] = {
        **Clock(count, None).resolve(item.rule.hyperparams, {}),
        **(shared._asdict() if shared is not None else {}),
    }
    return rows, wanted(item.rule.rule.evaluate, given)


def _kinds(slots: Any) -> tuple[Any, ...]:
    return tuple(None if slot is None else signature(slot) for slot in slots or ())


@functools.lru_cache(maxsize=1024)
def _evaluating(rule: Rule) -> Any:
    return functools.partial(_evaluate_row, rule)


def _evaluate_row(rule: Rule, told: Mapping[str, Any], row: tuple[jax.Array, Any]) -> jax.Array:
    """What one array is evaluated at, worked out in float32 at least."""
    assert rule.evaluate is not None
    param, slots = row
    dtype = compute_dtype(param.dtype)
    kept = None if slots is None else type(slots)(*(None if slot is None else cast_inexact(slot, dtype) for slot in slots))
    found = rule.evaluate(param.astype(dtype), kept, **told, **wanted(rule.evaluate, rule.options.values))
    return found.astype(param.dtype)
