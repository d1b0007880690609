r"""RAdam: Adam that does not divide until the average of squares is reliable.

    m̂, r̂ as in Adam
    ρ_∞ = 2 / (1 − β2) − 1,   ρ_t = ρ_∞ − 2 t β2^t / (1 − β2^t)      the length of the average r̂
    c_t = √( (ρ_t − 4)(ρ_t − 2) ρ_∞ / ((ρ_∞ − 4)(ρ_∞ − 2) ρ_t) )
    u = c_t m̂ / (√(r̂ + ε_root) + ε)  where ρ_t ≥ 5,  else  u = m̂
    θ ← θ − η u

With Nesterov m̂ = β1 m / (1 − β1^(t+1)) + (1 − β1) g / (1 − β1^t).
"""

from typing import Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.descend import DecayFlags, descend
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, Hyperparam, NonNegative
from gradtx.transforms.kernel_rules import momentwise
from gradtx.transforms.moments import Moments, average, corrected_mean, debias, init_moments
from gradtx.transforms.momentum_kernel import MomentumKernel
from gradtx.tree.arithmetic import abs_sq, sqrt


def effective_length(b2: jax.Array, step: jax.Array, longest: jax.Array) -> jax.Array:
    """Compute ρ_t = ρ_∞ − 2 t β2^t / (1 − β2^t), the length of the average, to full precision."""
    rate = -jnp.log1p(b2 - 1)
    # Early on ρ_t is a difference of two numbers near ρ_∞, which loses all digits of float32. With
    # x = −ln β2 it is t − t f(t x) + f(x), f(y) = coth(y/2) − 2/y = y/6 − y³/360 + y⁵/15120 − ...
    early = step * rate < 0.1
    small = jnp.where(early, rate, 0.0)
    power = jnp.where(early, 0.5, b2**step)  # 0.5 keeps 0 / 0 out of the branch not selected
    series = step - step * _series(step * small) + _series(small)
    return jnp.where(early, series, longest - 2 * step * power / (1 - power))


def _series(y):
    return y * (1 / 6 - y**2 * (1 / 360 - y**2 * (1 / 15120 - y**2 / 604800)))


def _radam(grad, slots: Moments, param, step, *, b1, b2, eps, eps_root, threshold, nesterov: bool):
    mu, nu = average(slots.mu, grad, b1), average(slots.nu, abs_sq(grad), b2)
    mean = corrected_mean(mu, grad, b1, step, nesterov)
    longest = 2 / (1 - b2) - 1
    length = effective_length(b2, step, longest)
    enough = (length >= threshold) & (length > 4)  # at 4 and below the variance is infinite
    rho = jnp.where(enough, length, longest)
    square = (rho - 4) * (rho - 2) / ((longest - 4) * (longest - 2)) * longest / rho
    factor = sqrt(jnp.where(enough, square, 1.0))  # a β2 below 0.67 has a negative square
    scaled = factor * mean / (sqrt(debias(nu, b2, step) + eps_root) + eps)
    return jnp.where(enough, scaled, mean), Moments(mu, nu)


@definition
def scale_by_radam(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    threshold: Hyperparam = 5.0,
    *,
    nesterov: bool = False,
    momentum: MomentumKernel | None = None,
) -> GradientTransformation:
    """RAdam's direction: u = c_t m̂ / (√(r̂ + ε_root) + ε).

    u = m̂ until ρ_t reaches a threshold.

    Args:
      b1: β1 in [0, 1), decay of m.
      b2: β2 in [0, 1), decay of r.
      eps: ε ≥ 0, outside the root.
      eps_root: ε_root ≥ 0, inside the root.
      threshold: the least ρ_t at which the step is divided. A threshold below 4 acts as 4; c_t is
        not defined there.
      nesterov: take m̂ one step ahead.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.

    Raises:
      HyperparamError: a number is out of its range.

    State: 8 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_radam()
    >>> u, _ = tx.update(jnp.array([7.0]), tx.init(jnp.zeros(1)))
    >>> round(u.item(), 4)  # the first steps are the mean gradient itself
    7.0

    Liu et al. 2020, arXiv 1908.03265, Algorithm 2.
    """
    return momentwise(init_moments, _radam, momentum)


@definition
def radam(
    learning_rate: Hyperparam,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    threshold: Hyperparam = 5.0,
    *,
    nesterov: bool = False,
    momentum: MomentumKernel | None = None,
    **flags: Unpack[DecayFlags],
) -> GradientTransformation:
    r"""Rectified Adam (RAdam): Adam with an automatic warmup.

    Steps grow as the variance of their divisor falls, at a speed that follows from β2.

    For every array, all of one shape: θ ← θ − η c_t m̂ / (√(r̂ + ε_root) + ε) where ρ_t ≥ 5, and θ
    ← θ − η m̂ before. ρ_t is the effective number of gradients in r̂, and c_t in (0, 1) rises with
    it.

    When: in place of a tuned warmup schedule. When not: for gradients far above 1 at the start; the
    first five steps do not divide them; clip them, or take `adamw` with a warmup.

    Args:
      learning_rate: η, parameter units per step; 1e-4 to 3e-3.
      b1: β1 in [0, 1), decay of m; typically 0.9.
      b2: β2 in [0, 1), decay of r; ρ_t reaches 5 only for β2 above 0.67; typically 0.999.
      eps: ε ≥ 0, outside the root; 1e-8.
      eps_root: ε_root ≥ 0, inside the root.
      threshold: the least ρ_t at which the step is divided; 5. The paper's text takes 4; below that
        c_t is not defined.
      nesterov: take m̂ one step ahead.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.
      **flags: `weight_decay`, `mask`, `decay_form`, `huber_delta`, `cautious`,
        `peak_learning_rate` and `axis_names`; see `descend`.

    Raises:
      HyperparamError: a number is out of its range.
      MissingParamsError: with weight decay, `update` is called without parameters.

    State: 8 bytes per parameter (m and r).

    >>> import gradtx, jax.numpy as jnp
    >>> tx, g = gradtx.radam(1.0), jnp.array([1.0])
    >>> state, sizes = tx.init(g), []
    >>> for _ in range(1000):
    ...     u, state = tx.update(g, state)
    ...     sizes.append(-u.item())
    >>> [round(sizes[t - 1], 3) for t in (1, 5, 6, 100, 1000)]  # not divided up to t = 5
    [1.0, 1.0, 0.026, 0.215, 0.645]

    See also: `adam`, `scale_by_radam`.

    Liu et al. 2020, arXiv 1908.03265, Algorithm 2.
    """
    return descend(
        scale_by_radam(b1, b2, eps, eps_root, threshold, nesterov=nesterov, momentum=momentum),
        learning_rate,
        **flags,
    )
