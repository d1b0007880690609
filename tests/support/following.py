"""The updates of some steps, eagerly, as a reader would take them."""

from typing import Any


def updates_of(tx: Any, gradients: Any, params: Any = None) -> list[Any]:
    """What a test compares: an update for every gradient, parameters held fast."""
    state, found = tx.init(gradients[0] if params is None else params), []
    for gradient in gradients:
        updates, state = tx.update(gradient, state, params)
        found.append(updates)
    return found
