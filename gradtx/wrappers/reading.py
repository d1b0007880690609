"""Finding in a state what a method keeps, wherever in a chain it stands."""

from collections.abc import Mapping
from typing import Any

import jax

from gradtx.definition.errors import StateError


def find_slots(state: Any, owner: str, fields: frozenset[str]) -> list[Mapping[str, Any]]:
    """Everything in a state that has exactly these fields by name.

    Raises:
      StateError: there is none.
    """
    found = [
        node
        for node in jax.tree.leaves(state, is_leaf=lambda node: _has(node, fields))
        if _has(node, fields)
    ]
    if not found:
        raise StateError(
            f"the state holds nothing of {owner}, which keeps {', '.join(sorted(fields))}: pass the state that tx.update gave"
        )
    return found


def _has(node: Any, fields: frozenset[str]) -> bool:
    return isinstance(node, Mapping) and node.keys() == fields
