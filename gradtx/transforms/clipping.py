"""Gradient clipping: entry by entry, array by array, or all together."""

from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.leafwise import leafwise
from gradtx.compose.over_axes import AxisFlags, apply_axis_flags
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Limit, Positive
from gradtx.tree.arithmetic import root_mean_square, sqrt, squared_norm, sum_scalars


def _clip(grad, slots: None, param, step, *, max_delta):
    return jnp.clip(grad, -max_delta, max_delta), slots


@definition
def clip(max_delta: Limit) -> GradientTransformation:
    """Clip every entry of the updates to an interval: u ← min(max(g, −c), c).

    nan stays nan.

    When: single entries spike, and the direction may change. When not: to bound the length of a
    step; take `clip_by_global_norm`, which keeps the direction.

    Args:
      max_delta: c ≥ 0, in units of the gradient.

    Raises:
      StructureError: a complex leaf, since complex numbers have no order.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.clip(1.0)
    >>> tx.update(jnp.array([-3.0, 0.5]), tx.init(jnp.zeros(2)))[0].tolist()
    [-1.0, 0.5]
    """
    return leafwise(None, _clip, real_only=True)


def shrink(size: jax.Array, limit: jax.Array) -> jax.Array:
    """The factor in [0, 1] that brings `size` down to `limit`; 1 within the limit.

    It is 0 when `size` is not finite: finite entries then become 0, while inf and nan remain inf
    and nan in their places."""
    within = size <= limit
    # The inner `where` keeps limit / 0 out of derivatives.
    factor = jnp.where(jnp.isfinite(size), limit / jnp.where(within, 1.0, size), 0.0)
    return jnp.where(within, 1.0, factor)


class Square(NamedTuple):
    """The squared norm of one array."""

    square: jax.Array


def measure_square(grad: jax.Array, slots: None, param: jax.Array, step: jax.Array) -> Square:
    """The `measure` of a rule that needs the global norm of the updates."""
    return Square(squared_norm(grad))


def _conclude(measures, tree_slots: None, step, *, max_norm):
    return {"factor": shrink(sqrt(sum_scalars(measures.square)), max_norm)}, None


def shrink_by_factor(
    grad: jax.Array, slots: None, param: jax.Array, step: jax.Array, *, factor: jax.Array
) -> tuple[jax.Array, None]:
    """The update of clipping by a norm; `with_metrics` recognizes clipping by this function."""
    return factor * grad, slots


@definition
def clip_by_global_norm(max_norm: Limit, **flags: Unpack[AxisFlags]) -> GradientTransformation:
    """Gradient clipping by global norm: u ← g min(1, c / ‖g‖), ‖g‖ over all arrays.

    When: gradients spike now and then, as in recurrent networks and language models; the direction
    stays the same. When not: layers differ much in scale, so that one of them would shrink all;
    take `clip_by_block_rms`.

    The norm is summed in float32 at least, whatever the gradients' dtype. When it is not finite,
    finite entries become 0, and inf and nan do not change.

    Args:
      max_norm: c ≥ 0, in units of the gradient; typically 1.0 for language models.
      **flags: `axis_names`: the mesh axes that cut the arrays; see `over_axes`.

    Raises:
      HyperparamError: a number out of its range.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.clip_by_global_norm(1.0)
    >>> g = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    >>> updates, _ = tx.update(g, tx.init(g))
    >>> [round(u.item(), 5) for u in updates.values()]
    [0.6, 0.8]

    Pascanu, Mikolov and Bengio 2013, arXiv 1211.5063, Algorithm 1.
    """
    return apply_axis_flags(
        leafwise(None, shrink_by_factor, measure=measure_square, conclude=_conclude), flags
    )


def _clip_block(grad, slots: None, param, step, *, threshold):
    return shrink(root_mean_square(grad), threshold) * grad, slots


@definition
def clip_by_block_rms(threshold: Positive, **flags: Unpack[AxisFlags]) -> GradientTransformation:
    """Clip every array by its root mean square (RMS): u ← g min(1, c / rms(g)).

    When: arrays differ in scale, behind a preconditioner. When not: the relative sizes of the
    arrays' steps matter; take `clip_by_global_norm`.

    Args:
      threshold: c > 0; 1.0 in Adafactor.
      **flags: `axis_names`: the mesh axes that cut the arrays; see `over_axes`.

    Raises:
      HyperparamError: a number out of its range.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.clip_by_block_rms(1.0)
    >>> tx.update(jnp.array([4.0, 4.0]), tx.init(jnp.zeros(2)))[0].tolist()
    [1.0, 1.0]

    Shazeer and Stern 2018, arXiv 1804.04235, section 6.
    """
    return apply_axis_flags(leafwise(None, _clip_block), flags)
