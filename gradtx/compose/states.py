"""Checks of a state before it is read: a gradtx state, or the error that says what it is."""

from typing import Any

import jax

from gradtx.definition.errors import StateError, StructureError
from gradtx.definition.state import Entry
from gradtx.definition.types import Slots, State
from gradtx.engine.walk import plain_state
from gradtx.tree.casts import is_inexact
from gradtx.tree.options import is_data
from gradtx.tree.paths import flatten, leaf_paths


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
        if is_update_pair(state):
            cure = "update returns a pair, write updates, state = tx.update(grads, state, params)"
    kind = "n array" if isinstance(state, jax.Array) else f" {type(state).__name__}"
    kind = " None" if state is None else f" a{kind}"
    return StateError(f"the state of {name} is{kind}, not a gradtx.State: {cure}")


def is_update_pair(value: Any) -> bool:
    """Whether a value is what `update` returned, updates and state, and not one of the two."""
    is_pair = type(value) is tuple and len(value) == 2
    return is_pair and isinstance(value[1], State) and not isinstance(value[0], Entry | State)


def check_params(name: str, params: Any) -> None:
    """Raise where `init` receives something that holds no parameters."""
    if isinstance(params, State):
        raise StructureError(
            f"{name}: init received a State in the place of the parameters: call tx.init(params)"
        )
    leaves, treedef = flatten(params)
    if any(map(is_inexact, leaves)) or all(leaf is None or is_data(leaf) for leaf in leaves):
        return
    each = zip(leaf_paths(treedef, params), leaves, strict=True)
    path, leaf = next((path, leaf) for path, leaf in each if not is_data(leaf))
    where = f"the leaf at {path!r} is of class" if path else "the tree itself is of class"
    raise StructureError(
        f"{name}: init found no array of floats in the parameters, {where} "
        f"{type(leaf).__name__}: pass a tree of arrays, for a module the parameters that its init "
        f"returned"
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
