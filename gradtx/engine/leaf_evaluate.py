"""The parameters to evaluate, where a rule on arrays keeps others than those it trains."""

import functools
from typing import TYPE_CHECKING, Any

import jax

from gradtx.definition.errors import StateError
from gradtx.definition.show import show_array
from gradtx.definition.types import Slots
from gradtx.engine.clock import Clock
from gradtx.engine.kernel import evaluate_array
from gradtx.engine.rules import Function, select_kwargs
from gradtx.engine.slots import unpack
from gradtx.tree.casts import as_array
from gradtx.tree.host_memory import fetch
from gradtx.tree.kernels import call_rows, group, signature

if TYPE_CHECKING:
    from gradtx.engine.leaf_rule import LeafRule
    from gradtx.engine.program import BoundRule
    from gradtx.engine.selector import Leaves


def evaluate_leaves(
    rule: "LeafRule", bound: "BoundRule", slots: Slots, leaves: "Leaves", count: Any
) -> Any:
    """The tree of parameters with those of a rule in the place of the leaves that it acts on."""
    if (evaluate := rule.evaluate_array) is None:
        return leaves.tree
    active, values = bound.active(leaves), list(leaves.values)
    columns, tree_slots = unpack(
        bound, rule.stored_form, rule.tree_kind, slots, leaves, active, "the parameters"
    )
    columns = columns if rule.offload is None else fetch(columns)
    rows = {n: (as_array(values[n]), columns[n]) for n, is_active in enumerate(active) if is_active}
    numbers = {
        **Clock(count, None, {}).resolve(bound.hyperparams),
        **(tree_slots._asdict() if tree_slots is not None else {}),
    }
    kwargs, layouts = select_kwargs(evaluate, numbers), rule.layouts(bound, leaves, active)
    at = [layouts[n] if layouts else None for n in rows]
    for (layout, *_), places in group(zip(at, map(_kind, rows.values()), strict=True)).items():
        indices, run = (
            [list(rows)[place] for place in places],
            _evaluating(rule.at(layout), evaluate),
        )
        _check_shape(run, bound.name, kwargs, rows[indices[0]], leaves.paths[indices[0]])
        results = call_rows(run, kwargs, [rows[index] for index in indices])
        for index, value in zip(indices, results, strict=True):
            values[index] = value
    return leaves._replace(values=values).tree


@functools.lru_cache(maxsize=1024)
def _evaluating(rule: "LeafRule", evaluate: Function) -> Function:
    return functools.partial(evaluate_array, rule, evaluate)


def _kind(row: tuple[Any, Any]) -> tuple[Any, ...]:
    param, slots = row
    return (
        signature(param),
        jax.tree.structure(slots),
        *map(signature, jax.tree.leaves(slots)),
    )


def _check_shape(run: Function, name: str, kwargs: Any, row: Any, path: str) -> None:
    """Raise unless a leaf is evaluated in its own shape: a state made for others may not be."""
    try:
        shape = jax.eval_shape(run, kwargs, row).shape
    except (TypeError, ValueError):
        shape = None
    if shape != row[0].shape:
        fields = row[1]._asdict() if row[1] is not None else {}
        arrays = (f"{field} {show_array(one)}" for field, one in fields.items() if one is not None)
        raise StateError(
            f"member {name} keeps {', '.join(arrays) or 'nothing'} at {path!r}, and the parameter "
            f"is {show_array(row[0])}: this state was made for other parameters"
        )
