"""Losses of learning to rank."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gradtx.definition.types import ArrayLike
from gradtx.losses.arithmetic import log_softmax, select
from gradtx.losses.inputs import common_shape, float_array, mask_of, real_array, with_axes
from gradtx.tree.casts import compute_dtype


def ranking_softmax_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduce_fn: Callable[..., ArrayLike] | None = jnp.mean,
) -> jax.Array:
    """Softmax loss of learning to rank (ListNet): −Σ y log softmax(z), over a list's items.

    When: lists with graded or binary relevance, long lists. When not: exactly one item is right;
    take `softmax_cross_entropy_with_integer_labels`.

    Args:
      logits: scores z, real floats of shape (..., items).
      labels: relevance y ≥ 0, floats or integers, which broadcast with z.
      where: bools, which items exist; broadcasts to z. Others may be nan.
      weights: a factor of each item's label; broadcasts to z. None: 1.
      reduce_fn: the reduction of the lists' losses, called with `where=`: the lists with an item,
        or None without a mask. `jnp.mean`, `jnp.sum`; None: no reduction.

    Returns:
      The reduced loss, or one loss per list. In the dtype of z; sums run in float32 at least. A
      list without items has loss 0, and so has the mean of no lists.

    Raises:
      DtypeError: z are not real floats, labels are complex, or `where` is not bools.
      StructureError: the shapes do not broadcast.

    >>> from gradtx import losses
    >>> import jax.numpy as jnp
    >>> z, y = jnp.array([[0.0, 0.0, jnp.nan]]), jnp.array([[1, 0, 0]])
    >>> exists = jnp.array([[True, True, False]])
    >>> round(losses.ranking_softmax_loss(z, y, where=exists).item(), 4)  # log 2
    0.6931

    Cao et al. 2007, ICML, Learning to Rank: From Pairwise Approach to Listwise Approach, section
    4.2; Bruch et al. 2019, ICTIR, equation 5.
    """
    name = "ranking_softmax_loss"
    scores = float_array(name, "logits", logits)
    named = {"logits": scores, "labels": real_array(name, "labels", labels)}
    if weights is not None:
        named["weights"] = real_array(name, "weights", weights)
    shape = common_shape(name, **named)
    mask = mask_of(name, where, shape)
    dtype = compute_dtype(scores.dtype)
    wide, *factors = (with_axes(one.astype(dtype), len(shape)) for one in named.values())
    relevance = select(mask, factors[0] if weights is None else factors[0] * factors[1])
    log_p = log_softmax(jnp.broadcast_to(wide, shape), (-1,), mask)
    loss = -jnp.sum(relevance * log_p, axis=-1).astype(scores.dtype)
    if reduce_fn is None:
        return loss
    return jnp.asarray(reduce_fn(loss, where=None if mask is None else _lists(mask)))


def _lists(mask: jax.Array) -> jax.Array:
    """The lists with an item; all of them if none has one, whose mean would be 0/0."""
    has_item = jnp.any(mask, axis=-1)
    return has_item | ~jnp.any(has_item)
