"""Adaptive gradient clipping: bounds in proportion to the parameters."""

import jax.numpy as jnp

from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import NonNegative
from gradtx.transforms.clipping import shrink
from gradtx.tree.arithmetic import abs_sq, sqrt

Axes = int | tuple[int, ...]


def _unit_axes(shape: tuple[int, ...]) -> Axes:
    """The axes of one output unit.

    A unit is all of a vector, the inputs of a matrix (inputs, outputs), or a filter of a kernel
    (..., outputs).
    """
    if sum(size > 1 for size in shape) < 2:
        return tuple(range(len(shape)))
    return 0 if len(shape) < 4 else tuple(range(len(shape) - 1))


def _clip_units(grad, slots: None, param, step, *, clipping, eps, axis: Axes | None):
    axes = _unit_axes(grad.shape) if axis is None else axis
    param_norm, grad_norm = (
        sqrt(jnp.sum(abs_sq(array), axis=axes, keepdims=True)) for array in (param, grad)
    )
    # ε lets weights at zero leave it.
    return shrink(grad_norm, clipping * jnp.maximum(param_norm, eps)) * grad, slots


@definition
def adaptive_grad_clip(
    clipping: NonNegative, eps: NonNegative = 1e-3, axis: Axes | None = None
) -> GradientTransformation:
    """Adaptive gradient clipping (AGC): bound each unit's gradient by a fraction of its weights.

    u_i ← g_i min(1, c max(‖θ_i‖, ε) / ‖g_i‖).

    i counts output units: columns of a matrix (inputs, outputs) and the last axis of a convolution
    kernel; of three axes, the first is summed over. A vector or scalar is one unit. Where ‖g_i‖ is
    not finite, the finite entries of the unit become 0.

    When: large learning rates and batches without batch norm. When not: the last linear layer,
    which the paper excludes; use `masked`.

    Args:
      clipping: c ≥ 0; 0.01 (large batches) to 0.08.
      eps: ε ≥ 0, so that weights at zero can leave it.
      axis: the axes that a norm sums over, in every array; None: as above.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> w, g = jnp.array([[3.0, 0.3], [4.0, 0.4]]), jnp.ones((2, 2))
    >>> tx = gradtx.adaptive_grad_clip(0.1)
    >>> # columns of norm 5 and 0.5: their gradients shrink to norm 0.5 and 0.05
    >>> tx.update(g, tx.init(w), w)[0].round(4)
    Array([[0.3536, 0.0354],
           [0.3536, 0.0354]], dtype=float32)

    Brock, De, Smith and Simonyan 2021, arXiv 2102.06171, equation 3.
    """
    return leafwise(None, _clip_units, needs_params=True)
