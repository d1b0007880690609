"""What members of a definition have to report: scalars of a state, by the address of the member and the name it gives them."""

from collections.abc import Mapping
from typing import Any

from gradtx.core.program import Item, slots_at
from gradtx.core.rules import LeafRule, TreeRule, wanted
from gradtx.core.transformation import GradientTransformation, TransformationLike, as_transformation, members_inside
from gradtx.core.types import ArrayLike, State

Address = tuple[str, ...]


def reports(tx: GradientTransformation, slots: Any, count: Any) -> dict[Address, Any]:
    """Everything that rules report, and the scalars that leaf rules keep for the whole tree; members of wrappers included."""
    found: dict[Address, Any] = {}
    for item in tx.items:
        found |= _own_report(item, slots)
        for inside in members_inside(item, slots, count):
            found |= {(*item.path, *address): value for address, value in reports(inside.member, inside.slots, inside.count).items()}
    return found


def _own_report(item: Item, slots: Any) -> dict[Address, Any]:
    rule = item.rule
    if isinstance(rule, LeafRule):
        if rule.rule.shared is None:
            return {}
        kept = slots_at(slots, item.path)
        fields = kept if isinstance(kept, Mapping) else kept._asdict()
        return {(*item.path, name): fields[name] for name in rule.rule.shared._fields if fields[name].ndim == 0}
    if not isinstance(rule, TreeRule) or rule.report is None:
        return {}
    said = rule.report(slots_at(slots, item.path), **wanted(rule.report, rule.options))
    return {(*item.path, rule.name, name): value for name, value in said.items()}


def loss_scale(tx: TransformationLike, state: Any) -> ArrayLike:
    """By what to multiply the loss before its gradient is taken: the scale of `dynamic_loss_scale`, 1 where a definition has none.

    `make_step` does so by itself.

    Args:
      tx: the definition.
      state: its state.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.dynamic_loss_scale(gradtx.sgd(0.1), initial_scale=1024.0)
    >>> float(loss_scale(tx, tx.init(jnp.ones(2)))), loss_scale(gradtx.sgd(0.1), None)
    (1024.0, 1.0)
    """
    if not isinstance(state, State):
        return 1.0
    found = reports(as_transformation(tx), state.slots, state.count)
    return next((value for address, value in found.items() if address[-1] == "loss_scale"), 1.0)
