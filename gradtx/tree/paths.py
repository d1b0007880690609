"""Leaves and their paths: every array of a tree has one text, `dense/kernel`."""

import functools
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
from jax.tree_util import GetAttrKey

T = TypeVar("T")
Treedef = Any
"""A `jax.tree_util.PyTreeDef`, which has no type that checkers know."""


def is_none(node: Any) -> bool:
    return node is None


def flatten(tree: Any) -> tuple[list[Any], Treedef]:
    """The leaves of a tree, with None counted as a leaf so that positions survive masking."""
    return jax.tree.flatten(tree, is_leaf=is_none)


def path_text(path: Sequence[Any]) -> str:
    """A key path as `a/b/0`; a trailing `.value` (Flax's variables show it at times) is dropped."""
    if path and isinstance(path[-1], GetAttrKey) and path[-1].name == "value":
        path = path[:-1]
    return "/".join(key_text(key) for key in path)


def key_text(key: Any) -> str:
    """One key of a path, whatever container it comes from."""
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


_PATHS: dict[Treedef, tuple[str, ...]] = {}
"""The paths of the structures that were read last."""


def leaf_paths(treedef: Treedef, tree: Any) -> tuple[str, ...]:
    """The path text of every leaf of a tree of this structure, in its order.

    The tree itself is read, and once: a structure filled with other things in the place of arrays
    could not be built where a container looks at its arrays.
    """
    known = _PATHS.get(treedef)
    if known is None:
        found = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_none)[0]
        known = tuple(path_text(path) for path, _ in found)
        if len(_PATHS) >= 256:
            _PATHS.clear()
        _PATHS[treedef] = known
    return known


def tree_paths(tree: Any) -> tuple[str, ...]:
    """The path text of every leaf of a tree; None counts as a leaf.

    >>> tree_paths({"dense": {"bias": 0, "kernel": 1}, "scale": 2})
    ('dense/bias', 'dense/kernel', 'scale')
    """
    return leaf_paths(flatten(tree)[1], tree)


@functools.lru_cache(maxsize=256)
def repeated(paths: tuple[str, ...]) -> str | None:
    """A path text that two leaves share, if there is one."""
    most = Counter(paths).most_common(1)
    return most[0][0] if most and most[0][1] > 1 else None


def describe_difference(ours: Sequence[str], theirs: Sequence[str], here: str, there: str) -> str:
    """How two trees differ: the first path of either that the other lacks."""
    mine = next((path for path in ours if path not in set(theirs)), None)
    other = next((path for path in theirs if path not in set(ours)), None)
    only = [f"{mine!r} is only in {here}"] * (mine is not None) + [
        f"{other!r} is only in {there}"
    ] * (other is not None)
    return ", ".join(only) or "the paths are the same, the containers are not"


def match_leaves(
    treedef: Treedef,
    paths: Callable[[], Sequence[str]],
    tree: Any,
    here: str,
    there: str,
    error: Callable[[str], Exception],
) -> list[Any]:
    """The leaves of a tree in the order of a structure with these paths; where they differ,
    `error(difference)`.
    """
    try:
        return treedef.flatten_up_to(tree)
    except (ValueError, TypeError, KeyError):
        raise error(describe_difference(paths(), tree_paths(tree), here, there)) from None


@functools.lru_cache(maxsize=16384)
def without_numbers(path: str) -> str:
    """A path without the numbers of its layers."""
    return re.sub(r"\d+", "#", path)


def same_layers(paths: Sequence[str], values: Mapping[str, T]) -> list[T | None]:
    """For every path the value at it, or else at the same place of another layer; None: neither.

    >>> same_layers(["blocks/7/w", "head"], {"blocks/0/w": 1, "blocks/1/w": 2})
    [1, None]
    """
    alike = {without_numbers(path): value for path, value in reversed([*values.items()])}
    return [values.get(path, alike.get(without_numbers(path))) for path in paths]
