"""Checks of a state before it is read: a gradtx state, or the error that says what it is."""

from typing import Any

import jax

from gradtx.definition.errors import StateError
from gradtx.definition.state import Entry
from gradtx.definition.types import Slots, State
from gradtx.engine.walk import plain_state


def checked_state(name: str, state: Any) -> State:
    """The state of a definition that is not another library's, before it is read."""
    state = plain_state(state)
    if not isinstance(state, State):
        raise wrong_state(name, state, "pass the state that tx.update returned")
    return state


def wrong_state(name: str, state: Any, cure: str) -> StateError:
    """The error of a state that is not gradtx's."""
    if isinstance(state, tuple) and any(isinstance(one, Entry | State) for one in state):
        cure = "write state = state._replace(hyperparams=...), since members have names, not places"
    return StateError(
        f"the state of {name} is a {type(state).__name__}, not a gradtx.State: {cure}"
    )


def check_foreign(name: str, slots: Slots) -> None:
    """Raise where another library's transformation holds one of gradtx's, which nobody can read."""
    if any(map(_is_state, jax.tree.leaves(slots, is_leaf=_is_state))):
        raise StateError(
            f"the state of {name} holds one of gradtx's, whose definition eval_params cannot see "
            f"inside another library's: put the members in gradtx.chain, or call eval_params with "
            f"that member and its own state"
        )


def _is_state(node: Any) -> bool:
    return isinstance(node, State)
