r"""AdaBelief: Adam that divides by the deviation of gradients from their average.

    m ← β1 m + (1 − β1) g                       m̂ = m / (1 − β1^t)
    s ← β2 s + (1 − β2) (g − m)² + ε_root       ŝ = s / (1 − β2^t)
    u = m̂ / (√ŝ + ε)
    θ ← θ − η u

With Nesterov m̂ = β1 m / (1 − β1^(t+1)) + (1 − β1) g / (1 − β1^t).
"""

from typing import Unpack

from gradtx.compose.descend import DecayFlags, descend
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, Hyperparam, NonNegative
from gradtx.transforms.kernel_rules import momentwise
from gradtx.transforms.moments import (
    Moments,
    average,
    corrected_mean,
    debias,
    init_moments,
    mean_of,
)
from gradtx.transforms.momentum_kernel import MomentumKernel
from gradtx.tree.arithmetic import abs_sq, sqrt


def _adabelief(grad, slots: Moments, param, step, *, b1, b2, eps, eps_root, nesterov: bool):
    mu = average(slots.mu, grad, b1)
    # A steady gradient has no deviation: eps_root, added to the sum, keeps its divisor above 0.
    nu = average(slots.nu, abs_sq(grad - mean_of(mu)), b2) + eps_root
    mean = corrected_mean(mu, grad, b1, step, nesterov)
    return mean / (sqrt(debias(nu, b2, step)) + eps), Moments(mu, nu)


@definition
def scale_by_belief(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-16,
    eps_root: NonNegative = 1e-16,
    *,
    nesterov: bool = False,
    momentum: MomentumKernel | None = None,
) -> GradientTransformation:
    """AdaBelief's direction: u = m̂ / (√ŝ + ε).

    s is an average of (g − m)².

    Args:
      b1: β1 in [0, 1), decay of m.
      b2: β2 in [0, 1), decay of s.
      eps: ε ≥ 0, outside the root.
      eps_root: ε_root ≥ 0, added to s at every step; with ε = ε_root = 0 a steady gradient divides
        by zero.
      nesterov: take m̂ one step ahead.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.

    Raises:
      HyperparamError: a number is out of its range.

    State: 8 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_belief(b1=0.5)
    >>> u, _ = tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))  # g = 4 where m = 2: 4 / |4 − 2|
    >>> round(u.item(), 4)
    2.0

    Zhuang et al. 2020, arXiv 2010.07468, Algorithm 2.
    """
    return momentwise(init_moments, _adabelief, momentum)


@definition
def adabelief(
    learning_rate: Hyperparam,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-16,
    eps_root: NonNegative = 1e-16,
    *,
    nesterov: bool = False,
    momentum: MomentumKernel | None = None,
    **flags: Unpack[DecayFlags],
) -> GradientTransformation:
    r"""AdaBelief: Adam that divides by the deviation of gradients from their average.

    Steps are large where the gradient agrees with its average, and small elsewhere.

    For every array, all of one shape: m ← β1 m + (1 − β1) g, s ← β2 s + (1 − β2) (g − m)² + ε_root,
    θ ← θ − η m̂ / (√ŝ + ε).

    When: for image classifiers and GANs, where Adam generalises worse than SGD; steps along a
    steady gradient may be far larger than η.
    When not: where gradients hardly change; with this small ε their coordinates move far; raise
    `eps` to 1e-8, or take `adamw`.

    Args:
      learning_rate: η, parameter units per step; 1e-4 to 1e-3.
      b1: β1 in [0, 1), decay of m; typically 0.9.
      b2: β2 in [0, 1), decay of s; typically 0.999.
      eps: ε ≥ 0, outside the root; 1e-16 to 1e-8.
      eps_root: ε_root ≥ 0, added to s at every step; 1e-16.
      nesterov: take m̂ one step ahead.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.
      **flags: `weight_decay`, `mask`, `decay_form`, `huber_delta`, `cautious`,
        `peak_learning_rate` and `axis_names`; see `descend`.

    Raises:
      HyperparamError: a number is out of its range.
      MissingParamsError: with weight decay, `update` is called without parameters.

    State: 8 bytes per parameter (m and s).

    >>> import gradtx, jax.numpy as jnp
    >>> tx, g = gradtx.adabelief(1.0, b1=0.5), jnp.array([1.0, 1.0])
    >>> _, state = tx.update(g, tx.init(g))
    >>> updates, _ = tx.update(jnp.array([1.0, -1.0]), state)
    >>> [round(u, 2) for u in updates.tolist()]  # the first gradient is as expected
    [-2.53, 0.52]

    See also: `adam`, `scale_by_belief`.

    Zhuang et al. 2020, arXiv 2010.07468, Algorithm 2.
    """
    return descend(
        scale_by_belief(b1, b2, eps, eps_root, nesterov=nesterov, momentum=momentum),
        learning_rate,
        **flags,
    )
