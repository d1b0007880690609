"""Sparsemax losses, whose predictions are projections on the simplex."""

import jax
import jax.numpy as jnp

from gradtx.definition.types import ArrayLike
from gradtx.losses.inputs import common_shape, real_array, result_dtype, with_axes
from gradtx.losses.labels import is_class, scores_and_labels
from gradtx.projections.simplex import find_threshold, project_simplex
from gradtx.tree.casts import compute_dtype


def sparsemax_loss(logits: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Sparsemax loss of two classes: a smooth hinge that is 0 from a margin of 1 on.

    With m = z for a label of 1, and −z for 0: 0 for m ≥ 1, −m for m ≤ −1, else (1 − m)²/4.

    When: predictions that are exactly 0 or 1 where the model is sure. When not: gradients must
    never vanish; take `sigmoid_binary_cross_entropy`.

    Args:
      logits: z, real floats of any shape.
      labels: 0 or 1, which broadcast with z; any other number counts as 1.

    Returns:
      The loss of every entry, in the dtype of z. Float32 arithmetic at least.

    Raises:
      DtypeError: an array is complex.
      StructureError: the shapes do not broadcast.

    >>> from gradtx import losses
    >>> import jax.numpy as jnp
    >>> losses.sparsemax_loss(jnp.array([2.0, 0.0, -3.0]), jnp.array([1, 1, 1])).tolist()
    [0.0, 0.25, 3.0]

    Blondel, Martins and Niculae 2020, arXiv 1901.02324, section 4.4.
    """
    name = "sparsemax_loss"
    scores, targets = real_array(name, "logits", logits), real_array(name, "labels", labels)
    count = len(common_shape(name, logits=scores, labels=targets))
    dtype = result_dtype(scores)
    wide = with_axes(scores.astype(compute_dtype(dtype)), count)
    margin = jnp.where(with_axes(targets != 0, count), wide, -wide)
    return _smooth_hinge(margin).astype(dtype)


@jax.custom_jvp
def _smooth_hinge(margin: jax.Array) -> jax.Array:
    curve = (1 - margin) * (1 - margin) / 4
    return jnp.where(margin >= 1, 0, jnp.where(margin <= -1, -margin, curve))


@_smooth_hinge.defjvp
def _smooth_hinge_jvp(
    arrays: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """−clip((1 − m)/2, 0, 1), which is finite where m is not."""
    (margin,), (tangent,) = arrays, tangents
    return _smooth_hinge(margin), -jnp.clip((1 - margin) / 2, 0, 1) * tangent


def multiclass_sparsemax_loss(scores: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Sparsemax loss of several classes; its gradient is sparsemax(s) − onehot(y).

    sparsemax(s) = p is the projection of s on the simplex: most of its entries are exactly 0.
    L = p·s − ½‖p‖² + ½ − s_y: 0 once s_y is above all other scores by 1.

    When: few classes are to have a probability above 0. When not: gradients must never vanish; take
    `softmax_cross_entropy_with_integer_labels`.

    Args:
      scores: s, of shape (..., K).
      labels: y, integers in [0, K), of a shape that broadcasts to (...). An index beyond K − 1
        counts as K − 1, a negative one from the end.

    Returns:
      One loss per example, of shape (...). Float32 arithmetic at least.

    Raises:
      DtypeError: labels are not integers, or scores are complex.
      StructureError: the shapes do not match, or K is 0.

    >>> from gradtx import losses
    >>> import jax, jax.numpy as jnp
    >>> s = jnp.array([2.0, 1.5, -1.0])
    >>> jax.grad(losses.multiclass_sparsemax_loss)(s, jnp.array(0)).tolist()  # 0.75, 0.25, 0
    [-0.25, 0.25, 0.0]

    Martins and Astudillo 2016, arXiv 1602.02068, section 3.2; the projection: Michelot 1986,
    Journal of Optimization Theory and Applications 50(1).
    """
    name = "multiclass_sparsemax_loss"
    wide, indices = scores_and_labels(name, scores, labels)
    classes = wide.shape[-1]
    indices = jnp.clip(jnp.where(indices < 0, indices + classes, indices), 0, classes - 1)
    loss = _sparsemax_loss(wide, is_class(indices, classes))
    return loss.astype(result_dtype(scores))


@jax.custom_jvp
def _sparsemax_loss(scores: jax.Array, is_own: jax.Array) -> jax.Array:
    gaps = scores - jnp.max(scores, axis=-1, keepdims=True)
    threshold = find_threshold([gaps], jnp.ones((), gaps.dtype), (-1,))
    # p·s − ½‖p‖² = ½‖p‖² + τ, as s = p + τ on the support. Of gaps, because the squares of large
    # scores would leave no digits.
    square = jnp.sum(jnp.maximum(gaps - threshold, 0) ** 2, axis=-1)
    return (square + 1) / 2 + threshold[..., 0] - jnp.sum(jnp.where(is_own, gaps, 0), axis=-1)


@_sparsemax_loss.defjvp
def _sparsemax_loss_jvp(
    arrays: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (scores, is_own), (tangent, _) = arrays, tangents
    slope = _sparsemax(scores) - is_own.astype(scores.dtype)
    return _sparsemax_loss(scores, is_own), jnp.sum(slope * tangent, axis=-1)


def _sparsemax(scores: jax.Array) -> jax.Array:
    """The projection on the simplex along the last axis: max(s − τ, 0), which sum to 1."""
    return project_simplex([scores], jnp.ones((), scores.dtype), (-1,))[0]
