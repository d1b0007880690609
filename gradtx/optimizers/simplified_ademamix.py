r"""Simplified AdEMAMix: one momentum for the past, and the current gradient for the present.

m ← β1 m + g                  (a sum, not an average)
r ← β2 r + (1 − β2) g²        r̂ = r / (1 − β2^t)
u = (m + α g) / (√(r̂ + ε_root) + ε)
θ ← θ − η (u + λ θ)
"""

from typing import Unpack

from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, Hyperparam, NonNegative
from gradtx.engine.selector import Where
from gradtx.transforms.moments import Moments, average, debias, init_moments
from gradtx.tree.arithmetic import abs_sq, sqrt


def _simplified_ademamix(grad, slots: Moments, param, step, *, b1, b2, alpha, eps, eps_root):
    mu, nu = b1 * slots.mu + grad, average(slots.nu, abs_sq(grad), b2)
    return (mu + alpha * grad) / (sqrt(debias(nu, b2, step) + eps_root) + eps), Moments(mu, nu)


@definition
def scale_by_simplified_ademamix(
    b1: Decay = 0.99,
    b2: Decay = 0.95,
    alpha: NonNegative = 0.0,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
) -> GradientTransformation:
    """Simplified AdEMAMix's direction: u = (m + α g) / (√(r̂ + ε_root) + ε).

    m is a decaying sum of gradients.

    Args:
      b1: β1 in [0, 1), decay of the sum m.
      b2: β2 in [0, 1), decay of r.
      alpha: α ≥ 0, the weight of this step's gradient.
      eps: ε ≥ 0, outside the root.
      eps_root: ε_root ≥ 0, inside the root.

    Raises:
      HyperparamError: a number is out of its range.

    State: 8 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_simplified_ademamix(alpha=2.0)
    >>> u, _ = tx.update(jnp.array([-7.0]), tx.init(jnp.zeros(1)))  # the sign, 1 + 2 times
    >>> round(u.item(), 4)
    -3.0

    Morwani et al. 2025, arXiv 2502.02431.
    """
    return leafwise(init_moments, _simplified_ademamix)


@definition
def simplified_ademamix(
    learning_rate: Hyperparam,
    b1: Decay = 0.99,
    b2: Decay = 0.95,
    alpha: NonNegative = 0.0,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    weight_decay: NonNegative = 0.0,
    mask: Where | None = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""Simplified AdEMAMix: a slow momentum plus the current gradient, in Adam's memory.

    For every array, all of one shape: m ← β1 m + g, r ← β2 r + (1 − β2) g², θ ← θ − η ((m + α g) /
    (√(r̂ + ε_root) + ε) + λ θ), with r̂ = r/(1 − β2^t).

    m is a sum: u grows to about 1/(1 − β1) + α times Adam's. Choose η smaller by that factor.

    When: as `ademamix`, without its third array; α is large for small batches, 0 for large ones.
    When not: to reuse Adam's learning rates.

    Args:
      learning_rate: η, parameter units per step; about (1 − β1) times Adam's, 1e-6 to 1e-4.
      b1: β1 in [0, 1), decay of the sum m; 0.99 to 0.9999.
      b2: β2 in [0, 1), decay of r; typically 0.95.
      alpha: α ≥ 0, the weight of this step's gradient; 0 to 100.
      eps: ε ≥ 0, outside the root; 1e-8.
      eps_root: ε_root ≥ 0, inside the root.
      weight_decay: λ ≥ 0, a fraction of the parameter per unit of learning rate.
      mask: the leaves that decay (see `masked`); None: all.
      **flags: `decay_form`, `huber_delta`, `cautious`, `peak_learning_rate` and `axis_names`; see
        `descend`.

    Raises:
      HyperparamError: a number is out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 8 bytes per parameter (m and r).

    >>> import gradtx, jax.numpy as jnp
    >>> w, g = jnp.zeros(1), jnp.ones(1)
    >>> tx = gradtx.simplified_ademamix(1.0, b1=0.5, alpha=1.0)
    >>> state = tx.init(w)
    >>> for _ in range(20): u, state = tx.update(g, state, w)
    >>> round(u.item(), 4)  # 1/(1 − 0.5) + 1
    -3.0

    See also: `ademamix`, `scale_by_simplified_ademamix`.

    Morwani et al. 2025, arXiv 2502.02431.
    """
    rule = scale_by_simplified_ademamix(b1, b2, alpha, eps, eps_root)
    return descend(rule, learning_rate, weight_decay, mask, **flags)
