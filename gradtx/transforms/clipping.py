"""Bound updates: entry by entry, array by array, or all together."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import NonNegative, Positive
from gradtx.tree.arithmetic import abs_sq, squared_norm, sum_scalars


def _clip(
    grad: jax.Array, slots: None, param: None, step: jax.Array, *, max_delta: jax.Array
) -> Any:
    return jnp.clip(grad, -max_delta, max_delta), slots


@definition
def clip(max_delta: NonNegative) -> GradientTransformation:
    """Clip every entry to an interval: u ← min(max(g, −c), c).

    When: single entries spike, and the direction may change. When not: to bound the length of a
    step; take `clip_by_global_norm`, which keeps the direction. nan stays nan.

    Args:
      max_delta: c ≥ 0, in units of the gradient.

    Raises:
      StructureError: a complex leaf, for which there is no order.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.clip(1.0)
    >>> tx.update(jnp.array([-3.0, 0.5]), tx.init(jnp.zeros(2)))[0].tolist()
    [-1.0, 0.5]
    """
    return leafwise(None, _clip, max_delta=max_delta, real_only=True)


def shrink(size: jax.Array, limit: jax.Array) -> jax.Array:
    """The factor in [0, 1] that brings `size` down to `limit`: 1 within it, 0 when `size` is not
    finite.

    With 0, finite entries become a step of zero, while inf and nan stay not finite, and stay where
    they are."""
    within = size <= limit
    return jnp.where(
        within, 1.0, jnp.where(jnp.isfinite(size), limit / jnp.where(within, 1.0, size), 0.0)
    )


class Square(NamedTuple):
    """The squared norm of one array."""

    square: jax.Array


def measure_square(grad: jax.Array, slots: Any, param: Any, step: jax.Array) -> Square:
    """For rules that need the global norm of the updates."""
    return Square(squared_norm(grad))


def _shrinkage(found: Any, shared: None, step: jax.Array, *, max_norm: jax.Array) -> Any:
    return {"factor": shrink(jnp.sqrt(sum_scalars(found.square)), max_norm)}, None


def shrink_by_factor(
    grad: jax.Array, slots: None, param: None, step: jax.Array, *, factor: jax.Array
) -> Any:
    return factor * grad, slots


@definition
def clip_by_global_norm(max_norm: NonNegative) -> GradientTransformation:
    """Shrink all updates together to a norm: u ← g min(1, c / ‖g‖), ‖g‖ over all arrays.

    When: gradients spike now and then, as in recurrent networks and language models; the direction
    is kept. When
    not: layers differ in scale by far, and one of them would shrink all; take `clip_by_block_rms`.

    The norm is summed in float32 at least, whatever the gradients' dtype. When it is not finite,
    finite entries become 0, and the others stay where they are.

    Args:
      max_norm: c ≥ 0, in units of the gradient; typically 1.0 for language models.

    Raises:
      HyperparamError: a number out of its range.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.clip_by_global_norm(1.0)
    >>> updates, _ = tx.update({"a": jnp.array([3.0]), "b": jnp.array([4.0])}, tx.init({"a": jnp.zeros(1), "b": jnp.zeros(1)}))
    >>> [round(u.item(), 5) for u in updates.values()]
    [0.6, 0.8]

    Pascanu, Mikolov and Bengio 2013, arXiv 1211.5063, Algorithm 1.
    """
    return leafwise(
        None, shrink_by_factor, max_norm=max_norm, measure=measure_square, conclude=_shrinkage
    )


def _shrink_to_rms(
    grad: jax.Array, slots: None, param: None, step: jax.Array, *, threshold: jax.Array
) -> Any:
    rms = jnp.sqrt(jnp.sum(abs_sq(grad)) / max(grad.size, 1))
    return shrink(rms, threshold) * grad, slots


@definition
def clip_by_block_rms(threshold: Positive) -> GradientTransformation:
    """Shrink every array to a root mean square: u ← g min(1, c / rms(g)), rms per array.

    When: arrays differ in scale, behind a preconditioner. When not: the relative sizes of the
    arrays' steps matter; take `clip_by_global_norm`.

    Args:
      threshold: c > 0; 1.0 in Adafactor.

    Raises:
      HyperparamError: a number out of its range.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.clip_by_block_rms(1.0)
    >>> tx.update(jnp.array([4.0, 4.0]), tx.init(jnp.zeros(2)))[0].tolist()
    [1.0, 1.0]

    Shazeer and Stern 2018, arXiv 1804.04235, section 6.
    """
    return leafwise(None, _shrink_to_rms, threshold=threshold)
