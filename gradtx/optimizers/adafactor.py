r"""Adafactor: second moments of rows and columns, and steps in proportion to the parameters.

r ← β_t r + (1 − β_t) mean over columns (g² + ε)        β_t = 1 − t^−0.8
c ← β_t c + (1 − β_t) mean over rows (g² + ε)
v = r ⊗ c / mean(r)                         an average of g² + ε where an array is not factored
u = g / √v,   u ← u / max(1, rms(u) / d)
θ ← θ − η max(rms(θ), 1e-3) u
"""

from collections.abc import Callable
from typing import Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.descend import add_decayed_weights, scale_by_learning_rate
from gradtx.compose.leafwise import leafwise
from gradtx.compose.over_axes import AxisFlags, apply_axis_flags
from gradtx.compose.transformation import GradientTransformation, TransformationLike, definition
from gradtx.definition.types import Decay, DTypeLike, Hyperparam, NonNegative, Positive
from gradtx.engine.selector import Where
from gradtx.transforms import factoring
from gradtx.transforms.clipping import clip_by_block_rms
from gradtx.transforms.momentum import ema
from gradtx.transforms.scaling import scale
from gradtx.transforms.trust import scale_by_param_block_rms

DecayRate = Callable[[jax.Array, jax.Array], jax.Array]
"""From the number of updates so far and the exponent to the decay of the averages."""


def _init(param, *, factored: bool, min_dim_size_to_factor: int) -> factoring.Factored:
    axes = factoring.factored_axes(param.shape, min_dim_size_to_factor) if factored else None
    return factoring.init_factored(param, axes)


def _adafactor(
    grad,
    slots: factoring.Factored,
    param,
    step,
    *,
    decay_rate,
    step_offset,
    epsilon,
    factored: bool,
    min_dim_size_to_factor: int,
    decay_rate_fn: DecayRate | None,
):
    axes = factoring.factored_axes(grad.shape, min_dim_size_to_factor) if factored else None
    # Before the offset the count stays 0: β_t = 0, and nothing is remembered.
    count = jnp.maximum(step - 1 - step_offset, 0)
    power = 1 - (count + 1) ** -decay_rate
    decay = power if decay_rate_fn is None else decay_rate_fn(count, decay_rate)
    averages = factoring.average_factored(
        slots, factoring.bounded_square(grad) + epsilon, decay, axes
    )
    return factoring.divide_by_factored_root(grad, averages, axes), averages


@definition
def scale_by_factored_rms(
    factored: bool = True,
    decay_rate: NonNegative = 0.8,
    step_offset: NonNegative = 0,
    min_dim_size_to_factor: int = 128,
    epsilon: NonNegative = 1e-30,
    decay_rate_fn: DecayRate | None = None,
    **flags: Unpack[AxisFlags],
) -> GradientTransformation:
    """Divide by a factored second moment: u = g / √(r ⊗ c / mean(r)).

    r and c are averages of g² + ε over columns and over rows with decay β_t = 1 − (t − t0)^−p. An
    array with more than two axes is factored along the two longest. Up to step t0 + 1, β_t = 0 and
    the averages have no memory. inf and nan count as 0 in the means.

    Args:
      factored: False stores an average per entry.
      decay_rate: p ≥ 0; 0.8 in the paper.
      step_offset: t0 ≥ 0, the step at which the averages start again, for example the first step of
        a fine-tuning whose step count continues.
      min_dim_size_to_factor: the least length of the second longest axis of a factored array.
      epsilon: ε ≥ 0, added to g².
      decay_rate_fn: `(count − t0, p) -> β_t`, in place of the power; count is 0 at the first
        update.
      **flags: `axis_names`: the mesh axes that cut the arrays; see `over_axes`.

    Raises:
      HyperparamError: a number is out of its range.

    State: 4 bytes per row and per column; 4 bytes per parameter where the array is not factored.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> w, tx = jnp.zeros((512, 256)), gradtx.scale_by_factored_rms()
    >>> [leaf.shape for leaf in jax.tree.leaves(tx.init(w).slots)]
    [(256,), (512,)]

    Shazeer and Stern 2018, arXiv 1804.04235, Algorithm 2, and section 7 for β_t.
    """
    return apply_axis_flags(leafwise(_init, _adafactor), flags)


@definition
def adafactor(
    learning_rate: Hyperparam | None = None,
    min_dim_size_to_factor: int = 128,
    decay_rate: NonNegative = 0.8,
    decay_offset: NonNegative = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: Positive | None = 1.0,
    momentum: Decay | None = None,
    dtype_momentum: DTypeLike | None = jnp.float32,
    weight_decay_rate: NonNegative | None = None,
    eps: NonNegative = 1e-30,
    factored: bool = True,
    weight_decay_mask: Where | None = None,
    **flags: Unpack[AxisFlags],
) -> GradientTransformation:
    r"""Adafactor: factored second moments, in the memory of rows and columns.

    There is no first moment by default.

    For a matrix g (n, k), r (n) and c (k): r ← β_t r + (1 − β_t) mean_j(g² + ε), c ← β_t c + (1 −
    β_t) mean_i(g² + ε), u = g / √(r ⊗ c / mean(r)), u ← u / max(1, rms(u)/d), s = η max(rms(θ),
    1e-3) u, θ ← θ − s; β_t = 1 − t^−p. With momentum m ← μ m + (1 − μ) s replaces s. With decay θ ←
    θ − s − λ θ; η does not multiply λ.

    When: for large matrices, where the state of `adam` does not fit in memory. When not: for small
    networks, where Adafactor saves nothing; for a short fine-tuning, where momentum helps.

    Args:
      learning_rate: η, a fraction of the parameter per step, 1e-3 to 1e-2, after a warmup;
        None: 1.
      min_dim_size_to_factor: the least length of the second longest axis of a factored array.
      decay_rate: p ≥ 0; 0.8.
      decay_offset: the step at which the averages start again, ≥ 0, for example the first step of a
        fine-tuning whose step count continues.
      multiply_by_parameter_scale: False gives steps that do not scale with the parameters.
      clipping_threshold: d > 0; None: no clipping.
      momentum: μ in [0, 1); None: no momentum.
      dtype_momentum: dtype of m; None: the parameter's, at least float32.
      weight_decay_rate: λ ≥ 0, a fraction of the parameter per step; None: no weight decay.
      eps: ε ≥ 0, added to g².
      factored: False stores an average per entry.
      weight_decay_mask: the leaves that decay (see `masked`); None: all.
      **flags: `axis_names`: the mesh axes that cut the arrays; see `over_axes`.

    Raises:
      HyperparamError: a number is out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per row and per column; 4 bytes per parameter for vectors and small arrays; 4
    more with momentum.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> w = jnp.full((256, 256), 2.0)
    >>> tx = gradtx.adafactor(0.1)
    >>> updates, state = tx.update(jnp.full(w.shape, 1e-6), tx.init(w), w)
    >>> round(updates[0, 0].item(), 4)  # a tenth of the parameter's size
    -0.2
    >>> sum(leaf.size for leaf in jax.tree.leaves(state.slots))
    512

    See also: `came`, `sm3`, `scale_by_factored_rms`.

    Shazeer and Stern 2018, arXiv 1804.04235, Algorithm 4, and Algorithm 5 for vectors.
    """
    members: list[TransformationLike] = [
        scale_by_factored_rms(factored, decay_rate, decay_offset, min_dim_size_to_factor, eps)
    ]
    # The order is Optax's: the momentum averages whole steps, and η does not multiply the decay.
    if clipping_threshold is not None:
        members.append(clip_by_block_rms(clipping_threshold))
    if learning_rate is not None:
        members.append(scale_by_learning_rate(learning_rate, flip_sign=False))
    if multiply_by_parameter_scale:
        members.append(scale_by_param_block_rms())
    if momentum is not None:
        members.append(ema(momentum, debias=False, accumulator_dtype=dtype_momentum))
    if weight_decay_rate is not None:
        members.append(add_decayed_weights(weight_decay_rate, weight_decay_mask))
    return apply_axis_flags(chain(*members, scale(-1.0)), flags)
