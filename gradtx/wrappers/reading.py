"""Search in a state for the slots of a method."""

from collections.abc import Mapping
from typing import Any

import jax

from gradtx.definition.errors import StateError


def find_slots(state: Any, owner: str, fields: frozenset[str]) -> list[Mapping[str, Any]]:
    """Find every mapping in a state that has exactly these fields.

    Raises:
      StateError: there is none.
    """

    def has_fields(node: Any) -> bool:
        return isinstance(node, Mapping) and node.keys() == fields

    slots = [node for node in jax.tree.leaves(state, is_leaf=has_fields) if has_fields(node)]
    if not slots:
        raise StateError(
            f"the state has no slots of {owner}, which are {', '.join(sorted(fields))}: pass the "
            "state that tx.update returned"
        )
    return slots
