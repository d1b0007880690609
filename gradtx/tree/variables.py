"""Variables around arrays: trees of Flax's nnx, whose arrays are each in a node of their own."""

from typing import Any

import jax
from jax.tree_util import GetAttrKey

from gradtx.tree.paths import flatten, path_text

VALUE = (GetAttrKey("value"),)


def without_variables(tree: Any) -> Any:
    """A tree with the values of its variables in their places.

    Flax's nnx puts each parameter in a `Param`, and each array of a state in an `OptVariable`.
    """
    nodes, treedef = jax.tree.flatten(tree, is_leaf=_is_variable)
    if not any(map(_is_variable, nodes)):
        return tree
    return jax.tree.unflatten(treedef, map(_value_of, nodes))


def with_variables(tree: Any, like: Any) -> Any:
    """The leaves of a tree in the variables of another; the tree itself where they do not fit."""
    leaves, plain = flatten(tree)
    values, treedef = flatten(like)
    if plain != flatten(without_variables(like))[1] or len(leaves) != len(values):
        return tree
    return jax.tree.unflatten(treedef, leaves)


def _value_of(node: Any) -> Any:
    return _children(node)[0][1] if _is_variable(node) else node


def _is_variable(node: Any) -> bool:
    """Whether a node is there for one value alone, which its path does not name."""
    if node is None or isinstance(node, tuple | list | dict):
        return False
    return [path for path, _ in _children(node)] == [VALUE]


def _children(node: Any) -> list[tuple[Any, Any]]:
    """The nodes directly below one, with their paths."""
    return jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda one: one is not node)[0]


def lost_variable(tree: Any) -> tuple[str, str] | None:
    """The path and the class of a variable of a module that a call changes: a mean, a counter.

    `BatchStat`, `RngCount` and the like are classes of Flax's nnx beside `Param`.
    """
    nodes = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_variable)[0]
    for path, node in nodes:
        kinds = [one.__name__ for one in type(node).__mro__]
        if _is_variable(node) and "Variable" in kinds and "Param" not in kinds:
            return path_text(path), kinds[0]
    return None
