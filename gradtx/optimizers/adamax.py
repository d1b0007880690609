r"""AdaMax: Adam with a decaying maximum of |g| in place of the root of an average of g².

m ← β1 m + (1 − β1) g             m̂ = m / (1 − β1^t)
r ← max(β2 r, |g| + ε)
u = m̂ / r
θ ← θ − η u
"""

from typing import Unpack

import jax.numpy as jnp

from gradtx.compose.descend import DecayFlags, descend
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, Hyperparam, NonNegative
from gradtx.transforms.kernel_rules import momentwise
from gradtx.transforms.moments import Moments, average, debias, init_moments
from gradtx.transforms.momentum_kernel import MomentumKernel


def _adamax(grad, slots: Moments, param, step, *, b1, b2, eps):
    mu = average(slots.mu, grad, b1)
    # The paper has no ε; inside the maximum it bounds r, where a gradient was always 0, from below.
    nu = jnp.maximum(b2 * slots.nu, jnp.abs(grad) + eps)
    return debias(mu, b1, step) / nu, Moments(mu, nu)


@definition
def scale_by_adamax(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    *,
    momentum: MomentumKernel | None = None,
) -> GradientTransformation:
    """AdaMax's direction: u = m̂ / r, with r ← max(β2 r, |g| + ε).

    Args:
      b1: β1 in [0, 1), decay of m.
      b2: β2 in [0, 1), decay of r; the maximum needs no bias correction.
      eps: ε ≥ 0, added to every |g|; at 0, a gradient that was always zero divides by zero.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.

    Raises:
      HyperparamError: a number is out of its range.

    State: 8 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx, g = gradtx.scale_by_adamax(b1=0.0, b2=0.5, eps=0.0), jnp.array([1.0])
    >>> _, state = tx.update(8 * g, tx.init(g))
    >>> tx.update(g, state)[0].item()  # 1 over half of 8
    0.25

    Kingma and Ba 2015, arXiv 1412.6980, Algorithm 2.
    """
    return momentwise(init_moments, _adamax, momentum)


@definition
def adamax(
    learning_rate: Hyperparam,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    *,
    momentum: MomentumKernel | None = None,
    **flags: Unpack[DecayFlags],
) -> GradientTransformation:
    r"""AdaMax: Adam with the infinity norm in place of the second moment.

    For every array, all of one shape: m ← β1 m + (1 − β1) g, r ← max(β2 r, |g| + ε), θ ← θ − η m̂ /
    r, with m̂ = m/(1 − β1^t).

    A step is hardly larger than η, because the divisor is a recent maximum of |g|.

    When: for sparse gradients, as of embeddings: r falls slowly where the gradient is zero, and
    noise below the maximum does not change it. When not: with outliers; each one slows its
    coordinate down for 1/(1 − β2) steps; take `adam`.

    Args:
      learning_rate: η, parameter units per step; typically 2e-3.
      b1: β1 in [0, 1), decay of m; typically 0.9.
      b2: β2 in [0, 1), decay of r; typically 0.999.
      eps: ε ≥ 0, added to every |g|; 1e-8.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.
      **flags: `weight_decay`, `mask`, `decay_form`, `huber_delta`, `cautious`,
        `peak_learning_rate` and `axis_names`; see `descend`.

    Raises:
      HyperparamError: a number is out of its range.
      MissingParamsError: with weight decay, `update` is called without parameters.

    State: 8 bytes per parameter (m and r).

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array([0.0, 0.0])
    >>> tx = gradtx.adamax(0.5)
    >>> updates, _ = tx.update(jnp.array([1.0, -1e3]), tx.init(w))
    >>> [round(u, 4) for u in updates.tolist()]  # a first step of 0.5 at any scale of the gradient
    [-0.5, 0.5]

    See also: `adamaxw`, `adam`.

    Kingma and Ba 2015, arXiv 1412.6980, Algorithm 2.
    """
    return descend(scale_by_adamax(b1, b2, eps, momentum=momentum), learning_rate, **flags)
