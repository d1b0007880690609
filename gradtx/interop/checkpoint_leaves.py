"""The leaves of a checkpoint: which may be saved, and how each comes back as it was."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.definition.errors import StateError, StructureError
from gradtx.definition.show import show_array, show_type
from gradtx.definition.types import PyTree
from gradtx.interop.archive import is_number_dtype
from gradtx.tree.paths import path_text, repeated

KEYS = ("threefry2x32", "rbg", "unsafe_rbg")
"""The kinds of random keys in JAX."""


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """Every leaf of a tree by its path."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    named = [(path_text(path), leaf) for path, leaf in leaves]
    if (twice := repeated(tuple(path for path, _ in named))) is not None:
        raise StructureError(
            f"two leaves have the same path {twice!r}; rename a key, so that every path is unique"
        )
    return dict(named)


def is_key(leaf: Any) -> bool:
    """Whether a leaf holds random keys."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def plain_leaf(path: str, leaf: Any) -> Any:
    """A leaf as an ordinary array."""
    check_leaf(path, leaf, abstract=True)
    if is_key(leaf):
        return jax.random.key_data(leaf)
    return leaf if hasattr(leaf, "dtype") else np.asarray(leaf)


def check_leaf(path: str, leaf: Any, abstract: bool = False) -> None:
    """Raise where a leaf is neither an array of numbers nor a Python number."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        if not abstract:
            raise StructureError(
                f"the leaf at {path!r} is a ShapeDtypeStruct, which has no numbers: save the tree "
                "of arrays, and pass the structs to load as `like`"
            )
    elif isinstance(leaf, Tracer):
        if not abstract:
            raise StructureError(
                f"the leaf at {path!r} is traced: call save outside of jit, grad, vmap and scan"
            )
    elif not _is_number(leaf):
        raise StructureError(
            f"the leaf at {path!r} is {_described(leaf)}; a checkpoint holds arrays and Python "
            "numbers"
        )


def _is_number(leaf: Any) -> bool:
    if not hasattr(leaf, "dtype"):
        # A subclass, an Enum for example, would come back as a plain number.
        return type(leaf) in (bool, int, float, complex) and not np.asarray(leaf).dtype.hasobject
    return is_key(leaf) or is_number_dtype(np.dtype(leaf.dtype))


def _described(leaf: Any) -> str:
    if type(leaf) is int:
        return "a Python int of more than 64 bits"
    dtype = getattr(leaf, "dtype", None)
    return show_type(leaf) + (f" of dtype {dtype}" if dtype is not None else "")


def host_array(path: str, leaf: Any) -> np.ndarray:
    """The numbers of a leaf on this host."""
    try:
        return np.asarray(plain_leaf(path, leaf))
    except RuntimeError as error:
        raise StructureError(
            f"the array at {path!r} cannot be read: {str(error).rstrip('.')}; save an array before "
            "it is donated, and one that is spread over hosts with Orbax"
        ) from None


def plain_shape(leaf: Any) -> tuple[int, ...]:
    """The shape of a leaf as an ordinary array, of key data for random keys."""
    return tuple(getattr(_plain_like(leaf), "shape", ()))


def _plain_like(leaf: Any) -> Any:
    return jax.eval_shape(jax.random.key_data, leaf) if is_key(leaf) else leaf


def check_entry(path: str, like: Any, value: Any) -> None:
    """Raise where an entry has another shape or dtype than its leaf; both may be structs."""
    expected = _plain_like(like)
    if tuple(value.shape) != tuple(expected.shape):
        shapes = f"{tuple(value.shape)}, expected {tuple(expected.shape)}"
        raise StateError(
            f"entry {path!r} has shape {shapes}: this state was made for other parameters"
        )
    if value.dtype != expected.dtype:
        raise StateError(
            f"entry {path!r} is {show_array(value)}, expected {show_array(expected)}: cast the "
            "entry of the flat dict, or make `like` with that dtype"
        )


def restored_leaf(path: str, like: Any, value: Any) -> Any:
    """Check one leaf, and move it to the devices of its counterpart."""
    if not hasattr(like, "dtype"):
        return _number(path, like, value)
    value = value if hasattr(value, "dtype") else np.asarray(value)
    check_entry(path, like, value)
    if isinstance(like, np.ndarray | np.generic):
        return np.array(value)
    # A copy, so that the arrays of the dict may change afterwards.
    array = value if isinstance(value, jax.Array) else jnp.array(value)
    array = jax.random.wrap_key_data(array, impl=key_impl(like)) if is_key(like) else array
    return _placed(path, array, like)


def _number(path: str, like: Any, value: Any) -> Any:
    array = np.asarray(value)
    if array.shape or type(array.item()) is not type(like):
        raise StateError(
            f"entry {path!r} is {show_leaf(array)}, expected a Python {type(like).__name__}"
        )
    return array.item()


def _placed(path: str, value: jax.Array, like: Any) -> jax.Array:
    sharding = getattr(like, "sharding", None)
    # An uncommitted array has no devices of its own choice: JAX may move it.
    if sharding is None or not getattr(like, "committed", True):
        return value
    if not sharding.is_fully_addressable:
        raise StateError(
            f"entry {path!r} would be spread over several processes, and a file or dict restores "
            f"on one: use gradtx.Checkpointer"
        )
    return jax.device_put(value, sharding)


def key_impl(like: Any) -> str:
    """The name of the kind of a random key."""
    return next(
        name
        for name in KEYS
        if jax.eval_shape(lambda name=name: jax.random.key(0, impl=name)).dtype == like.dtype
    )


def show_leaf(leaf: Any) -> str:
    """A leaf as texts of errors show it."""
    return show_array(leaf) if hasattr(leaf, "dtype") else f"a Python {type(leaf).__name__}"


def check_key(path: str, like: Any, dtype: str) -> None:
    """Raise where an entry was saved as a random key of another kind than its leaf."""
    # Kinds of keys may share one shape of key data, so that only the dtype tells them apart.
    if dtype.startswith("key<") and dtype != str(getattr(like, "dtype", "")):
        raise StateError(
            f"entry {path!r} is a random key {dtype}, expected {show_leaf(like)}: make `like` "
            "with keys of that kind"
        )


def check_process(named: Mapping[str, Any]) -> None:
    """Raise where one file cannot hold the arrays: several processes have them, or would write it.

    All processes may hold copies of one array: process 0 has all of its numbers.
    """
    cure = "use gradtx.Checkpointer, which every process calls"
    for path, leaf in named.items():
        if isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer) and not _is_whole(leaf):
            raise StructureError(
                f"save: the array at {path!r} is spread over several processes, and one process "
                f"writes the file: {cure}"
            )
    if jax.process_index():
        raise StructureError(
            f"save: process {jax.process_index()} of {jax.process_count()} would write the file of "
            f"process 0: call save on process 0 alone, or {cure}"
        )


def _is_whole(array: jax.Array) -> bool:
    return array.is_fully_addressable or array.is_fully_replicated
