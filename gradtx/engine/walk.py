"""The one walker of a state: every rule of a definition, with its own part of the state."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from gradtx.definition.types import Params, Slots, State
from gradtx.engine.program import BoundRule
from gradtx.engine.selector import leaves_of
from gradtx.engine.slots import check_members, slots_at
from gradtx.tree.variables import without_variables


class Node(NamedTuple):
    """One rule of a definition, as a state has it."""

    bound: BoundRule
    slots: Any
    """Its own slots, as the state holds them; None where it keeps none."""
    count: Any
    """The updates that it has seen."""
    program: Any
    """The definition whose rules it is among."""
    parents: "tuple[Node, ...]" = ()
    """The rules around it, outermost first."""

    @property
    def path(self) -> tuple[str, ...]:
        """The names on the way to the rule, those of wrappers included."""
        return tuple(name for node in (*self.parents, self) for name in node.bound.path)

    def narrow(self, params: Params) -> Any:
        """The parameters as the rule receives them: None where a mask around it is False."""
        for node in (*self.parents, self):
            leaves = leaves_of(params)
            params = leaves.narrow(params, node.bound.mask(leaves))
        return params


def plain_state(state: Any) -> Any:
    """A state without variables: `nnx.Optimizer` puts each array of its state in one of its own."""
    # Elsewhere the count is an array, and this costs nothing.
    is_plain = not isinstance(state, State) or jax.tree_util.all_leaves([state.count])
    return state if is_plain else without_variables(state)


def walk(tx: Any, slots: Slots, count: Any, parents: tuple[Node, ...] = ()) -> Iterator[Node]:
    """Every rule of a definition and of all transformations inside it, outer ones first.

    Raises:
      StateError: the slots are those of another definition.
    """
    check_members(tx.rules, slots)
    for bound in tx.rules:
        own = slots_at(slots, bound.path) if bound.rule.keeps else None
        node = Node(bound, own, count, tx, parents)
        yield node
        for child in bound.rule.children(own, count):
            yield from walk(child.member, child.slots, child.count, (*parents, node))
