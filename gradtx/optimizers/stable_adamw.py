r"""StableAdamW: AdamW with Adafactor's clipping, a learning rate by array that falls where
gradients outgrow their average.

m, r: averages of g and g², corrected for their start, m̂ and r̂
ρ = √(mean of g² / max(r̂, ε²))           one number for the array
η_a = η / max(1, ρ)
θ ← θ − η_a (m̂ / (√r̂ + ε) + λ θ)
"""

from typing import Any, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.binding import Branch
from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, DTypeLike, NonNegative
from gradtx.engine.selector import Selector, Where
from gradtx.transforms.moments import Moments, average, debias
from gradtx.tree.arithmetic import abs_sq, finite
from gradtx.tree.casts import real_zeros, zeros


def _init(param: jax.Array, *, mu_dtype: DTypeLike | None) -> Moments:
    return Moments(mu=zeros(param, mu_dtype), nu=real_zeros(param))


def _update(
    grad: jax.Array,
    slots: Moments,
    param: jax.Array,
    step: jax.Array,
    *,
    b1: jax.Array,
    b2: jax.Array,
    eps: jax.Array,
    weight_decay: jax.Array,
) -> Any:
    square = abs_sq(grad)
    mu, nu = average(slots.mu, grad, b1), average(slots.nu, square, b2)
    mean, variance = debias(mu, b1, step), debias(nu, b2, step)
    excess = finite(
        square / jnp.maximum(variance, eps**2)
    )  # an entry that is inf or nan spoils itself alone
    shrink = 1 / jnp.maximum(1, jnp.sqrt(jnp.sum(excess) / max(excess.size, 1)))
    return shrink * (mean / (jnp.sqrt(variance) + eps) + weight_decay * param), Moments(mu, nu)


@definition
def scale_by_stable_adamw(
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-8,
    mu_dtype: DTypeLike | None = None,
    weight_decay: NonNegative = 0.0,
    mask: Where | None = None,
) -> GradientTransformation | list[Branch]:
    """StableAdamW's direction: u = (m̂ / (√r̂ + ε) + λ θ) / max(1, ρ), with ρ² the mean of g² /
    max(r̂, ε²) over the array.

    Args:
      b1: β1 in [0, 1), decay of m.
      b2: β2 in [0, 1), decay of r.
      eps: ε ≥ 0, beside the root, and the least root in ρ.
      mu_dtype: dtype of m; None: the parameter's, float32 at least.
      weight_decay: λ ≥ 0, which ρ divides too.
      mask: which leaves decay (see `masked`); None: all.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 8 bytes per parameter; 6 with `mu_dtype=bfloat16`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx, g = gradtx.scale_by_stable_adamw(b1=0.0), jnp.array([1.0])
    >>> state = tx.init(g)
    >>> for _ in range(500): u, state = tx.update(g, state, g)
    >>> spiked, _ = tx.update(100 * g, state, g)  # g / √r̂ is 100 / √(0.99 + 0.01 · 100²) = 9.95, and so is ρ
    >>> round(spiked.item(), 4)
    1.0

    Wortsman et al. 2023, arXiv 2304.13013, Algorithm 2.
    """

    def rule(decay: Any) -> GradientTransformation:
        return leafwise(
            _init,
            _update,
            b1=b1,
            b2=b2,
            eps=eps,
            weight_decay=decay,
            mu_dtype=mu_dtype,
            needs_params=True,
        )

    if mask is None:
        return rule(weight_decay)
    chosen = (Selector(mask, answer, "scale_by_stable_adamw: mask") for answer in (True, False))
    return [
        Branch(name, rule(decay), here)
        for name, decay, here in zip(("decays", "rests"), (weight_decay, 0.0), chosen, strict=True)
    ]


@definition
def stable_adamw(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    eps: NonNegative = 1e-8,
    mu_dtype: DTypeLike | None = None,
    weight_decay: NonNegative = 1e-4,
    mask: Where | None = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""AdamW that takes a shorter step with an array whose gradient is larger than its second
    moment foretold.

    For every array, all of one shape but for the number ρ: ρ² = mean of g² / max(r̂, ε²),
    θ ← θ − η / max(1, ρ) (m̂ / (√r̂ + ε) + λ θ).

    When: large transformers, in low precision too, whose loss spikes when r̂ lags behind; in place
    of clipping gradients.
    When not: ρ is taken of whole arrays, so a model kept in one flat vector is better off with
    `clip_by_global_norm` and `adamw`.

    An entry that is inf or nan is left out of ρ, so that the others go on.

    Args:
      learning_rate: η ≥ 0, parameter units per step; 1e-4 to 3e-3, after a warmup.
      b1: β1 in [0, 1), decay of m; typically 0.9.
      b2: β2 in [0, 1), decay of r; 0.95 to 0.99.
      eps: ε ≥ 0, beside the root, and the least root in ρ; 1e-8 to 1e-6.
      mu_dtype: dtype of m; None: the parameter's, float32 at least.
      weight_decay: λ ≥ 0, a fraction of the parameter per unit of the array's own rate; 1e-4 (here)
        to 0.2.
      mask: which leaves decay (see `masked`), such as `r"kernel$"`; None: all.
      **flags: `decay_form`, `cautious` and `peak_learning_rate`, as `descend` explains them. With
        `decay_form` or `cautious` the decay goes at the common η, not at the array's own.

    Raises:
      HyperparamError: a number out of its range.
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
    if flags.get("decay_form") or flags.get("cautious"):
        return descend(
            scale_by_stable_adamw(b1, b2, eps, mu_dtype), learning_rate, weight_decay, mask, **flags
        )
    return descend(
        scale_by_stable_adamw(b1, b2, eps, mu_dtype, weight_decay, mask), learning_rate, **flags
    )
