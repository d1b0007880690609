"""The entries of a checkpoint of Orbax: a tree as named arrays, and the restored ones in a tree.

JAX's random keys, Python's numbers and arrays without elements have no form in Orbax. They are
stored as key data, as scalars, and in the metadata of the checkpoint.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, Sharding

from gradtx.definition.errors import StateError, StructureError
from gradtx.definition.spelling import suggest
from gradtx.interop.checkpoint_leaves import (
    check_entry,
    check_key,
    check_leaf,
    is_key,
    key_impl,
    named_leaves,
    plain_leaf,
    restored_leaf,
)
from gradtx.interop.matching import StateMatch
from gradtx.tree.paths import path_text

FORMAT = 1
MARK = "gradtx"
"""The key of gradtx's part of a checkpoint's metadata."""


class Saved(NamedTuple):
    """The entries that a checkpoint holds."""

    structs: dict[str, jax.ShapeDtypeStruct]
    """The shape and dtype of every entry by name."""
    keys: dict[str, str]
    """By name: the dtype of a random key before it was saved."""
    empty: frozenset[str]
    """The entries without elements, of which only the shape is stored."""
    tree: Any
    """The tree as Orbax has it, with an object of its own for every entry."""


def entries_of(tree: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays of a tree by path, and the metadata that brings the other leaves back."""
    named = named_leaves(tree)
    for path, leaf in named.items():
        check_leaf(path, leaf)
        if isinstance(leaf, jax.Array) and leaf.is_deleted():
            raise StructureError(
                f"save: the array at {path!r} was donated and has no numbers: save it before the "
                f"step that receives it"
            )
    arrays = {path: _portable(plain_leaf(path, leaf)) for path, leaf in named.items()}
    keys = {path: str(leaf.dtype) for path, leaf in named.items() if is_key(leaf)}
    empty = {path: one for path, one in arrays.items() if 0 in one.shape}
    shapes = {path: [list(one.shape), str(one.dtype)] for path, one in empty.items()}
    metadata = {MARK: {"format": FORMAT, "keys": keys, "empty": shapes}}
    return {path: one for path, one in arrays.items() if path not in empty}, metadata


def _portable(array: Any) -> Any:
    """An array that Orbax writes: one that this process alone holds as its numbers on the host."""
    is_local = isinstance(array, jax.Array) and array.is_fully_addressable
    return np.asarray(array) if is_local and jax.process_count() > 1 else array


def local_counts(tree: Any) -> dict[str, int]:
    """The whole numbers that every process holds by itself, the counts of states for example."""
    return {path: int(leaf) for path, leaf in named_leaves(tree).items() if _is_local_number(leaf)}


def _is_local_number(leaf: Any) -> bool:
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return False
    is_plain = getattr(leaf, "shape", ()) == () and not is_key(leaf)
    return is_plain and jnp.issubdtype(jnp.result_type(leaf), jnp.integer)


def saved_entries(tree: Any, custom: Any) -> Saved:
    """The entries of Orbax's tree of metadata; a checkpoint without gradtx's part is read too.

    Raises:
      StateError: another version of gradtx wrote the checkpoint.
    """
    ours = (custom or {}).get(MARK, {"format": FORMAT})
    if ours["format"] != FORMAT:
        raise StateError(
            f"its format is {ours['format']!r}, this version reads {FORMAT}: read it with the "
            f"version of gradtx that wrote it"
        )
    leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda node: node is None)[0]
    structs = {path_text(path): _struct(leaf) for path, leaf in leaves if hasattr(leaf, "dtype")}
    empty = {
        name: jax.ShapeDtypeStruct(tuple(shape), jnp.dtype(dtype))
        for name, (shape, dtype) in ours.get("empty", {}).items()
    }
    return Saved({**structs, **empty}, ours.get("keys", {}), frozenset(empty), tree)


def _struct(metadata: Any) -> jax.ShapeDtypeStruct:
    """An entry of Orbax as a struct; a Python number has a dtype, and no shape."""
    return jax.ShapeDtypeStruct(getattr(metadata, "shape", ()), jnp.dtype(metadata.dtype))


def target_shardings(expected: Mapping[str, Any], shardings: Any) -> dict[str, Sharding]:
    """The sharding of every leaf that shall have one: that of its path, or of `like`.

    Raises:
      StructureError: a path of `shardings` is not one of `like`.
    """
    named = {} if shardings is None else _named_shardings(shardings)
    for path in named:
        if not any(_is_above(path, one) for one in expected):
            raise StructureError(
                f"load: shardings have the path {path!r}, and `like` has not"
                f"{suggest(path, expected)}"
            )
    chosen = {path: _nearest(path, named) or _own(leaf) for path, leaf in expected.items()}
    return {path: one for path, one in chosen.items() if one is not None}


def _named_shardings(shardings: Any) -> dict[str, Sharding]:
    leaves = jax.tree_util.tree_flatten_with_path(
        shardings, is_leaf=lambda node: isinstance(node, Sharding)
    )[0]
    return {path_text(path): leaf for path, leaf in leaves if isinstance(leaf, Sharding)}


def _is_above(path: str, other: str) -> bool:
    """Whether a path is another one, or a folder of it; "" is the whole tree."""
    return not path or f"{other}/".startswith(f"{path}/")


def _nearest(path: str, named: Mapping[str, Sharding]) -> Sharding | None:
    """The sharding of a leaf, or of the innermost folder that has one."""
    while path and path not in named:
        path = path.rpartition("/")[0]
    return named.get(path)


def _own(leaf: Any) -> Sharding | None:
    """The sharding of a leaf of `like`, unless JAX may place it anywhere."""
    return getattr(leaf, "sharding", None) if getattr(leaf, "committed", True) else None


def check_target(path: str, like: Any, struct: Any, sharding: Sharding | None) -> None:
    """Raise where an entry does not fit its leaf, or a mesh cannot hold it; nothing is read yet."""
    if not hasattr(like, "dtype"):
        return
    check_entry(path, like, struct)
    if sharding is None:
        return
    shape = tuple(like.shape)
    try:
        sharding.shard_shape(shape)
    except ValueError:
        raise StateError(
            f"entry {path!r} of shape {shape} cannot be cut by {_shown(sharding)}: pass shardings= "
            f"whose axes divide the shape, or leave the array whole with PartitionSpec()"
        ) from None


def _shown(sharding: Sharding) -> str:
    if not isinstance(sharding, NamedSharding):
        return str(sharding)
    sizes = ", ".join(f"{name}={size}" for name, size in sharding.mesh.shape.items())
    return f"P{tuple(sharding.spec)} over the mesh ({sizes})"


def filled_leaf(path: str, like: Any, value: Any, sharding: Sharding | None) -> Any:
    """A restored array as its leaf: on its devices, as a key, a number, or an array of NumPy."""
    if not hasattr(like, "dtype") or isinstance(like, np.ndarray | np.generic):
        return restored_leaf(path, like, value)
    array = value if isinstance(value, jax.Array) else jnp.asarray(value)
    if sharding is not None and array.sharding != sharding:
        array = jax.device_put(array, sharding)
    return jax.random.wrap_key_data(array, impl=key_impl(like)) if is_key(like) else array


class Plan(NamedTuple):
    """The entries that a checkpoint must give, and where each array goes."""

    saved: Saved
    paths: Mapping[str, str]
    """By the name of an entry: the path in `like` that receives it."""
    expected: Mapping[str, Any]
    """The leaves of `like` by path."""
    targets: Mapping[str, Sharding]
    """By the path in `like`: the sharding, where it has one."""

    def sharding(self, name: str) -> Sharding | None:
        """The sharding of an entry, unless the process holds the array by itself."""
        path = self.paths.get(name, "")
        leaf = self.expected.get(path)
        is_host = isinstance(leaf, np.ndarray | np.generic) or not hasattr(leaf, "dtype")
        return None if is_host or is_key(leaf) else self.targets.get(path)


def checked_plan(
    saved: Saved,
    match: StateMatch,
    expected: Mapping[str, Any],
    targets: Mapping[str, Sharding],
) -> Plan:
    """What to read of a checkpoint, each entry compared with its leaf before.

    Raises:
      StateError: an entry has another shape or dtype, or a mesh cannot hold it.
    """
    for path, name in match.restored.items():
        check_key(path, expected[path], saved.keys.get(name, ""))
        check_target(path, expected[path], saved.structs[name], targets.get(path))
    paths = {name: path for path, name in match.restored.items()}
    return Plan(saved, paths, expected, targets)


def restored_tree(plan: Plan) -> Any:
    """The part of a flat checkpoint that is read; any other tree is read whole."""
    tree = plan.saved.tree
    is_flat = isinstance(tree, Mapping) and all(hasattr(one, "dtype") for one in tree.values())
    return {name: tree[name] for name in tree if name in plan.paths} if is_flat else tree


def leaves_of(plan: Plan, restored: Any) -> dict[str, Any]:
    """The leaves of `like` by path, from the arrays that Orbax restored."""
    leaves = jax.tree_util.tree_flatten_with_path(restored)[0]
    values = {path_text(path): leaf for path, leaf in leaves}
    for name in plan.saved.empty:
        struct = plan.saved.structs[name]
        values[name] = np.zeros(struct.shape, struct.dtype)
    return {
        path: filled_leaf(path, plan.expected[path], values[name], plan.targets.get(path))
        for name, path in plan.paths.items()
    }
