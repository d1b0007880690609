"""Class indices of a batch beside its scores."""

import jax
import jax.numpy as jnp

from gradtx.definition.errors import StructureError
from gradtx.definition.types import ArrayLike
from gradtx.losses.inputs import class_indices, real_array, result_dtype, with_axes
from gradtx.tree.casts import compute_dtype


def scores_and_labels(
    function: str, scores: ArrayLike, labels: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Scores of shape (..., K) in the precision of their arithmetic, and labels as (..., 1)."""
    array, indices = real_array(function, "scores", scores), class_indices(function, labels)
    _check_shapes(function, array, indices)
    wide = array.astype(compute_dtype(result_dtype(array)))
    if indices.dtype.itemsize < 4:
        indices = indices.astype(jnp.int32)  # a count of 1,000 classes wraps in 8 bits
    return wide, with_axes(indices[..., None], wide.ndim)


def is_class(indices: jax.Array, classes: int) -> jax.Array:
    """Where a class is that of the label, with the classes along the last axis.

    A comparison with a count, because XLA fuses it with what follows, and not a gather.
    """
    shape = (1,) * (indices.ndim - 1) + (classes,)
    return jax.lax.broadcasted_iota(indices.dtype, shape, indices.ndim - 1) == indices


def _check_shapes(function: str, scores: jax.Array, labels: jax.Array) -> None:
    if not scores.ndim or not scores.shape[-1]:
        raise StructureError(
            f"{function}: scores has shape {scores.shape}, without classes along axis -1; pass at "
            "least one class"
        )
    batch = scores.shape[:-1]
    sizes = zip(reversed(batch), reversed(labels.shape), strict=False)
    if labels.ndim > len(batch) or any(label not in (1, size) for size, label in sizes):
        raise StructureError(
            f"{function}: scores has shape {scores.shape} and labels has shape {labels.shape}, "
            f"which does not broadcast to {batch}; pass one class index per vector along axis -1"
        )
