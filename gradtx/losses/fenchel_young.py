"""Fenchel-Young losses, from the maximum that they are built on."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.definition.types import ArrayLike
from gradtx.losses.inputs import check_equal_axes, common_shape, promoted, real_array


def make_fenchel_young_loss(max_fun: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Make a Fenchel-Young loss: L(s, y) = max_fun(s) − s·y.

    max_fun(s) = max over p of s·p − Ω(p), for a regulariser Ω of predictions p. The loss differs
    from the Fenchel-Young loss by Ω(y), which has no gradient to s; it is 0 for one-hot y and the
    usual Ω. Its gradient is p(s) − y.

    When: structured or sparse predictions, learning to rank or to optimise with a solver as
    max_fun. When not: log-sum-exp; `softmax_cross_entropy` is that loss.

    Args:
      max_fun: a function of one vector of shape (n,), and of further arguments, with a scalar
        result.

    Returns:
      The loss, a function of `scores` and `targets` of shape (..., n), whose leading axes
      broadcast, and of further arguments for max_fun. It returns one number per vector, of
      arithmetic in float32 at least.

    Raises:
      StructureError: by the loss; shapes do not broadcast, or differ along the last axis.
      DtypeError: by the loss; arrays are complex.

    >>> from gradtx import losses
    >>> import jax, jax.numpy as jnp
    >>> loss = losses.make_fenchel_young_loss(jax.nn.logsumexp)
    >>> s, y = jnp.array([1.0, 2.0]), jnp.array([0.0, 1.0])
    >>> jnp.allclose(jax.grad(loss)(s, y), jax.nn.softmax(s) - y).item()
    True

    Blondel, Martins and Niculae 2020, arXiv 1901.02324, Definition 2.
    """
    return functools.partial(_fenchel_young_loss, max_fun)


def _fenchel_young_loss(
    max_fun: Callable[..., jax.Array],
    scores: ArrayLike,
    targets: ArrayLike,
    *args: Any,
    **kwargs: Any,
) -> jax.Array:
    name = "fenchel_young_loss"
    named = {
        "scores": real_array(name, "scores", scores),
        "targets": real_array(name, "targets", targets),
    }
    common_shape(name, **named)
    check_equal_axes(name, (-1,), **named)
    (left, right), dtype = promoted(*named.values())

    def maximum(vector: jax.Array) -> jax.Array:
        return max_fun(vector, *args, **kwargs)

    batch = left.shape[:-1]
    maxima = jax.vmap(maximum)(left.reshape(-1, left.shape[-1])).reshape(batch)
    return (maxima - jnp.sum(left * right, axis=-1)).astype(dtype)
