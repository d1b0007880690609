"""Trees of constants like another tree, and leading axes for batches."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike


def full_like(tree: Any, fill_value: ArrayLike, dtype: DTypeLike | None = None) -> Any:
    """A pytree of constant arrays, shaped like another.

    Args:
      tree: arrays, or their shapes (`jax.ShapeDtypeStruct`); None stays None.
      fill_value: the constant; each leaf casts it to its own dtype.
      dtype: dtype of all leaves; None: each has the dtype of its array.

    Returns: a tree of the same structure.

    >>> import jax.numpy as jnp
    >>> from gradtx.tree.constants import full_like
    >>> full_like({"w": jnp.zeros(2), "n": jnp.array([3])}, 7)
    {'n': Array([7], dtype=int32), 'w': Array([7., 7.], dtype=float32)}
    """
    return jax.tree.map(lambda leaf: jnp.full_like(leaf, fill_value, dtype=dtype), tree)


def zeros_like(tree: Any, dtype: DTypeLike | None = None) -> Any:
    """A pytree of zeros, shaped like another.

    Args:
      tree: arrays, or their shapes (`jax.ShapeDtypeStruct`); None stays None.
      dtype: dtype of all leaves; None: each has the dtype of its array.

    Returns: a tree of the same structure.

    >>> import jax, jax.numpy as jnp
    >>> from gradtx.tree.constants import zeros_like
    >>> zeros_like({"w": jax.ShapeDtypeStruct((2,), jnp.float32)}, jnp.bfloat16)
    {'w': Array([0, 0], dtype=bfloat16)}
    """
    return jax.tree.map(lambda leaf: jnp.zeros_like(leaf, dtype=dtype), tree)


def ones_like(tree: Any, dtype: DTypeLike | None = None) -> Any:
    """A pytree of ones, shaped like another.

    Args:
      tree: arrays, or their shapes (`jax.ShapeDtypeStruct`); None stays None.
      dtype: dtype of all leaves; None: each has the dtype of its array.

    Returns: a tree of the same structure.

    >>> import jax.numpy as jnp
    >>> from gradtx.tree.constants import ones_like
    >>> ones_like({"w": jnp.zeros(2)})
    {'w': Array([1., 1.], dtype=float32)}
    """
    return jax.tree.map(lambda leaf: jnp.ones_like(leaf, dtype=dtype), tree)


def batch_shape(tree: Any, shape: tuple[int, ...] = ()) -> Any:
    """Add leading batch axes to every leaf of a pytree, by repeating it.

    Args:
      tree: arrays, or their shapes (`jax.ShapeDtypeStruct`); None stays None.
      shape: the sizes of the new axes, which come first.

    Returns: a tree of the same structure, with leaves of shape `shape + leaf.shape`.

    >>> import jax.numpy as jnp
    >>> from gradtx.tree.constants import batch_shape
    >>> batch_shape({"w": jnp.arange(2.0)}, (3,))["w"].shape
    (3, 2)
    """
    return jax.tree.map(lambda leaf: _batch(leaf, tuple(shape)), tree)


def _batch(leaf: Any, shape: tuple[int, ...]) -> Any:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct((*shape, *leaf.shape), leaf.dtype)
    return jnp.broadcast_to(leaf, (*shape, *jnp.shape(leaf)))
