"""PolyLoss: cross entropy with another first polynomial term."""

import jax
import jax.numpy as jnp

from gradtx.definition.types import ArrayLike
from gradtx.losses.arithmetic import log_softmax, select
from gradtx.losses.inputs import (
    Axis,
    axes_of,
    common_shape,
    float_array,
    mask_of,
    probabilities,
    promoted,
)


def poly_loss_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    epsilon: ArrayLike = 2.0,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """PolyLoss (Poly-1): softmax cross entropy plus ε (1 − p_t).

    L = Σ y (−log p + ε (1 − p)) along `axis`, p = softmax(z). Cross entropy is a series in
    (1 − p_t)^j; ε changes its first coefficient.

    When: a classifier whose cross entropy leaves a little to gain, at the cost of tuning ε. When
    not: a first baseline; take `softmax_cross_entropy`, which is ε = 0.

    Args:
      logits: z, real floats of shape (..., K).
      labels: y ≥ 0, probabilities or one-hot labels, real floats that broadcast with z.
      epsilon: ε ≥ −1; 2 for ImageNet, −1 for detection in the paper. One number, or one per
        example.
      axis: axis or axes of the classes; None: all.
      where: bools, which classes count; broadcasts to z. Others may be nan.

    Returns:
      One loss per example: the common shape without `axis`. Sums run in float32 at least.

    Raises:
      DtypeError: z are not real floats, y are class indices, or `where` is not bools.
      StructureError: the shapes do not broadcast.
      HyperparamError: `axis` is not an axis.

    >>> from gradtx import losses
    >>> import jax.numpy as jnp
    >>> z, y = jnp.zeros(4), jnp.array([1.0, 0.0, 0.0, 0.0])
    >>> round((losses.poly_loss_cross_entropy(z, y) - jnp.log(4.0)).item(), 4)  # 2 (1 - 1/4)
    1.5

    Leng et al. 2022, arXiv 2204.12511, equation 3.
    """
    name = "poly_loss_cross_entropy"
    named = {
        "logits": float_array(name, "logits", logits),
        "labels": probabilities(name, "labels", labels),
    }
    shape = common_shape(name, **named)
    axes, mask = axes_of(name, axis, shape), mask_of(name, where, shape)
    (wide, weights), dtype = promoted(*named.values())
    log_p = log_softmax(jnp.broadcast_to(wide, shape), axes, mask)
    weights = select(mask, weights)
    # Two sums: XLA:GPU stores log p for one sum of both terms.
    cross_entropy = -jnp.sum(weights * log_p, axis=axes)
    miss = -jnp.sum(weights * jnp.expm1(log_p), axis=axes)
    return (cross_entropy + jnp.asarray(epsilon).astype(wide.dtype) * miss).astype(dtype)
