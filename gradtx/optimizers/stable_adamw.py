r"""StableAdamW: AdamW with Adafactor's update clipping.

    m, r: averages of g and g², bias-corrected: m̂ and r̂
    ρ = √(mean of g² / max(r̂, ε²))           one number for the array
    η_a = η / max(1, ρ)
    θ ← θ − η_a (m̂ / (√r̂ + ε) + λ θ)

The learning rate of an array falls where gradients are larger than their average.
"""

from typing import Unpack

import jax.numpy as jnp

from gradtx.compose.binding import Branch
from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, DTypeLike, Hyperparam, NonNegative
from gradtx.engine.selector import Selector, Where
from gradtx.transforms.kernel_rules import momentwise
from gradtx.transforms.moments import Moments, average, debias, init_moments
from gradtx.transforms.momentum_kernel import MomentumKernel
from gradtx.tree.arithmetic import abs_sq, entries, finite, sqrt


def _stable_adamw(grad, slots: Moments, param, step, *, b1, b2, eps, weight_decay):
    square = abs_sq(grad)
    mu, nu = average(slots.mu, grad, b1), average(slots.nu, square, b2)
    mean, variance = debias(mu, b1, step), debias(nu, b2, step)
    excess = finite(square / jnp.maximum(variance, eps**2))  # inf and nan spoil their entries alone
    rho = sqrt(jnp.sum(excess) / entries(excess.shape))
    direction = mean / (sqrt(variance) + eps) + weight_decay * param
    return direction * (1 / jnp.maximum(1, rho)), Moments(mu, nu)


@definition
def scale_by_stable_adamw(
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-8,
    mu_dtype: DTypeLike | None = None,
    weight_decay: NonNegative = 0.0,
    mask: Where | None = None,
    *,
    momentum: MomentumKernel | None = None,
) -> GradientTransformation | list[Branch]:
    """StableAdamW's direction: u = (m̂ / (√r̂ + ε) + λ θ) / max(1, ρ).

    ρ² is the mean of g² / max(r̂, ε²) over the array.

    Args:
      b1: β1 in [0, 1), decay of m.
      b2: β2 in [0, 1), decay of r.
      eps: ε ≥ 0, outside the root, and the least root in ρ.
      mu_dtype: dtype of m; None: the parameter's, at least float32.
      weight_decay: λ ≥ 0; ρ divides the decay, too.
      mask: the leaves that decay (see `masked`); None: all.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.

    Raises:
      HyperparamError: a number is out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 8 bytes per parameter; 6 with `mu_dtype=bfloat16`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx, g = gradtx.scale_by_stable_adamw(b1=0.0), jnp.array([1.0])
    >>> state = tx.init(g)
    >>> for _ in range(500): u, state = tx.update(g, state, g)
    >>> spiked, _ = tx.update(100 * g, state, g)
    >>> round(spiked.item(), 4)  # g / √r̂ = ρ = 100 / √(0.99 + 0.01 · 100²) = 9.95
    1.0

    Wortsman et al. 2023, arXiv 2304.13013, Algorithm 2.
    """

    if mask is None:
        return momentwise(init_moments, _stable_adamw, momentum, needs_params=True)
    # ρ divides the decay: a masked decay before the rule cannot express that, two branches can.
    without = momentwise(init_moments, _stable_adamw, momentum, weight_decay=0.0, needs_params=True)
    where = "scale_by_stable_adamw: mask"
    decays = momentwise(init_moments, _stable_adamw, momentum, needs_params=True)
    return [
        Branch("decays", decays, Selector(mask, True, where)),
        Branch("rests", without, Selector(mask, False, where)),
    ]


@definition
def stable_adamw(
    learning_rate: Hyperparam,
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-8,
    mu_dtype: DTypeLike | None = None,
    weight_decay: NonNegative = 1e-4,
    mask: Where | None = None,
    *,
    momentum: MomentumKernel | None = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""StableAdamW: AdamW with update clipping for each array.

    An array takes a shorter step when its gradient exceeds its second moment.

    For every array, all of one shape except the number ρ: ρ² = mean of g² / max(r̂, ε²), θ ← θ − η
    / max(1, ρ) (m̂ / (√r̂ + ε) + λ θ).

    When: for large transformers, also in low precision, whose loss spikes when r̂ lags behind; in
    place of gradient clipping.
    When not: for a model in one flat vector, because there is one ρ per array; take
    `clip_by_global_norm` and `adamw`.

    ρ skips entries that are inf or nan, so the other entries still train.

    Args:
      learning_rate: η, parameter units per step; 1e-4 to 3e-3, after a warmup.
      b1: β1 in [0, 1), decay of m; typically 0.9.
      b2: β2 in [0, 1), decay of r; 0.95 to 0.99.
      eps: ε ≥ 0, outside the root, and the least root in ρ; 1e-8 to 1e-6.
      mu_dtype: dtype of m; None: the parameter's, at least float32.
      weight_decay: λ ≥ 0, a fraction of the parameter per unit of the array's own rate; 1e-4 (here)
        to 0.2.
      mask: the leaves that decay, for example `r"kernel$"` (see `masked`); None: all.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.
      **flags: `decay_form`, `huber_delta`, `cautious`, `peak_learning_rate` and `axis_names`; see
        `descend`. With `decay_form` or `cautious` the decay uses the common η, not the array's own.

    Raises:
      HyperparamError: a number is out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 8 bytes per parameter (m and r).

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.zeros(1)
    >>> def after_a_spike(tx):  # gradients of 1, then one of 100
    ...     state = tx.init(w)
    ...     for g in [1.0] * 100 + [100.0]: u, state = tx.update(jnp.array([g]), state, w)
    ...     return round(u.item(), 2)
    >>> after_a_spike(gradtx.adamw(1.0, b2=0.99)), after_a_spike(gradtx.stable_adamw(1.0))
    (-0.87, -0.11)

    See also: `adamw`, `clip_by_block_rms`.

    Wortsman et al. 2023, arXiv 2304.13013, Algorithm 2.
    """
    if flags.get("decay_form") or flags.get("cautious"):  # these act between the rule and the decay
        rule = scale_by_stable_adamw(b1, b2, eps, mu_dtype, momentum=momentum)
        return descend(rule, learning_rate, weight_decay, mask, **flags)
    rule = scale_by_stable_adamw(b1, b2, eps, mu_dtype, weight_decay, mask, momentum=momentum)
    return descend(rule, learning_rate, **flags)
