"""What members of a definition have to report: scalars of a state, by the address of the member and
the name it gives them.
"""

from collections.abc import Iterator, Mapping
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
from gradtx.definition.errors import GradtxError
from gradtx.definition.types import Array
from gradtx.engine.program import BoundRule
from gradtx.engine.rules import LeafRule, TreeRule, select_kwargs
from gradtx.engine.slots import check_members, slots_at

Address = tuple[str, ...]


def reports(tx: GradientTransformation, slots: Any, count: Any) -> dict[Address, Any]:
    """Everything that rules report, and the scalars that leaf rules keep for the whole tree;
    members of wrappers included.
    """
    check_members(tx.items, slots)
    found: dict[Address, Any] = {}
    for item in tx.items:
        members = members_inside(item, slots, count)
        found |= _own_report(item, slots)
        for children in members:
            found |= {
                (*item.path, *address): value
                for address, value in reports(
                    children.member, children.slots, children.count
                ).items()
            }
    return found


def _own_report(item: BoundRule, slots: Any) -> dict[Address, Any]:
    rule = item.rule
    if isinstance(rule, LeafRule):
        if rule.rule.shared is None:
            return {}
        kept = slots_at(slots, item.path)
        fields = kept if isinstance(kept, Mapping) else kept._asdict()
        return {
            (*item.path, name): fields[name]
            for name in rule.rule.shared._fields
            if fields[name].ndim == 0
        }
    if not isinstance(rule, TreeRule) or rule.report is None:
        return {}
    said = rule.report(slots_at(slots, item.path), **select_kwargs(rule.report, rule.options))
    return {(*item.path, rule.name, name): value for name, value in said.items()}


def loss_scale(tx: TransformationLike, state: Any) -> Array | float:
    """By what to multiply the loss before its gradient is taken: the scale of `dynamic_loss_scale`,
    1 where a definition has none.

    `make_step` does so by itself.

    Args:
      tx: the definition.
      state: its state.

    Raises:
      GradtxError: something else than `dynamic_loss_scale` would be given gradients with the scale
        in them.
      StateError: the state belongs to another definition.

    >>> import gradtx, jax.numpy as jnp
    >>> scaled, plain = gradtx.dynamic_loss_scale(gradtx.sgd(0.1), initial_scale=1024.0), gradtx.sgd(0.1)
    >>> [float(loss_scale(tx, tx.init(jnp.ones(2)))) for tx in (scaled, plain)]
    [1024.0, 1.0]
    """
    tx = as_transformation(tx)
    if tx.factory is PLAIN:
        if any(map(_keeps_scale, jax.tree.leaves(state, is_leaf=_keeps_scale))):
            raise _misplaced(tx.name)
        return 1.0
    state = checked_state(tx, state)
    found = list(_scales(tx, state.slots, state.count))
    for _, other in found:
        if other is not None:
            raise _misplaced(other)
    return found[0][0] if found else 1.0


def _scales(tx: GradientTransformation, slots: Any, count: Any) -> Iterator[tuple[Any, str | None]]:
    """Every loss scale within a definition, and what else would be given gradients with the scale
    in them.

    A wrapper that counts the updates of its member by itself, `guard` for one, looks at gradients,
    and may keep them from it."""
    check_members(tx.items, slots)
    for index, item in enumerate(tx.items):
        other = (
            f"the leaves outside of {item.name}"
            if item.selectors
            else tx.items[0].name
            if index
            else None
        )
        members = members_inside(item, slots, count)
        yield from (
            (value, other)
            for address, value in _own_report(item, slots).items()
            if address[-1] == "loss_scale"
        )
        for children in members:
            around = None if children.count is count else item.rule.name
            yield from (
                (value, deeper or around or other)
                for value, deeper in _scales(children.member, children.slots, children.count)
            )


def _keeps_scale(node: Any) -> bool:
    return isinstance(node, Mapping) and "dynamic_loss_scale" in node


def _misplaced(other: str) -> GradtxError:
    return GradtxError(
        f"dynamic_loss_scale is not the outermost: {other} would be given gradients with the scale in them; "
        "put the scale around everything, dynamic_loss_scale(guard(chain(...)))"
    )
