"""Arrays that a donating program has deleted, and arrays that a tree holds twice."""

from typing import Any

import jax
from jax.core import Tracer

from gradtx.tree.errors import StateError
from gradtx.tree.paths import path_text

KEEP = (
    "go on with the parameters and the state that it returned, keep a copy with "
    "jax.tree.map(jnp.copy, params), or build the step with donate=False"
)
"""The cure for arrays that a step was given."""


def is_deleted(leaf: Any) -> bool:
    """Whether a program that reuses memory has taken that of an array."""
    return isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer) and leaf.is_deleted()


def is_deletion(error: Exception) -> bool:
    """Whether JAX raised an error because an array is deleted."""
    return "deleted" in str(error)


def is_sharing(error: Exception) -> bool:
    """Whether JAX raised an error because two arguments are one array, which it cannot donate."""
    text = str(error)
    return "donate the same buffer twice" in text or "previously donated in the same call" in text


def deleted_array(owner: str, **trees: Any) -> StateError | None:
    """The error that names the first deleted array in some trees; None where all are there."""
    for name, tree in trees.items():
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            if is_deleted(leaf):
                where = f"at {path_text(path)!r} of the {name}" if path else f"of the {name}"
                return StateError(
                    f"{owner}: the array {where} is deleted: an earlier step received it, and "
                    f"wrote its results into that memory; {KEEP}"
                )
    return None


def with_copies(tree: Any, *others: Any) -> Any:
    """The tree with a copy of every array that occurs twice in it, or in the others."""
    seen = {id(leaf) for leaf in jax.tree.leaves(others)}
    leaves, treedef = jax.tree.flatten(tree)
    for index, leaf in enumerate(leaves):
        if id(leaf) in seen and isinstance(leaf, jax.Array):
            leaves[index] = leaf.copy()
        seen.add(id(leaf))
    return jax.tree.unflatten(treedef, leaves)
