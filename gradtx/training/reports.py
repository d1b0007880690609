"""The scalars that a state has to report, by the path of the rule and the name it gives them."""

from typing import Any

import jax

from gradtx.compose.states import checked_state
from gradtx.compose.transformation import (
    GradientTransformation,
    TransformationLike,
    as_transformation,
)
from gradtx.definition.errors import GradtxError
from gradtx.definition.types import Array, Slots
from gradtx.engine.walk import Node, walk

Address = tuple[str, ...]


def reports(tx: GradientTransformation, slots: Slots, count: Any) -> dict[Address, Any]:
    """Every scalar that a rule reports, rules inside wrappers included."""
    return {
        (*node.path, *_own_name(node), name): value
        for node in walk(tx, slots, count)
        for name, value in node.bound.rule.report(node.slots).items()
    }


def _own_name(node: Node) -> Address:
    """The name of a rule whose slots are among those of its member, without a name in a path."""
    return (node.bound.rule.name,) if node.bound.rule.keeps_at_root else ()


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
    >>> plain = gradtx.sgd(0.1)
    >>> scaled = gradtx.dynamic_loss_scale(plain, initial_scale=1024.0)
    >>> [float(loss_scale(tx, tx.init(jnp.ones(2)))) for tx in (scaled, plain)]
    [1024.0, 1.0]
    """
    tx = as_transformation(tx)
    if tx.is_plain:
        if any(map(_has_scale, jax.tree.leaves(state, is_leaf=_has_scale))):
            raise _misplaced(tx.name)
        return 1.0
    state = checked_state(tx.name, state)
    nodes = [node for node in walk(tx, state.slots, state.count) if _scale_of(node) is not None]
    for node in nodes:
        if (other := _other_reader(node)) is not None:
            raise _misplaced(other)
    return _scale_of(nodes[0]) if nodes else 1.0


def _scale_of(node: Node) -> Any:
    return node.bound.rule.report(node.slots).get("loss_scale")


def _other_reader(node: Node) -> str | None:
    """Who else would receive gradients with the scale in them; None: nobody.

    A wrapper that counts the updates of its member by itself, such as `guard`, looks at gradients,
    and may keep them from the member.
    """
    inside: Node | None = None
    for one in (node, *reversed(node.parents)):
        if inside is not None and inside.count is not one.count:
            return one.bound.rule.name
        first = one.program.rules[0]
        if one.bound.selectors:
            return f"the leaves outside of {one.bound.name}"
        if first is not one.bound:
            return first.name
        inside = one
    return None


def _has_scale(node: Any) -> bool:
    return isinstance(node, dict) and "dynamic_loss_scale" in node


def _misplaced(other: str) -> GradtxError:
    return GradtxError(
        f"dynamic_loss_scale is not the outermost: {other} would receive gradients with the scale "
        f"in them; put the scale around everything, dynamic_loss_scale(guard(chain(...)))"
    )
