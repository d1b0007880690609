"""Normalized updates: all arrays together have a norm of one, or of a constant."""

from typing import Unpack

import jax.numpy as jnp

from gradtx.compose.leafwise import leafwise
from gradtx.compose.over_axes import AxisFlags, apply_axis_flags
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Hyperparam, NonNegative
from gradtx.transforms.clipping import measure_square
from gradtx.tree.arithmetic import sqrt, sum_scalars


def _conclude(measures, tree_slots: None, step, *, scale_factor=1.0, eps=0.0):
    size = sqrt(sum_scalars(measures.square)) + eps
    # Without a gradient, and where its norm overflows, there is no direction: a step of zero.
    usable = (size > 0) & jnp.isfinite(size)
    inverse = jnp.where(usable, 1 / jnp.where(usable, size, 1.0), 0.0)
    return {"factor": scale_factor * inverse}, None


def _normalize(grad, slots: None, param, step, *, factor):
    return factor * grad, slots


@definition
def normalize(**flags: Unpack[AxisFlags]) -> GradientTransformation:
    """Normalized gradient descent: divide updates by their global norm, u ← g / ‖g‖.

    ‖g‖ runs over all arrays; u is 0 where it is 0. If the norm is not finite, finite entries become
    0, and inf and nan do not change.

    When: only the direction of the gradient counts, and the learning rate is the length of the
    step. When not: near a minimum with a constant learning rate, where steps do not shrink.

    Args:
      **flags: `axis_names`: the mesh axes that cut the arrays; see `over_axes`.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx, g = gradtx.normalize(), {"a": jnp.array([3.0]), "b": jnp.array([-4.0])}
    >>> [round(u.item(), 5) for u in tx.update(g, tx.init(g))[0].values()]
    [0.6, -0.8]

    Hazan, Levy and Shalev-Shwartz 2015, arXiv 1507.02030, Algorithm 1.
    """
    return apply_axis_flags(
        leafwise(None, _normalize, measure=measure_square, conclude=_conclude), flags
    )


@definition
def normalize_by_update_norm(
    scale_factor: Hyperparam = 1.0, eps: NonNegative = 1e-6, **flags: Unpack[AxisFlags]
) -> GradientTransformation:
    """Scale updates to a fixed global norm: u ← c g / (‖g‖ + ε), ‖g‖ over all arrays.

    If the norm is not finite, finite entries become 0, and inf and nan do not change.

    When: behind a method whose steps differ in length, to make all of them equal; ε lets them
    shrink near a minimum. When not: for an upper bound alone; take `clip_by_global_norm`.

    Args:
      scale_factor: c, the norm of the result; any real number.
      eps: ε ≥ 0, in units of the gradient.
      **flags: `axis_names`: the mesh axes that cut the arrays; see `over_axes`.

    Raises:
      HyperparamError: a number out of its range.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.normalize_by_update_norm(10.0, eps=5.0)
    >>> g = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    >>> [round(u.item(), 5) for u in tx.update(g, tx.init(g))[0].values()]
    [3.0, 4.0]
    """
    return apply_axis_flags(
        leafwise(None, _normalize, measure=measure_square, conclude=_conclude), flags
    )
