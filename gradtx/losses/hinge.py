"""Margin losses: hinge and perceptron, of two classes and of several."""

import jax
import jax.numpy as jnp

from gradtx.definition.types import ArrayLike
from gradtx.losses.inputs import (
    check_equal_shapes,
    common_shape,
    promoted,
    real_array,
    result_dtype,
)
from gradtx.losses.labels import is_class, scores_and_labels


def hinge_loss(predictor_outputs: ArrayLike, targets: ArrayLike) -> jax.Array:
    """Hinge loss of two classes (linear SVM): max(0, 1 − y s) for every entry.

    When: a classifier with a margin, whose scores need not be probabilities. When not: labels in
    {0, 1}; scale them to {−1, 1}, or take `sigmoid_binary_cross_entropy`.

    Args:
      predictor_outputs: scores s of any shape.
      targets: y in {−1, 1}, which broadcast with s.

    Returns:
      The loss of every entry. Float32 arithmetic at least.

    Raises:
      DtypeError: an array is complex.
      StructureError: the shapes do not broadcast.

    >>> from gradtx import losses
    >>> import jax.numpy as jnp
    >>> losses.hinge_loss(jnp.array([2.0, 0.25, -1.0]), jnp.array([1, 1, 1])).tolist()
    [0.0, 0.75, 2.0]

    Cortes and Vapnik 1995, Machine Learning 20, equation 25.
    """
    named = {
        "predictor_outputs": real_array("hinge_loss", "predictor_outputs", predictor_outputs),
        "targets": real_array("hinge_loss", "targets", targets),
    }
    common_shape("hinge_loss", **named)
    (scores, signs), dtype = promoted(*named.values())
    return jnp.maximum(0, 1 - scores * signs).astype(dtype)


def perceptron_loss(predictor_outputs: ArrayLike, targets: ArrayLike) -> jax.Array:
    """Perceptron loss of two classes: max(0, −y s) for every entry.

    When: an online linear classifier; gradient descent on it is the perceptron algorithm. When not:
    a margin is wanted; take `hinge_loss`. Scores of 0 have loss 0.

    Args:
      predictor_outputs: scores s of any shape.
      targets: y in {−1, 1}, with the shape of s.

    Returns:
      The loss of every entry. Float32 arithmetic at least.

    Raises:
      DtypeError: an array is complex.
      StructureError: the shapes differ.

    >>> from gradtx import losses
    >>> import jax.numpy as jnp
    >>> losses.perceptron_loss(jnp.array([2.0, -3.0]), jnp.array([1, 1])).tolist()
    [0.0, 3.0]

    Rosenblatt 1958, Psychological Review 65(6).
    """
    named = {
        "predictor_outputs": real_array("perceptron_loss", "predictor_outputs", predictor_outputs),
        "targets": real_array("perceptron_loss", "targets", targets),
    }
    check_equal_shapes("perceptron_loss", **named)
    (scores, signs), dtype = promoted(*named.values())
    return jnp.maximum(0, -scores * signs).astype(dtype)


def multiclass_hinge_loss(scores: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Multiclass hinge loss (Crammer-Singer): max over classes k of s_k + [k ≠ y] − s_y.

    When: a classifier of several classes with a margin. When not: probabilities are wanted; take
    `softmax_cross_entropy_with_integer_labels`.

    Args:
      scores: s of shape (..., K).
      labels: y, integers in [0, K), of a shape that broadcasts to (...). For a label outside,
        s_y is 0, and every class has the margin.

    Returns:
      One loss per example, of shape (...). Float32 arithmetic at least.

    Raises:
      DtypeError: labels are not integers, or scores are complex.
      StructureError: the shapes do not match, or K is 0.

    >>> from gradtx import losses
    >>> import jax.numpy as jnp
    >>> s = jnp.array([[3.0, 1.0, 0.0], [3.0, 2.5, 0.0]])
    >>> losses.multiclass_hinge_loss(s, jnp.array([0, 0])).tolist()  # a gap of 2, one of a half
    [0.0, 0.5]

    Crammer and Singer 2001, Journal of Machine Learning Research 2, equation 4.
    """
    wide, indices = scores_and_labels("multiclass_hinge_loss", scores, labels)
    is_own = is_class(indices, wide.shape[-1])
    loss = jnp.max(jnp.where(is_own, wide, wide + 1), axis=-1) - _own(wide, is_own)
    return loss.astype(result_dtype(scores))


def multiclass_perceptron_loss(scores: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Multiclass perceptron loss: max over classes k of s_k − s_y.

    When: an online classifier of several classes, structured prediction. When not: a margin is
    wanted; take `multiclass_hinge_loss`. Equal scores have loss 0.

    Args:
      scores: s of shape (..., K).
      labels: y, integers in [0, K), of a shape that broadcasts to (...). For a label outside, s_y
        is 0.

    Returns:
      One loss per example, of shape (...). Float32 arithmetic at least.

    Raises:
      DtypeError: labels are not integers, or scores are complex.
      StructureError: the shapes do not match, or K is 0.

    >>> from gradtx import losses
    >>> import jax.numpy as jnp
    >>> losses.multiclass_perceptron_loss(jnp.array([1.0, 3.0, 0.0]), jnp.array(0)).item()
    2.0

    Collins 2002, EMNLP, Discriminative Training Methods for Hidden Markov Models, section 2.
    """
    wide, indices = scores_and_labels("multiclass_perceptron_loss", scores, labels)
    own = _own(wide, is_class(indices, wide.shape[-1]))
    return (jnp.max(wide, axis=-1) - own).astype(result_dtype(scores))


def _own(scores: jax.Array, is_own: jax.Array) -> jax.Array:
    """The score of the label's class."""
    return jnp.sum(jnp.where(is_own, scores, 0), axis=-1)
