"""Checks of arguments: matrices of real or complex numbers."""

import jax
import jax.numpy as jnp

from gradtx.definition.errors import StructureError
from gradtx.definition.types import ArrayLike
from gradtx.tree import casts


def matrices(where: str, x: ArrayLike) -> jax.Array:
    """Convert the argument to an array of matrices, or raise."""
    array = jnp.asarray(x)
    if array.ndim < 2:
        raise StructureError(
            f"{where}: the argument has shape {array.shape}, which is not a matrix; give (..., "
            "rows, columns)"
        )
    if not casts.is_inexact_dtype(array.dtype):
        raise StructureError(
            f"{where}: the argument has dtype {array.dtype}; give floating-point or complex numbers"
        )
    return array


def squares(where: str, x: ArrayLike) -> jax.Array:
    """Convert the argument to an array of square matrices, or raise."""
    array = matrices(where, x)
    if array.shape[-1] != array.shape[-2]:
        raise StructureError(
            f"{where}: the argument has shape {array.shape}, which is not square in its last two "
            "axes"
        )
    return array
