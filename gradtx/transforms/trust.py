"""Trust ratios: every array's update is scaled by the size of the array."""

from typing import Unpack

import jax.numpy as jnp

from gradtx.compose.leafwise import leafwise
from gradtx.compose.over_axes import AxisFlags, apply_axis_flags
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import NonNegative
from gradtx.tree.arithmetic import norm, root_mean_square


def _trust_ratio(grad, slots: None, param, step, *, min_norm, trust_coefficient, eps):
    param_norm = jnp.maximum(norm(param), min_norm)
    grad_norm = jnp.maximum(norm(grad), min_norm)
    # Without a floor a norm may be 0: a ratio of 1 lets parameters at zero leave it.
    undefined = (param_norm == 0) | (grad_norm == 0)
    ratio = trust_coefficient * param_norm / jnp.where(undefined, 1.0, grad_norm + eps)
    ratio = jnp.where(undefined, 1.0, ratio)
    return jnp.where(jnp.isfinite(ratio), ratio, 0.0) * grad, slots


@definition
def scale_by_trust_ratio(
    min_norm: NonNegative = 0.0,
    trust_coefficient: NonNegative = 1.0,
    eps: NonNegative = 0.0,
    **flags: Unpack[AxisFlags],
) -> GradientTransformation:
    """Scale each update by its layer-wise trust ratio: u ← c ‖θ‖ / (‖g‖ + ε) g, norms per array.

    Both norms have a floor. Where one is still 0, as for parameters that start at zero, u ← g.
    Where the norm of g is not finite, finite entries become 0, and inf and nan do not change.

    When: large batches, layers whose gradients differ in scale from their weights. When not: biases
    and norms, whose size has little meaning; exclude them with `masked`.

    Args:
      min_norm: floor of both norms, ≥ 0.
      trust_coefficient: c ≥ 0; 1 in LAMB, 1e-3 in LARS.
      eps: ε ≥ 0, added to ‖g‖.
      **flags: `axis_names`: the mesh axes that cut the arrays; see `over_axes`.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array([3.0, 4.0])
    >>> tx = gradtx.scale_by_trust_ratio()
    >>> tx.update(jnp.array([0.0, 0.5]), tx.init(w), w)[0].tolist()
    [0.0, 5.0]

    You, Gitman and Ginsburg 2017, arXiv 1708.03888; You et al. 2020, arXiv 1904.00962, Algorithm 2.
    """
    return apply_axis_flags(leafwise(None, _trust_ratio, needs_params=True), flags)


def _scale_by_norm(grad, slots: None, param, step, *, min_scale):
    return jnp.maximum(norm(param), min_scale) * grad, slots


def _scale_by_rms(grad, slots: None, param, step, *, min_scale):
    return jnp.maximum(root_mean_square(param), min_scale) * grad, slots


@definition
def scale_by_param_block_norm(
    min_scale: NonNegative = 1e-3, **flags: Unpack[AxisFlags]
) -> GradientTransformation:
    """Scale each update by the norm of its parameter array: u ← max(‖θ‖, c) g.

    When: the update is normalised, and steps are to be relative. When not: arrays differ much in
    size; take `scale_by_param_block_rms`, which does not grow with it.

    Args:
      min_scale: c ≥ 0, so that parameters at zero can leave it.
      **flags: `axis_names`: the mesh axes that cut the arrays; see `over_axes`.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array([3.0, 4.0])
    >>> tx = gradtx.scale_by_param_block_norm()
    >>> tx.update(jnp.array([1.0, -1.0]), tx.init(w), w)[0].tolist()
    [5.0, -5.0]
    """
    return apply_axis_flags(leafwise(None, _scale_by_norm, needs_params=True), flags)


@definition
def scale_by_param_block_rms(
    min_scale: NonNegative = 1e-3, **flags: Unpack[AxisFlags]
) -> GradientTransformation:
    """Scale each update by the RMS of its parameter array: u ← max(rms(θ), c) g.

    When: steps are to be relative to the parameters, as in Adafactor. When not: behind a learning
    rate that was tuned for absolute steps.

    Args:
      min_scale: c ≥ 0, so that parameters at zero can leave it; 1e-3 in Adafactor.
      **flags: `axis_names`: the mesh axes that cut the arrays; see `over_axes`.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array([4.0, -4.0])
    >>> tx = gradtx.scale_by_param_block_rms()
    >>> tx.update(jnp.array([1.0, 0.5]), tx.init(w), w)[0].tolist()
    [4.0, 2.0]

    Shazeer and Stern 2018, arXiv 1804.04235, section 8.
    """
    return apply_axis_flags(leafwise(None, _scale_by_rms, needs_params=True), flags)
