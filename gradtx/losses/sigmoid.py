"""Losses of binary predictions: sigmoid cross entropy, and the focal loss."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from gradtx.definition.types import ArrayLike
from gradtx.losses.arithmetic import power
from gradtx.losses.inputs import common_shape, float_array, number_like, real_array, with_axes
from gradtx.tree.casts import compute_dtype


def sigmoid_binary_cross_entropy(logits: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Binary cross entropy (BCE) with logits: −y log σ(z) − (1 − y) log(1 − σ(z)).

    For every entry, as max(z, 0) − z y + log(1 + exp(−|z|)), at any size of z; an infinite z counts
    as the largest float. Its derivative is σ(z) − y.

    When: two classes, or several labels that do not exclude each other. When not: exactly one of
    several classes is right; take `softmax_cross_entropy_with_integer_labels`.

    Args:
      logits: z, real floats of any shape.
      labels: y in [0, 1], floats, integers or bools, which broadcast with z.

    Returns:
      The loss of every entry, in the dtype of z. Float32 arithmetic at least.

    Raises:
      DtypeError: z are not real floats, or y are complex.
      StructureError: the shapes do not broadcast.

    >>> from gradtx import losses
    >>> import jax, jax.numpy as jnp
    >>> losses.sigmoid_binary_cross_entropy(jnp.array([1e4, -1e4]), 1).tolist()
    [0.0, 10000.0]

    Goodfellow, Bengio and Courville 2016, Deep Learning, section 6.2.2.2.
    """
    wide, targets, dtype = _logits_and_labels("sigmoid_binary_cross_entropy", logits, labels)
    return _cross_entropy(wide, targets).astype(dtype)


def sigmoid_focal_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: ArrayLike | None = None,
    gamma: ArrayLike = 2.0,
) -> jax.Array:
    """Focal loss of binary predictions: cross entropy times α_t (1 − p_t)^γ, for every entry.

    With p = σ(z): 1 − p_t = y (1 − p) + (1 − y) p, and α_t = y α + (1 − y)(1 − α). Sure and right
    predictions count less, so that rare classes are heard.

    When: detection, where most entries are easy negatives. When not: classes are balanced; take
    `sigmoid_binary_cross_entropy`, which is γ = 0.

    Args:
      logits: z, real floats of any shape.
      labels: y in [0, 1], floats, integers or bools, which broadcast with z.
      alpha: α in (0, 1), weight of y = 1; None: no weights; 0.25 in the paper.
      gamma: γ ≥ 0, how fast easy entries lose weight; 2 in the paper.

    Returns:
      The loss of every entry, in the dtype of z. Float32 arithmetic at least.

    Raises:
      DtypeError: z are not real floats, or y are complex.
      StructureError: the shapes do not broadcast.

    >>> from gradtx import losses
    >>> import jax.numpy as jnp
    >>> easy, hard = losses.sigmoid_focal_loss(jnp.array([4.0, -4.0]), jnp.array([1, 1]))
    >>> round((hard / easy).item(), -3)  # their cross entropies differ by a factor of 221
    660000.0

    Lin et al. 2017, arXiv 1708.02002, equations 4 and 5.
    """
    wide, targets, dtype = _logits_and_labels("sigmoid_focal_loss", logits, labels)
    miss = targets * jax.nn.sigmoid(-wide) + (1 - targets) * jax.nn.sigmoid(wide)
    loss = power(miss, number_like(gamma, wide)) * _cross_entropy(wide, targets)
    if alpha is not None:
        share = number_like(alpha, wide)
        loss = (targets * share + (1 - targets) * (1 - share)) * loss
    return loss.astype(dtype)


def _logits_and_labels(
    function: str, logits: ArrayLike, labels: ArrayLike
) -> tuple[jax.Array, jax.Array, Any]:
    """Both in the precision of their arithmetic, and the dtype of the logits."""
    wide, targets = float_array(function, "logits", logits), real_array(function, "labels", labels)
    count = len(common_shape(function, logits=wide, labels=targets))
    dtype = compute_dtype(wide.dtype)
    return (
        with_axes(wide.astype(dtype), count),
        with_axes(targets.astype(dtype), count),
        wide.dtype,
    )


@jax.custom_jvp
def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    # An infinite logit is the largest number: ∞ − ∞ y would be nan, where the loss is 0.
    limit = jnp.finfo(logits.dtype).max
    logits = jnp.clip(logits, -limit, limit)
    return jnp.maximum(logits, 0) - logits * labels + jnp.log1p(jnp.exp(-jnp.abs(logits)))


def _cross_entropy_jvp(arrays: tuple[jax.Array, jax.Array], tangents: tuple[Any, Any]) -> Any:
    (logits, labels), (logit_tangent, label_tangent) = arrays, tangents
    result = _cross_entropy(logits, labels)
    slope = jnp.zeros_like(result)
    if not isinstance(logit_tangent, SymbolicZero):
        slope += (jax.nn.sigmoid(logits) - labels) * logit_tangent
    if not isinstance(label_tangent, SymbolicZero):
        slope -= logits * label_tangent
    return result, slope


_cross_entropy.defjvp(_cross_entropy_jvp, symbolic_zeros=True)
