"""Give all updates together a norm of one."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Hyperparam, NonNegative
from gradtx.transforms.clipping import measure_square
from gradtx.tree.arithmetic import sum_scalars


def _inverse(size: jax.Array) -> jax.Array:
    """1 / size; 0 where that has no meaning."""
    usable = (size > 0) & jnp.isfinite(size)
    return jnp.where(usable, 1 / jnp.where(usable, size, 1.0), 0.0)


def _to_one(found: Any, shared: None, step: jax.Array) -> Any:
    return {"factor": _inverse(jnp.sqrt(sum_scalars(found.square)))}, None


def _to_factor(
    found: Any, shared: None, step: jax.Array, *, scale_factor: jax.Array, eps: jax.Array
) -> Any:
    return {"factor": scale_factor * _inverse(jnp.sqrt(sum_scalars(found.square)) + eps)}, None


def _times(grad: jax.Array, slots: None, param: None, step: jax.Array, *, factor: jax.Array) -> Any:
    return factor * grad, slots


@definition
def normalize() -> GradientTransformation:
    """Divide all updates by their common norm: u ← g / ‖g‖, ‖g‖ over all arrays; 0 where it is 0.

    When: only the direction of the gradient counts, and the learning rate is the length of the
    step. When not: near a minimum with a constant learning rate, where steps do not shrink. When
    the norm is not finite, finite entries become 0, and the others stay where they are.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx, g = gradtx.normalize(), {"a": jnp.array([3.0]), "b": jnp.array([-4.0])}
    >>> [round(u.item(), 5) for u in tx.update(g, tx.init(g))[0].values()]
    [0.6, -0.8]

    Hazan, Levy and Shalev-Shwartz 2015, arXiv 1507.02030, Algorithm 1.
    """
    return leafwise(None, _times, measure=measure_square, conclude=_to_one)


@definition
def normalize_by_update_norm(
    scale_factor: Hyperparam = 1.0, eps: NonNegative = 1e-6
) -> GradientTransformation:
    """Give all updates together a chosen norm: u ← c g / (‖g‖ + ε), ‖g‖ over all arrays.

    When: behind a method whose steps differ in length, to have them all alike; ε lets them shrink
    near a minimum. When not: for an upper bound alone; take `clip_by_global_norm`. When the norm is
    not finite, finite entries become 0, and the others stay where they are.

    Args:
      scale_factor: c, the norm of the result; any real number.
      eps: ε ≥ 0, in units of the gradient.

    Raises:
      HyperparamError: a number out of its range.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx, g = gradtx.normalize_by_update_norm(10.0, eps=5.0), {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    >>> [round(u.item(), 5) for u in tx.update(g, tx.init(g))[0].values()]
    [3.0, 4.0]
    """
    return leafwise(
        None,
        _times,
        scale_factor=scale_factor,
        eps=eps,
        measure=measure_square,
        conclude=_to_factor,
    )
