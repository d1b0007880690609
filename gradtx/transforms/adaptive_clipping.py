"""Adaptive gradient clipping: bounds in proportion to the parameters."""

from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.compose.leafwise import leafwise
from gradtx.compose.over_axes import AxisFlags, apply_axis_flags
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.errors import StructureError
from gradtx.definition.types import ArrayLike, NonNegative
from gradtx.transforms.clipping import shrink
from gradtx.tree.arithmetic import abs_sq, sqrt
from gradtx.tree.casts import compute_dtype, mixed_promotion, real_dtype

Axes = int | tuple[int, ...]
Shape = tuple[int, ...]


def _unit_axes(shape: tuple[int, ...]) -> Axes:
    """The axes of one output unit.

    A unit is all of a vector, the inputs of a matrix (inputs, outputs), or a filter of a kernel
    (..., outputs).
    """
    if sum(size > 1 for size in shape) < 2:
        return tuple(range(len(shape)))
    return 0 if len(shape) < 4 else tuple(range(len(shape) - 1))


def _unit_norm(array: jax.Array, axis: Axes | None) -> jax.Array:
    axes = _unit_axes(array.shape) if axis is None else axis
    return sqrt(jnp.sum(abs_sq(array), axis=axes, keepdims=True))


def unitwise_norm(x: ArrayLike, axis: Axes | None = None) -> jax.Array:
    """The norm of each output unit of a weight, as adaptive gradient clipping takes it: ‖x_i‖.

    i counts output units: columns of a matrix (inputs, outputs) and the last axis of a convolution
    kernel; of three axes, the first is summed over. A vector or scalar is one unit. Sums are
    float32 at least, and the derivative at zero is 0.

    Args:
      x: the array.
      axis: the axes that a norm sums over; None: as above.

    Returns: the norms, each repeated over its unit: an array of the shape and precision of x.

    Raises:
      StructureError: more than five axes, without `axis`.

    >>> import jax.numpy as jnp
    >>> from gradtx.transforms.adaptive_clipping import unitwise_norm
    >>> unitwise_norm(jnp.array([[3.0, 1.0], [4.0, 0.0]])).tolist()
    [[5.0, 1.0], [5.0, 1.0]]

    See also: `adaptive_grad_clip`, `unitwise_clip`.

    Brock, De, Smith and Simonyan 2021, arXiv 2102.06171, section 4.
    """
    array = jnp.asarray(x)
    if axis is None and array.ndim > 5:
        raise StructureError(
            f"unitwise_norm: x has shape {array.shape}; of more than five axes, name the axes of a "
            "unit by axis="
        )
    size = _unit_norm(array.astype(compute_dtype(array.dtype)), axis)
    is_float = jnp.issubdtype(array.dtype, jnp.floating)
    return jnp.broadcast_to(size.astype(array.dtype) if is_float else size, array.shape)


def unitwise_clip(
    g_norm: ArrayLike, max_norm: ArrayLike, grad: ArrayLike, div_eps: ArrayLike = 1e-6
) -> jax.Array:
    """Clip units of a gradient whose norm is at least a bound: g_i ← g_i c_i / max(‖g_i‖, ε).

    Units with ‖g_i‖ < c_i do not change.

    When: the norms are at hand, for a clipping rule of your own. When not: clipping as in the
    paper; use `adaptive_grad_clip`.

    Args:
      g_norm: ‖g_i‖, of a shape that broadcasts to that of the gradient; see `unitwise_norm`.
      max_norm: c_i, of such a shape.
      grad: g.
      div_eps: ε > 0, the least divisor.

    Returns: the gradient, in its dtype.

    Raises:
      StructureError: norms that do not broadcast to the shape of the gradient.

    >>> import jax.numpy as jnp
    >>> from gradtx.transforms.adaptive_clipping import unitwise_clip, unitwise_norm
    >>> g = jnp.array([[3.0, 0.6], [4.0, 0.8]])
    >>> unitwise_clip(unitwise_norm(g), jnp.full((2, 2), 2.5), g).tolist()
    [[1.5, 0.6000000238418579], [2.0, 0.800000011920929]]

    Brock, De, Smith and Simonyan 2021, arXiv 2102.06171, equation 3.
    """
    array, size, limit = jnp.asarray(grad), jnp.asarray(g_norm), jnp.asarray(max_norm)
    _check_units(size.shape, limit.shape, array.shape)
    dtype = compute_dtype(array.dtype)
    size, limit = size.astype(real_dtype(dtype)), limit.astype(real_dtype(dtype))
    factor = limit / jnp.maximum(size, jnp.asarray(div_eps).astype(size.dtype))
    factor = jnp.where(size < limit, jnp.ones((), size.dtype), factor)
    with mixed_promotion():
        return (array.astype(dtype) * factor).astype(array.dtype)


def _check_units(size: Shape, limit: Shape, grad: Shape) -> None:
    try:
        fits = np.broadcast_shapes(size, limit, grad) == grad
    except ValueError:
        fits = False
    if not fits:
        raise StructureError(
            f"unitwise_clip: g_norm has shape {size} and max_norm {limit}, the gradient "
            f"{grad}; the norms must broadcast to the gradient"
        )


def _clip_units(grad, slots: None, param, step, *, clipping, eps, axis: Axes | None):
    param_norm, grad_norm = _unit_norm(param, axis), _unit_norm(grad, axis)
    # ε lets weights at zero leave it.
    return shrink(grad_norm, clipping * jnp.maximum(param_norm, eps)) * grad, slots


@definition
def adaptive_grad_clip(
    clipping: NonNegative,
    eps: NonNegative = 1e-3,
    axis: Axes | None = None,
    **flags: Unpack[AxisFlags],
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
      **flags: `axis_names`: the mesh axes that cut the arrays; see `over_axes`.

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
    return apply_axis_flags(leafwise(None, _clip_units, needs_params=True), flags)
