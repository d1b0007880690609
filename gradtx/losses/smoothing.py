"""Label smoothing."""

import math

import jax
import jax.numpy as jnp

from gradtx.definition.types import ArrayLike
from gradtx.losses.inputs import Axis, axes_of, common_shape, mask_of, probabilities, promoted


def smooth_labels(
    labels: ArrayLike, alpha: ArrayLike, *, axis: Axis = -1, where: ArrayLike | None = None
) -> jax.Array:
    """Label smoothing: mix labels with the uniform distribution, (1 − α) y + α/K.

    K is the number of classes along `axis`. Masked entries do not count in K.

    When: cross entropy of a classifier that grows too confident. When not: distillation of this
    model later; smoothing removes the similarities of classes from its outputs.

    Args:
      labels: y, one-hot labels or probabilities, real floats.
      alpha: α in [0, 1]; typically 0.1. One number, or an array that broadcasts with y.
      axis: axis or axes of the classes; None: all.
      where: bools, which classes exist; broadcasts to y.

    Returns:
      The smoothed labels, with the shape of y.

    Raises:
      DtypeError: labels are class indices or complex, or `where` is not bools.
      StructureError: the shapes do not broadcast.
      HyperparamError: `axis` is not an axis.

    >>> from gradtx import losses
    >>> import jax.numpy as jnp
    >>> y = jnp.array([0.0, 1.0, 0.0, 0.0])
    >>> losses.smooth_labels(y, 0.5).tolist()
    [0.125, 0.625, 0.125, 0.125]

    Szegedy et al. 2016, arXiv 1512.00567, section 7; Müller, Kornblith and Hinton 2019, arXiv
    1906.02629.
    """
    array = probabilities("smooth_labels", "labels", labels)
    common_shape("smooth_labels", labels=array, alpha=jnp.asarray(alpha))
    axes = axes_of("smooth_labels", axis, array.shape)
    mask = mask_of("smooth_labels", where, array.shape)
    (wide, share), dtype = promoted(array, alpha)
    if mask is None:
        classes = jnp.asarray(max(math.prod(array.shape[one] for one in axes), 1), wide.dtype)
    else:
        # Without any class, one avoids a division by 0.
        classes = jnp.maximum(jnp.sum(mask, axes, dtype=wide.dtype, keepdims=True), 1)
    return ((1 - share) * wide + share / classes).astype(dtype)
