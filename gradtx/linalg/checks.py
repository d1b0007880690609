"""What is asked of every argument: matrices of real or complex numbers."""

import jax
import jax.numpy as jnp

from gradtx.definition.errors import StructureError
from gradtx.definition.types import ArrayLike
from gradtx.tree import casts


def matrices(where: str, x: ArrayLike) -> jax.Array:
    """The argument as an array of matrices."""
    array = jnp.asarray(x)
    if array.ndim < 2:
        raise StructureError(
            f"{where}: the argument has shape {array.shape}, which is no matrix; give (..., rows, columns)"
        )
    if not casts.is_inexact_dtype(array.dtype):
        raise StructureError(
            f"{where}: the argument has dtype {array.dtype}; give floating-point or complex numbers"
        )
    return array


def squares(where: str, x: ArrayLike) -> jax.Array:
    """The argument as an array of square matrices."""
    array = matrices(where, x)
    if array.shape[-1] != array.shape[-2]:
        raise StructureError(
            f"{where}: the argument has shape {array.shape}, which is not square in its last two axes"
        )
    return array
