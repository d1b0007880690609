"""The dtype of a tree: read it, and cast to it."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gradtx.tree.casts import as_array, mixed_promotion
from gradtx.tree.errors import HyperparamError, StructureError
from gradtx.tree.pairs import at, match_rows
from gradtx.tree.paths import path_text

HANDLERS = (None, "promote", "highest", "lowest")


def cast(tree: Any, dtype: DTypeLike | None) -> Any:
    """Cast every leaf of a pytree to a dtype, integers included.

    Args:
      tree: the tree; None stays None.
      dtype: the new dtype; None: the tree does not change.

    Returns: a tree of the same structure.

    >>> import jax.numpy as jnp
    >>> from gradtx.tree.dtypes import cast
    >>> cast({"w": jnp.ones(2)}, jnp.bfloat16)["w"].dtype.name
    'bfloat16'
    """
    if dtype is None:
        return tree
    return jax.tree.map(lambda leaf: as_array(leaf).astype(dtype), tree)


def cast_like(tree: Any, other_tree: Any) -> Any:
    """Cast every leaf of a pytree to the dtype that another tree has in its place.

    Args:
      tree: the tree to cast.
      other_tree: a tree of the same structure; where it has None, the leaf does not change.

    Returns: a tree of the same structure.

    Raises:
      StructureError: trees of different structures.

    >>> import jax.numpy as jnp
    >>> from gradtx.tree.dtypes import cast_like
    >>> cast_like({"w": jnp.ones(2)}, {"w": jnp.ones((), jnp.float16)})["w"].dtype.name
    'float16'
    """
    rows, treedef = match_rows("cast_like", {"tree": tree, "other_tree": other_tree})
    return jax.tree.unflatten(treedef, [_cast_leaf(*row) for row in rows])


def _cast_leaf(leaf: Any, like: Any) -> Any:
    return leaf if leaf is None or like is None else as_array(leaf).astype(jnp.result_type(like))


def dtype(tree: Any, mixed_dtype_handler: str | None = None) -> np.dtype:
    """The dtype of a pytree: the one that all leaves share, or one that they are promoted to.

    Args:
      tree: the tree; the default dtype of floats for an empty one.
      mixed_dtype_handler: for leaves of several dtypes. None raises; "promote" returns the least
        dtype that holds all; "highest" and "lowest" return the dtype of a leaf, to which all others
        (from which it) can be promoted.

    Returns: the dtype.

    Raises:
      StructureError: several dtypes without a handler, or dtypes that have no order.
      HyperparamError: an unknown handler.

    >>> import jax.numpy as jnp
    >>> from gradtx.tree.dtypes import dtype
    >>> tree = {"w": jnp.ones(2), "b": jnp.ones(2, jnp.bfloat16)}
    >>> [dtype(tree, handler).name for handler in ("promote", "highest", "lowest")]
    ['float32', 'float32', 'bfloat16']
    """
    if mixed_dtype_handler not in HANDLERS:
        raise HyperparamError(
            f"dtype: mixed_dtype_handler = {mixed_dtype_handler!r} is unknown; choose one of "
            f"{', '.join(map(repr, HANDLERS))}"
        )
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    dtypes = [np.dtype(jnp.result_type(leaf)) for _, leaf in leaves]
    if not dtypes:
        return np.dtype(jnp.result_type(float))
    if mixed_dtype_handler is None:
        return _single([path_text(path) for path, _ in leaves], dtypes)
    with mixed_promotion():
        if mixed_dtype_handler == "promote":
            return np.dtype(jnp.result_type(*dtypes))
        return _extreme(dtypes, mixed_dtype_handler == "highest")


def _single(paths: Sequence[str], dtypes: Sequence[np.dtype]) -> np.dtype:
    for path, other in zip(paths, dtypes, strict=True):
        if other != dtypes[0]:
            raise StructureError(
                f"dtype: the tree has {dtypes[0]}{at(paths[0])} and {other}{at(path)}; cast it, or "
                f"choose a mixed_dtype_handler"
            )
    return dtypes[0]


def _extreme(dtypes: Sequence[np.dtype], is_highest: bool) -> np.dtype:
    best = dtypes[0]
    for other in dtypes[1:]:
        joint = jnp.promote_types(best, other)
        if joint not in (best, other):
            raise StructureError(
                f"dtype: neither {best} nor {other} can be promoted to the other; cast the tree, "
                f"or take mixed_dtype_handler='promote'"
            )
        if (joint == other) == is_highest:
            best = other
    return best


def canonicalize_dtype(dtype: DTypeLike | None) -> np.dtype | None:
    """A dtype as JAX will hold it: float64 is float32 unless x64 is enabled; None stays None.

    >>> canonicalize_dtype("float64"), canonicalize_dtype(None)
    (dtype('float32'), None)
    """
    return None if dtype is None else np.dtype(jax.dtypes.canonicalize_dtype(dtype))
