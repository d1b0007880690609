"""Diagonals of batches of matrices."""

import jax
import jax.numpy as jnp

from gradtx.definition.errors import StructureError
from gradtx.definition.types import ArrayLike


def set_diags(a: ArrayLike, new_diags: ArrayLike) -> jax.Array:
    """Set the diagonals of a batch of square matrices.

    Args:
      a: matrices of shape (N, D, D).
      new_diags: their new diagonals, of shape (N, D).

    Returns: the matrices with other diagonals, in the dtype of `a`.

    Raises:
      StructureError: `a` is not a batch of square matrices, or the shapes do not fit.

    >>> import jax.numpy as jnp
    >>> set_diags(jnp.ones((1, 2, 2)), jnp.array([[3.0, 4.0]])).tolist()
    [[[3.0, 1.0], [1.0, 4.0]]]
    """
    matrices, diagonals = jnp.asarray(a), jnp.asarray(new_diags)
    if matrices.ndim != 3 or matrices.shape[1] != matrices.shape[2]:
        raise StructureError(
            f"set_diags: a has shape {matrices.shape}; pass square matrices of shape (N, D, D)"
        )
    if diagonals.shape != matrices.shape[:2]:
        raise StructureError(
            f"set_diags: new_diags has shape {diagonals.shape}, and a has shape {matrices.shape}; "
            f"pass diagonals of shape {matrices.shape[:2]}"
        )
    is_diagonal = jnp.eye(matrices.shape[-1], dtype=bool)
    return jnp.where(is_diagonal[None], diagonals[..., None].astype(matrices.dtype), matrices)


def tile_second_to_last_dim(a: ArrayLike) -> jax.Array:
    """Repeat every entry along a new last axis, as long as the axis before: A_ij = a_i.

    Args:
      a: vectors of shape (..., D).

    Returns: matrices of shape (..., D, D) whose columns are the vectors.

    >>> import jax.numpy as jnp
    >>> tile_second_to_last_dim(jnp.array([1.0, 2.0])).tolist()
    [[1.0, 1.0], [2.0, 2.0]]
    """
    vectors = jnp.asarray(a)
    return jnp.broadcast_to(vectors[..., None], (*vectors.shape, vectors.shape[-1]))
