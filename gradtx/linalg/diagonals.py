"""Diagonals of batches of matrices."""

import jax
import jax.numpy as jnp

from gradtx.definition.errors import StructureError
from gradtx.definition.types import ArrayLike


def _check_shapes(matrices: tuple[int, ...], diagonals: tuple[int, ...]) -> None:
    """The sentences begin as Optax's do, so that a `match=` of a test of yours still fits."""
    if len(matrices) != 3:
        raise StructureError(
            f"set_diags: Expected `a` to be a 3D tensor (N, D, D), and its shape is {matrices}"
        )
    if len(diagonals) != 2:
        raise StructureError(
            f"set_diags: Expected `new_diags` to be a 2D array (N, D), and its shape is {diagonals}"
        )
    if matrices[1] != matrices[2]:
        raise StructureError(
            f"set_diags: Shape mismatch: expected `a.shape` to be (N, D, D), and it is {matrices}"
        )
    if diagonals != matrices[:2]:
        raise StructureError(
            f"set_diags: Shape mismatch: expected `new_diags.shape` to be {matrices[:2]}, as `a` "
            f"has shape {matrices}, and it is {diagonals}"
        )


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
    _check_shapes(matrices.shape, diagonals.shape)
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
