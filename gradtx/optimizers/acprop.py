r"""ACProp: Adam's denominator from the surprise in the gradient, and one step old.

u = g / (√ŝ + ε),   ŝ = s / (1 − β2^(t−1))       with s from before this step; u = g / (1 + ε) at t = 1
s ← β2 s + (1 − β2) (g − m)² + ε_root            with m from before this step
m ← β1 m + (1 − β1) g
θ ← θ − η (u + λ θ)

The denominator does not know this step's gradient, so that it scales every possible gradient alike:
the direction stays unbiased.
"""

from typing import Any, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, NonNegative
from gradtx.engine.selector import Where
from gradtx.transforms.moments import Moments, average, debias
from gradtx.tree.arithmetic import abs_sq
from gradtx.tree.casts import real_zeros, zeros


def _init(param: jax.Array) -> Moments:
    return Moments(mu=zeros(param), nu=real_zeros(param))


def _update(
    grad: jax.Array,
    slots: Moments,
    param: None,
    step: jax.Array,
    *,
    b1: jax.Array,
    b2: jax.Array,
    eps: jax.Array,
    eps_root: jax.Array,
) -> Any:
    before = jnp.maximum(step - 1, 1)
    scale = jnp.where(step > 1, jnp.sqrt(debias(slots.nu, b2, before)), 1.0)
    nu = average(slots.nu, abs_sq(grad - slots.mu), b2) + eps_root
    return grad / (scale + eps), Moments(average(slots.mu, grad, b1), nu)


@definition
def scale_by_acprop(
    b1: Decay = 0.9, b2: Decay = 0.999, eps: NonNegative = 1e-16, eps_root: NonNegative = 1e-16
) -> GradientTransformation:
    """ACProp's direction: u = g / (√ŝ + ε), where s is an average of (g − m)² up to the step
    before.

    Args:
      b1: β1 in [0, 1), decay of m.
      b2: β2 in [0, 1), decay of s.
      eps: ε ≥ 0, beside the root.
      eps_root: ε_root > 0, added to s at every step; with 0 a gradient that never changes divides
        by zero.

    Raises:
      HyperparamError: a number out of its range.

    State: 8 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_acprop()
    >>> state, directions = tx.init(jnp.zeros(1)), []
    >>> for g in (2.0, 6.0):  # the second is divided by |2 − 0|, the surprise of the first
    ...     u, state = tx.update(jnp.array([g]), state)
    ...     directions.append(round(u.item(), 4))
    >>> directions
    [2.0, 3.0]

    Zhuang et al. 2021, arXiv 2110.05454.
    """
    return leafwise(_init, _update, b1=b1, b2=b2, eps=eps, eps_root=eps_root)


@definition
def acprop(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-16,
    eps_root: NonNegative = 1e-16,
    weight_decay: NonNegative = 0.0,
    mask: Where | None = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""Large steps where the gradient is as expected, scaled by what was known before it came.

    For every array, all of one shape: u = g / (√ŝ + ε), s ← β2 s + (1 − β2) (g − m)² + ε_root,
    m ← β1 m + (1 − β1) g, in this order, and θ ← θ − η (u + λ θ); ŝ = s/(1 − β2^(t−1)) is from
    before this step.

    When: reinforcement learning and adversarial networks, where Adam's denominator, which knows the
    gradient that it divides, may not converge. When not: gradients without noise, for which s, and
    the divisor with it, goes to zero; take `adam`.

    Args:
      learning_rate: η ≥ 0, parameter units per step; 1e-4 to 1e-3. The first step is η g,
        undivided.
      b1: β1 in [0, 1), decay of m, the expected gradient; typically 0.9.
      b2: β2 in [0, 1), decay of s; 0.99 to 0.999.
      eps: ε ≥ 0, beside the root; 1e-16 to 1e-8.
      eps_root: ε_root > 0, added to s at every step; 1e-16.
      weight_decay: λ ≥ 0, a fraction of the parameter per unit of learning rate.
      mask: which leaves decay (see `masked`); None: all.
      **flags: `decay_form`, `cautious` and `peak_learning_rate`, as `descend` explains them.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 8 bytes per parameter (m and s).

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array([0.0])
    >>> tx = gradtx.acprop(0.1)
    >>> _, state = tx.update(jnp.array([1.0]), tx.init(w), w)
    >>> steps = [tx.update(jnp.array([g]), state, w)[0].item() for g in (1.0, 4.0)]  # linear in this step's gradient
    >>> [round(step, 4) for step in steps]
    [-0.1, -0.4]

    See also: `adam`, `scale_by_acprop`.

    Zhuang et al. 2021, arXiv 2110.05454. The m in (g − m)² is that of the step before, as in Optax;
    with that of this step (g − m)² would be β1² times as large.
    """
    return descend(
        scale_by_acprop(b1, b2, eps, eps_root), learning_rate, weight_decay, mask, **flags
    )
