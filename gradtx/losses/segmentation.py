"""Dice losses of segmentation: the overlap of predicted and true regions."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.definition.errors import HyperparamError, StructureError
from gradtx.definition.types import ArrayLike
from gradtx.losses.inputs import (
    Axis,
    axes_of,
    check_equal_shapes,
    number_like,
    promoted,
    real_array,
    result_dtype,
)
from gradtx.tree.arithmetic import divide

REDUCTIONS = ("mean", "sum", "none")


def dice_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    class_weights: ArrayLike | None = None,
    smooth: ArrayLike = 1.0,
    alpha: ArrayLike = 0.5,
    beta: ArrayLike = 0.5,
    apply_softmax: bool = True,
    reduction: str = "mean",
    ignore_background: bool = False,
    axis: Axis = None,
) -> jax.Array:
    """Dice loss of segmentation (soft Dice, Tversky): one minus the overlap, per class.

    With I = Σ p t, P = Σ p and T = Σ t over the pixels of an image, for each class:
    L = 1 − (I + s) / (I + α (P − I) + β (T − I) + s). α = β = ½ is Dice, other values Tversky.

    When: few pixels belong to the class; the loss does not count true negatives. When not:
    probabilities must be calibrated; add a cross entropy. Where I, P, T and s are 0, L is 0.

    Args:
      predictions: logits of shape (batch, ..., K). K = 1: two classes, by the sigmoid; a last axis
        of 1 may be missing in one of both arrays.
      targets: t, one-hot labels of the same shape; floats, integers or bools.
      class_weights: a factor of each class's loss, of shape (K,); None: 1.
      smooth: s ≥ 0; above 0 the loss of an absent class is smooth.
      alpha: α ≥ 0, weight of false positives.
      beta: β ≥ 0, weight of false negatives.
      apply_softmax: False: the predictions are probabilities p already.
      reduction: over classes: "mean", "sum", or "none".
      ignore_background: leave out class 0 where K > 1.
      axis: axis or axes of the pixels; None: all but the first and the last.

    Returns:
      One loss per example, (batch,); with "none" one per example and class, (batch, K). Sums run in
      float32 at least.

    Raises:
      DtypeError: an array is complex.
      StructureError: the shapes differ, or there is not one weight per class.
      HyperparamError: `reduction` is unknown, `axis` is not an axis, or predictions whose values
        are known outside of jit are not probabilities, in spite of `apply_softmax=False`.

    >>> from gradtx import losses
    >>> import jax.numpy as jnp
    >>> t = jnp.array([[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]])  # three pixels, two classes
    >>> losses.dice_loss(100 * t, t).tolist()
    [0.0]
    >>> worst = losses.dice_loss(-100 * t, t, reduction="none")  # (0 + 1) / (3/2 + 1) left
    >>> [round(one, 4) for one in worst[0].tolist()]
    [0.6, 0.6]

    Milletari, Navab and Ahmadi 2016, arXiv 1606.04797, section 3; Salehi, Erdogmus and Gholipour
    2017, arXiv 1706.05721, equation 2.
    """
    if reduction not in REDUCTIONS:
        raise HyperparamError(
            f"dice_loss: reduction is {reduction!r}, which is not one of {', '.join(REDUCTIONS)}"
        )
    pair = _pair("dice_loss", predictions, targets)
    loss = _dice("dice_loss", *pair, smooth, alpha, beta, apply_softmax, axis)
    loss = _reduce(loss, class_weights, reduction, ignore_background and pair[0].shape[-1] > 1)
    return loss.astype(result_dtype(*pair))


def binary_dice_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    smooth: ArrayLike = 1.0,
    apply_sigmoid: bool = True,
) -> jax.Array:
    """Dice loss of two classes: one minus the overlap of a predicted and a true region.

    With p = σ(z), over the pixels of an image: L = 1 − (Σ p t + s) / (½ Σ p + ½ Σ t + s).

    When: one structure against the rest. When not: several classes; take `dice_loss`.

    Args:
      predictions: logits z of shape (batch, ...), or (batch, ..., 1).
      targets: t in {0, 1}, in one of these shapes; floats, integers or bools.
      smooth: s ≥ 0; above 0 the loss of an empty region is smooth.
      apply_sigmoid: False: the predictions are probabilities p already.

    Returns:
      One loss per example, (batch,). Sums run in float32 at least.

    Raises:
      DtypeError: an array is complex.
      StructureError: the shapes differ.
      HyperparamError: predictions whose values are known outside of jit are not probabilities, in
        spite of their flag.

    >>> from gradtx import losses
    >>> import jax.numpy as jnp
    >>> losses.binary_dice_loss(jnp.full((1, 4, 4), -100.0), jnp.zeros((1, 4, 4))).tolist()
    [0.0]

    Milletari, Navab and Ahmadi 2016, arXiv 1606.04797, section 3.
    """
    arrays = (jnp.asarray(predictions), jnp.asarray(targets))
    left, right = (one if one.shape[-1:] == (1,) else one[..., None] for one in arrays)
    pair = _pair("binary_dice_loss", left, right)
    loss = _dice("binary_dice_loss", *pair, smooth, 0.5, 0.5, apply_sigmoid, None)
    return jnp.mean(loss, axis=-1).astype(result_dtype(*pair))


def multiclass_generalized_dice_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    smooth: ArrayLike = 1.0,
    apply_softmax: bool = True,
    ignore_background: bool = False,
) -> jax.Array:
    """Generalized Dice loss: classes are weighted by the inverse square of their frequency.

    With n = Σ t of each class over the whole batch: w = 1/(n² + 1e-7), scaled to a mean of 1. The
    loss is the mean of w times `dice_loss`, over classes and examples.

    When: classes differ much in size. When not: a class is absent from many batches; its weight is
    then nearly all of the sum.

    Args:
      predictions: logits of shape (batch, ..., K).
      targets: t, one-hot labels of the same shape; floats, integers or bools.
      smooth: s ≥ 0, as in `dice_loss`.
      apply_softmax: False: the predictions are probabilities already.
      ignore_background: leave out class 0 where K > 1; its weight still counts in the scale.

    Returns:
      One number. Sums run in float32 at least.

    Raises:
      DtypeError: an array is complex.
      StructureError: the shapes differ.
      HyperparamError: predictions whose values are known outside of jit are not probabilities, in
        spite of their flag.

    >>> from gradtx import losses
    >>> import jax.numpy as jnp
    >>> t = jnp.array([[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]])
    >>> losses.multiclass_generalized_dice_loss(100 * t, t).item()
    0.0

    Sudre et al. 2017, arXiv 1707.03237, section 2.1.
    """
    name = "multiclass_generalized_dice_loss"
    pair = _pair(name, predictions, targets)
    (_, wide), dtype = promoted(*pair)
    count = jnp.sum(wide, axis=tuple(range(wide.ndim - 1)))
    weights = 1 / (count * count + 1e-7)
    weights *= weights.shape[0] / jnp.sum(weights)
    loss = _dice(name, *pair, smooth, 0.5, 0.5, apply_softmax, None)
    is_part = ignore_background and wide.shape[-1] > 1
    return jnp.mean(_reduce(loss, weights, "mean", is_part)).astype(dtype)


def _pair(function: str, predictions: ArrayLike, targets: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Both arrays with one shape; a last axis of 1 may be missing in one of them."""
    left = real_array(function, "predictions", predictions)
    right = real_array(function, "targets", targets)
    if left.shape == (*right.shape, 1):
        right = right[..., None]
    elif right.shape == (*left.shape, 1):
        left = left[..., None]
    check_equal_shapes(function, predictions=left, targets=right)
    if not left.ndim:
        raise StructureError(
            f"{function}: predictions has shape (), without an axis of classes; pass at least one "
            "axis"
        )
    return left, right


def _check_probabilities(function: str, probabilities: jax.Array) -> None:
    """Raise if arrays whose values are known are not probabilities, logits for example."""
    # A tracer has no values; a jitted loss costs nothing more.
    if isinstance(probabilities, Tracer) or not probabilities.size:
        return
    values = np.asarray(probabilities, dtype=float)
    sums = values.sum(axis=-1) if values.shape[-1] > 1 else np.clip(values, 0, 1) - values + 1
    slack = float(jnp.finfo(result_dtype(probabilities)).eps) ** 0.5
    if values.min() < -slack or not np.all(np.abs(sums - 1) <= slack):
        raise HyperparamError(
            f"{function}: predictions with values in [{values.min():.4g}, {values.max():.4g}] are "
            "not valid probability distributions along axis -1; pass logits with "
            "apply_softmax=True (apply_sigmoid=True), or probabilities that sum to 1"
        )


def _dice(
    function: str,
    predictions: jax.Array,
    targets: jax.Array,
    smooth: ArrayLike,
    alpha: ArrayLike,
    beta: ArrayLike,
    apply_softmax: bool,
    axis: Axis,
) -> jax.Array:
    """One minus the overlap over some axes, for each class, in float32 at least."""
    (wide, truth), _ = promoted(predictions, targets)
    if apply_softmax:
        wide = jax.nn.softmax(wide, axis=-1) if wide.shape[-1] > 1 else jax.nn.sigmoid(wide)
    else:
        _check_probabilities(function, predictions)
    if axis is None:
        axes: tuple[int, ...] = tuple(range(1, wide.ndim - 1))
    else:
        axes = axes_of(function, axis, wide.shape)
    shift, positive, negative = (
        jnp.asarray(one).astype(wide.dtype) for one in (smooth, alpha, beta)
    )
    both, mine, theirs = (jnp.sum(one, axis=axes) for one in (wide * truth, wide, truth))
    above = both + shift
    below = above + positive * (mine - both) + negative * (theirs - both)
    is_empty = below == 0
    return 1 - jnp.where(is_empty, 1, divide(above, jnp.where(is_empty, 1, below)))


def _reduce(
    loss: jax.Array, weights: ArrayLike | None, reduction: str, ignore_background: bool
) -> jax.Array:
    """The loss of all classes, which lie along the last axis."""
    if weights is not None:
        factors = jnp.asarray(weights)
        if factors.ndim and factors.shape != loss.shape[-1:]:
            raise StructureError(
                f"dice_loss: class_weights has shape {factors.shape}, and the losses have shape "
                f"{loss.shape}; pass one weight per class along axis -1, the background included"
            )
        loss = loss * number_like(factors, loss)
    if ignore_background:
        loss = loss[..., 1:]
    if reduction == "none":
        return loss
    return jnp.mean(loss, axis=-1) if reduction == "mean" else jnp.sum(loss, axis=-1)
