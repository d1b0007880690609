"""Cosine similarity and cosine distance of vectors."""

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.definition.types import ArrayLike
from gradtx.losses.arithmetic import select
from gradtx.losses.inputs import (
    Axis,
    axes_of,
    check_equal_axes,
    common_shape,
    float_array,
    mask_of,
    promoted,
)


def cosine_similarity(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    epsilon: ArrayLike = 0.0,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Cosine similarity of two vectors: p·t / √(max(‖p‖², ε) max(‖t‖², ε)).

    It is in [−1, 1]: 1 for vectors of one direction, 0 for orthogonal ones. Where a vector is zero
    and ε = 0, the similarity is 0, and so is its gradient.

    When: the direction of embeddings matters, and their length does not. When not: lengths carry
    meaning; take `l2_loss`.

    Args:
      predictions: p, real floats; vectors lie along `axis`.
      targets: t, real floats; the other axes broadcast with those of p.
      epsilon: ε ≥ 0, floor of both squared norms; above 0 it bounds the gradient by 1/√ε. One
        number.
      axis: axis or axes of the vectors; None: all.
      where: bools, which entries count; broadcasts to the entries. Others may be nan.

    Returns:
      One similarity per vector: the common shape without `axis`. Sums run in float32 at least.

    Raises:
      DtypeError: arrays are not real floats, or `where` is not bools.
      StructureError: shapes do not broadcast, or differ along `axis`.
      HyperparamError: `axis` is not an axis.

    >>> from gradtx import losses
    >>> import jax.numpy as jnp
    >>> p, t = jnp.array([[3.0, 4.0], [0.0, 0.0]]), jnp.array([6.0, 8.0])
    >>> losses.cosine_similarity(p, t).round(4).tolist()  # one direction; no direction
    [1.0, 0.0]

    See also: `cosine_distance`, `ntxent`.
    """
    similarity, dtype = _cosine("cosine_similarity", predictions, targets, epsilon, axis, where)
    return similarity.astype(dtype)


def cosine_distance(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    epsilon: ArrayLike = 0.0,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Cosine distance of two vectors, one minus their cosine similarity.

    1 − p·t / √(max(‖p‖², ε) max(‖t‖², ε)), in [0, 2]: 0 for vectors of one direction. Where a
    vector is zero and ε = 0, the distance is 1, and its gradient 0.

    When: as a loss that pulls embeddings to one direction. When not: lengths carry meaning; take
    `l2_loss`.

    Args:
      predictions: p, real floats; vectors lie along `axis`.
      targets: t, real floats; the other axes broadcast with those of p.
      epsilon: ε ≥ 0, floor of both squared norms; above 0 it bounds the gradient by 1/√ε. One
        number.
      axis: axis or axes of the vectors; None: all.
      where: bools, which entries count; broadcasts to the entries. Others may be nan.

    Returns:
      One distance per vector: the common shape without `axis`. Sums run in float32 at least.

    Raises:
      DtypeError: arrays are not real floats, or `where` is not bools.
      StructureError: shapes do not broadcast, or differ along `axis`.
      HyperparamError: `axis` is not an axis.

    >>> from gradtx import losses
    >>> import jax.numpy as jnp
    >>> losses.cosine_distance(jnp.array([3.0, 4.0]), jnp.array([-3.0, -4.0])).round(4).item()
    2.0

    See also: `cosine_similarity`.
    """
    similarity, dtype = _cosine("cosine_distance", predictions, targets, epsilon, axis, where)
    return (1 - similarity).astype(dtype)


def _cosine(
    function: str,
    predictions: ArrayLike,
    targets: ArrayLike,
    epsilon: ArrayLike,
    axis: Axis,
    where: ArrayLike | None,
) -> tuple[jax.Array, np.dtype]:
    """The cosine in the precision of its arithmetic, and the dtype of the result."""
    named = {
        "predictions": float_array(function, "predictions", predictions),
        "targets": float_array(function, "targets", targets),
    }
    shape = common_shape(function, **named)
    axes = axes_of(function, axis, shape)
    check_equal_axes(function, axes, **named)
    mask = mask_of(function, where, shape)
    arrays, dtype = promoted(*named.values())
    left, right = (select(mask, jnp.broadcast_to(array, shape)) for array in arrays)
    # Unit vectors first: a mean of the cosines is then one sum, which XLA stores nothing for.
    unit = [array * _inverse_norm(array, axes, epsilon) for array in (left, right)]
    return jnp.sum(unit[0] * unit[1], axis=axes), dtype


def _inverse_norm(array: jax.Array, axes: tuple[int, ...], epsilon: ArrayLike) -> jax.Array:
    """1 / √max(‖x‖², ε), or 0 where that would be infinite."""
    square = jnp.sum(array * array, axis=axes, keepdims=True)
    if not (isinstance(epsilon, int | float) and epsilon == 0):
        square = jnp.maximum(square, jnp.asarray(epsilon).astype(array.dtype))
    return jax.lax.rsqrt(jnp.where(square == 0, jnp.inf, square))
