r"""ACProp: AdaBelief whose second moment is one step old.

    u = g / (√ŝ + ε),  ŝ = s / (1 − β2^(t−1))      s from before this step; u = g / (1 + ε) at t = 1
    s ← β2 s + (1 − β2) (g − m)² + ε_root          m from before this step
    m ← β1 m + (1 − β1) g
    θ ← θ − η (u + λ θ)

The divisor does not depend on the gradient of this step. It scales every possible gradient alike,
so the direction is unbiased.
"""

from typing import Unpack

import jax.numpy as jnp

from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, Hyperparam, NonNegative
from gradtx.engine.selector import Where
from gradtx.transforms.moments import Moments, average, debias, init_moments
from gradtx.tree.arithmetic import abs_sq, sqrt


def _acprop(grad, slots: Moments, param, step, *, b1, b2, eps, eps_root):
    # Nothing precedes the first step, which is not divided; there the maximum prevents 0 / 0.
    before = jnp.maximum(step - 1, 1)
    scale = jnp.where(step > 1, sqrt(debias(slots.nu, b2, before)), 1.0)
    # Optax takes the m of the step before; with the m of this step (g − m)² is β1² times as large.
    nu = average(slots.nu, abs_sq(grad - slots.mu), b2) + eps_root
    return grad / (scale + eps), Moments(average(slots.mu, grad, b1), nu)


@definition
def scale_by_acprop(
    b1: Decay = 0.9, b2: Decay = 0.999, eps: NonNegative = 1e-16, eps_root: NonNegative = 1e-16
) -> GradientTransformation:
    """ACProp's direction: u = g / (√ŝ + ε).

    s is an average of (g − m)² up to the step before.

    Args:
      b1: β1 in [0, 1), decay of m.
      b2: β2 in [0, 1), decay of s.
      eps: ε ≥ 0, outside the root.
      eps_root: ε_root > 0, added to s at every step; at 0, a gradient that never changes divides by
        zero.

    Raises:
      HyperparamError: a number is out of its range.

    State: 8 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_acprop()
    >>> state, directions = tx.init(jnp.zeros(1)), []
    >>> for g in (2.0, 6.0):  # the second is divided by |2 − 0|, from the first
    ...     u, state = tx.update(jnp.array([g]), state)
    ...     directions.append(round(u.item(), 4))
    >>> directions
    [2.0, 3.0]

    Zhuang et al. 2021, arXiv 2110.05454.
    """
    return leafwise(init_moments, _acprop)


@definition
def acprop(
    learning_rate: Hyperparam,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-16,
    eps_root: NonNegative = 1e-16,
    weight_decay: NonNegative = 0.0,
    mask: Where | None = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""AdaBelief with a delayed second moment.

    For every array, all of one shape: u = g / (√ŝ + ε), s ← β2 s + (1 − β2) (g − m)² + ε_root, m ←
    β1 m + (1 − β1) g, in this order, and θ ← θ − η (u + λ θ). ŝ = s/(1 − β2^(t−1)) is from before
    this step.

    When: for reinforcement learning and adversarial networks. Adam may not converge there, because
    its divisor depends on the gradient that it divides. When not: for gradients without noise; s
    and the divisor go to zero; take `adam`.

    Args:
      learning_rate: η, parameter units per step; 1e-4 to 1e-3. The first step is η g.
      b1: β1 in [0, 1), decay of m, the expected gradient; typically 0.9.
      b2: β2 in [0, 1), decay of s; 0.99 to 0.999.
      eps: ε ≥ 0, outside the root; 1e-16 to 1e-8.
      eps_root: ε_root > 0, added to s at every step; 1e-16.
      weight_decay: λ ≥ 0, a fraction of the parameter per unit of learning rate.
      mask: the leaves that decay (see `masked`); None: all.
      **flags: `decay_form`, `huber_delta`, `cautious`, `peak_learning_rate` and `axis_names`; see
        `descend`.

    Raises:
      HyperparamError: a number is out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 8 bytes per parameter (m and s).

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array([0.0])
    >>> tx = gradtx.acprop(0.1)
    >>> _, state = tx.update(jnp.array([1.0]), tx.init(w), w)
    >>> steps = [tx.update(jnp.array([g]), state, w)[0].item() for g in (1.0, 4.0)]
    >>> [round(step, 4) for step in steps]  # linear in the gradient of this step
    [-0.1, -0.4]

    See also: `adam`, `scale_by_acprop`.

    Zhuang et al. 2021, arXiv 2110.05454. The m in (g − m)² is from the step before, as in Optax;
    with the m of this step, (g − m)² would be β1² times as large.
    """
    return descend(
        scale_by_acprop(b1, b2, eps, eps_root), learning_rate, weight_decay, mask, **flags
    )
