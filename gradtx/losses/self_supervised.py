"""Losses of embeddings: NT-Xent, and triplets with a margin."""

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.definition.errors import StructureError
from gradtx.definition.types import ArrayLike
from gradtx.losses.arithmetic import power
from gradtx.losses.inputs import Axis, axes_of, common_shape, float_array, promoted
from gradtx.tree.arithmetic import sqrt
from gradtx.tree.casts import compute_dtype


def ntxent(embeddings: ArrayLike, labels: ArrayLike, temperature: ArrayLike = 0.07) -> jax.Array:
    """NT-Xent, the contrastive loss of SimCLR: cross entropy of scaled cosine similarities.

    s_ij = cos(x_i, x_j)/T. For each ordered pair i ≠ j of one label:
    L_ij = −log(exp(s_ij) / (exp(s_ij) + Σ exp(s_ik) over all k of another label). The result is
    their mean; 0 if there is no such pair.

    When: two views of each example in one batch, labelled by the example. When not: small batches;
    the loss needs many negatives.

    Args:
      embeddings: x, real floats of shape (batch, features). Norms have a floor of √(machine
        epsilon), 3.5e-4 in float32.
      labels: of shape (batch,); rows of one label are positive pairs.
      temperature: T > 0; 0.07, 0.1 to 0.5 in the paper.

    Returns:
      One number, in the dtype of x. Sums run in float32 at least.

    Raises:
      DtypeError: x are not real floats.
      StructureError: x have not two axes, or there is not one label per row.

    >>> from gradtx import losses
    >>> import jax.numpy as jnp
    >>> x = jnp.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    >>> near, far = jnp.array([0, 0, 1, 1]), jnp.array([0, 1, 0, 1])  # by direction, across
    >>> losses.ntxent(x, near).item() < losses.ntxent(x, far).item()
    True

    Chen, Kornblith, Norouzi and Hinton 2020, arXiv 2002.05709, equation 1.
    """
    rows, groups = float_array("ntxent", "embeddings", embeddings), jnp.asarray(labels)
    if rows.ndim != 2 or groups.shape != rows.shape[:1]:
        raise StructureError(
            f"ntxent: embeddings has shape {rows.shape} and labels has shape {groups.shape}; pass "
            "(batch, features) and (batch,), one label per row along axis 0"
        )
    wide = rows.astype(compute_dtype(rows.dtype))
    similarities = _cosines(wide) / jnp.asarray(temperature).astype(wide.dtype)
    is_alike = groups[:, None] == groups[None]
    is_pair = is_alike & ~jnp.eye(groups.shape[0], dtype=bool)
    losses = jax.nn.softplus(_log_sum(similarities, ~is_alike) - similarities)
    pairs = jnp.sum(is_pair, dtype=wide.dtype)
    return (jnp.sum(losses, where=is_pair) / jnp.maximum(pairs, 1)).astype(rows.dtype)


def triplet_margin_loss(
    anchors: ArrayLike,
    positives: ArrayLike,
    negatives: ArrayLike,
    axis: Axis = -1,
    norm_degree: ArrayLike = 2,
    margin: ArrayLike = 1.0,
    eps: ArrayLike = 1e-6,
) -> jax.Array:
    """Triplet margin loss: max(0, d(a, p) − d(a, n) + m).

    d(x, y) = (Σ |x − y|^r + ε)^(1/r) along `axis`; max |x − y| for r = ∞. An anchor is to be nearer
    to its positive than to its negative, by m.

    When: metric learning with mined triplets. When not: batches with many negatives per anchor;
    take `ntxent`, which uses them all.

    Args:
      anchors: a, real floats; vectors lie along `axis`.
      positives: p, real floats, which broadcast with a.
      negatives: n, real floats, which broadcast with a.
      axis: axis or axes of the vectors; None: all.
      norm_degree: r > 0; 2: the Euclidean distance.
      margin: m ≥ 0, in the unit of the distances.
      eps: ε ≥ 0; above 0, the distance of equal vectors has a bounded slope. With ε = 0 their
        gradient is 0.

    Returns:
      One loss per triplet: the common shape without `axis`. Sums run in float32 at least.

    Raises:
      DtypeError: an array is not real floats.
      StructureError: the shapes do not broadcast.
      HyperparamError: `axis` is not an axis.

    >>> from gradtx import losses
    >>> import jax.numpy as jnp
    >>> a, p = jnp.zeros(2), jnp.array([0.0, 1.0])
    >>> n = jnp.array([[0.0, 1.0], [0.0, 1.5], [0.0, 9.0]])
    >>> losses.triplet_margin_loss(a, p, n).round(3).tolist()
    [1.0, 0.5, 0.0]

    Balntas et al. 2016, BMVC, Learning Local Feature Descriptors with Triplets and Shallow
    Convolutional Neural Networks, equation 2.
    """
    name = "triplet_margin_loss"
    named = {
        "anchors": float_array(name, "anchors", anchors),
        "positives": float_array(name, "positives", positives),
        "negatives": float_array(name, "negatives", negatives),
    }
    axes = axes_of(name, axis, common_shape(name, **named))
    (middle, near, far), dtype = promoted(*named.values())
    gap = _distance(middle - near, norm_degree, eps, axes) - _distance(
        middle - far, norm_degree, eps, axes
    )
    return jnp.maximum(0, gap + jnp.asarray(margin).astype(middle.dtype)).astype(dtype)


def _distance(
    gap: jax.Array, degree: ArrayLike, eps: ArrayLike, axes: tuple[int, ...]
) -> jax.Array:
    """(Σ |x|^r + ε)^(1/r) along some axes."""
    number = float(degree) if isinstance(degree, int | float | np.number) else None
    floor = jnp.asarray(eps).astype(gap.dtype)
    if number == 2:
        # The root that has a derivative at 0 costs an array more, for nothing where eps > 0.
        root = jnp.sqrt if isinstance(eps, int | float) and eps > 0 else sqrt
        return root(jnp.sum(gap * gap, axis=axes) + floor)
    size = jnp.abs(gap)
    if number == 1:
        return jnp.sum(size, axis=axes) + floor
    if number == float("inf"):
        return jnp.max(size, axis=axes, initial=0)
    exponent = jnp.asarray(degree).astype(gap.dtype)
    return power(jnp.sum(power(size, exponent), axis=axes) + floor, 1 / exponent)


def _cosines(rows: jax.Array) -> jax.Array:
    """The cosine of each pair of rows."""
    norms = sqrt(jnp.sum(rows * rows, axis=-1, keepdims=True))
    unit = rows / jnp.maximum(norms, float(jnp.finfo(rows.dtype).eps) ** 0.5)
    # A GPU would round to 10 bits, and 1/T is 14: the loss would have one digit less.
    return jnp.matmul(unit, unit.T, precision=jax.lax.Precision.HIGHEST)


def _log_sum(similarities: jax.Array, mask: jax.Array) -> jax.Array:
    """The logarithm of each row's sum of exponentials over a mask; −∞ for a row without any."""
    top = jnp.max(similarities, axis=-1, keepdims=True, where=mask, initial=-jnp.inf)
    top = jax.lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0))
    # The mask inside: a masked exponential may overflow, and 0 · ∞ in a gradient is nan.
    total = jnp.sum(jnp.exp(jnp.where(mask, similarities - top, -jnp.inf)), axis=-1, keepdims=True)
    is_empty = total == 0
    return jnp.where(is_empty, -jnp.inf, top + jnp.log(jnp.where(is_empty, 1, total)))
