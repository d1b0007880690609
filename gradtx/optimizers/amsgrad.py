r"""AMSGrad: Adam whose divisor never falls.

m ← β1 m + (1 − β1) g             m̂ = m / (1 − β1^t)
r ← β2 r + (1 − β2) g²            r̂ = r / (1 − β2^t)
s ← max(s, r̂)                     in torch's order: s ← max(s, r), ŝ = s / (1 − β2^t)
u = m̂ / (√(s + ε_root) + ε)                         u = m̂ / (√(ŝ + ε_root) + ε)
θ ← θ − η u
"""

from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.descend import DecayFlags, descend
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, DTypeLike, Hyperparam, NonNegative, Squares
from gradtx.transforms.kernel_rules import momentwise
from gradtx.transforms.moments import average, debias, mean_of
from gradtx.transforms.momentum_kernel import MomentumKernel
from gradtx.tree.arithmetic import abs_sq, sqrt
from gradtx.tree.casts import real_zeros, zeros


class MaxMoments(NamedTuple):
    """Averages of gradients (mu) and of their squares (nu), and the maximum of nu so far."""

    mu: jax.Array
    nu: Squares
    nu_max: Squares


def _init(param, *, mu_dtype: DTypeLike | None) -> MaxMoments:
    return MaxMoments(mu=zeros(param, mu_dtype), nu=real_zeros(param), nu_max=real_zeros(param))


def _amsgrad(
    grad,
    slots: MaxMoments,
    param,
    step,
    *,
    b1,
    b2,
    eps,
    eps_root,
    bias_correction_mu: bool,
    bias_correction_nu: bool,
    max_after_bias_correction: bool,
):
    mu, nu = average(slots.mu, grad, b1), average(slots.nu, abs_sq(grad), b2)
    mean = debias(mu, b1, step) if bias_correction_mu else mean_of(mu)
    # The paper corrects no bias. Optax takes the maximum of corrected squares, torch corrects it.
    first, last = max_after_bias_correction, not max_after_bias_correction
    square = debias(nu, b2, step) if bias_correction_nu and first else nu
    nu_max = jnp.maximum(slots.nu_max, square)
    top = debias(nu_max, b2, step) if bias_correction_nu and last else nu_max
    return mean / (sqrt(top + eps_root) + eps), MaxMoments(mu, nu, nu_max)


@definition
def scale_by_amsgrad(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DTypeLike | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    *,
    max_after_bias_correction: bool = True,
    momentum: MomentumKernel | None = None,
) -> GradientTransformation:
    """AMSGrad's direction: u = m̂ / (√(s + ε_root) + ε).

    s is the largest r̂ so far.

    Args:
      b1: β1 in [0, 1), decay of m.
      b2: β2 in [0, 1), decay of r.
      eps: ε ≥ 0, outside the root.
      eps_root: ε_root ≥ 0, inside the root.
      mu_dtype: dtype of m; None: the parameter's, at least float32.
      bias_correction_mu: use m / (1 − β1^t) in place of m.
      bias_correction_nu: use r / (1 − β2^t) in place of r.
      max_after_bias_correction: take the maximum of corrected averages. False: take the maximum of
        r, then correct it, as torch does.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.

    Raises:
      HyperparamError: a number is out of its range.

    State: 12 bytes per parameter; 10 with `mu_dtype=bfloat16`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx, g = gradtx.scale_by_amsgrad(b1=0.0, b2=0.0), jnp.array([1.0])
    >>> _, state = tx.update(8 * g, tx.init(g))
    >>> round(tx.update(g, state)[0].item(), 4)  # 8 is not forgotten
    0.125

    Reddi, Kale and Kumar 2018, arXiv 1904.09237, Algorithm 2.
    """
    return momentwise(_init, _amsgrad, momentum)


@definition
def amsgrad(
    learning_rate: Hyperparam,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DTypeLike | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    *,
    max_after_bias_correction: bool = True,
    momentum: MomentumKernel | None = None,
    **flags: Unpack[DecayFlags],
) -> GradientTransformation:
    r"""AMSGrad: Adam divided by the running maximum of its second moment.

    For every array, all of one shape: Adam's m̂ and r̂, s ← max(s, r̂), θ ← θ − η m̂ / (√(s +
    ε_root) + ε).

    When: for rare, large and informative gradients. Adam forgets them and may not converge; AMSGrad
    does. When not: with outliers; each one slows its coordinate down for ever; take `adam` with a
    larger `b2`.

    `amsgrad(eta, max_after_bias_correction=False)` is torch's rule, which corrects the maximum.

    Args:
      learning_rate: η, parameter units per step; 1e-4 to 3e-3.
      b1: β1 in [0, 1), decay of m; typically 0.9.
      b2: β2 in [0, 1), decay of r; 0.99 to 0.999.
      eps: ε ≥ 0, outside the root; 1e-8.
      eps_root: ε_root ≥ 0, inside the root.
      mu_dtype: dtype of m; None: the parameter's, at least float32.
      bias_correction_mu: use m / (1 − β1^t) in place of m.
      bias_correction_nu: use r / (1 − β2^t) in place of r.
      max_after_bias_correction: take the maximum of corrected averages. False: take the maximum of
        r, then correct it, as torch does.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.
      **flags: `weight_decay`, `mask`, `decay_form`, `huber_delta`, `cautious`,
        `peak_learning_rate` and `axis_names`; see `descend`.

    Raises:
      HyperparamError: a number is out of its range.
      MissingParamsError: with weight decay, `update` is called without parameters.

    State: 12 bytes per parameter (m, r and s).

    >>> import gradtx, jax.numpy as jnp
    >>> w, spike = jnp.zeros(1), jnp.array([100.0])
    >>> def after_a_spike(tx):
    ...     _, state = tx.update(spike, tx.init(w))
    ...     for _ in range(100): u, state = tx.update(spike / 100, state)
    ...     return round(u.item(), 3)
    >>> after_a_spike(gradtx.amsgrad(1.0, b2=0.9)), after_a_spike(gradtx.adam(1.0, b2=0.9))
    (-0.01, -0.987)

    See also: `adam`, `yogi`.

    Reddi, Kale and Kumar 2018, arXiv 1904.09237, Algorithm 2.
    """
    rule = scale_by_amsgrad(
        b1,
        b2,
        eps,
        eps_root,
        mu_dtype,
        bias_correction_mu,
        bias_correction_nu,
        max_after_bias_correction=max_after_bias_correction,
        momentum=momentum,
    )
    return descend(rule, learning_rate, **flags)
