r"""RAdam: Adam that waits with its division until the average of squares has seen enough.

m̂, r̂ as in Adam
ρ_∞ = 2 / (1 − β2) − 1,   ρ_t = ρ_∞ − 2 t β2^t / (1 − β2^t)      how many gradients r̂ is worth
c_t = √( (ρ_t − 4)(ρ_t − 2) ρ_∞ / ((ρ_∞ − 4)(ρ_∞ − 2) ρ_t) )
u = c_t m̂ / (√(r̂ + ε_root) + ε)  where ρ_t ≥ 5,  else  u = m̂
θ ← θ − η u

With Nesterov m̂ = β1 m / (1 − β1^(t+1)) + (1 − β1) g / (1 − β1^t).
"""

from typing import Any, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.descend import DecayFlags, descend
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, Hyperparam, NonNegative
from gradtx.transforms.moments import Moments, average, corrected_mean, debias
from gradtx.tree.arithmetic import abs_sq
from gradtx.tree.casts import real_zeros, zeros


def _init(param: jax.Array) -> Moments:
    return Moments(mu=zeros(param), nu=real_zeros(param))


def effective_length(b2: jax.Array, step: jax.Array, longest: jax.Array) -> jax.Array:
    """ρ_t = ρ_∞ − 2 t β2^t / (1 − β2^t).

    The difference of two numbers near ρ_∞ loses all digits of float32 while t is small. With x =
    −ln β2 it is t − t f(t x) + f(x), f(y) = coth(y/2) − 2/y = y/6 − y³/360 + y⁵/15120 − ..., which
    loses none."""
    rate = -jnp.log1p(b2 - 1)
    early = step * rate < 0.1
    small = jnp.where(early, rate, 0.0)
    power = jnp.where(early, 0.5, b2**step)
    return jnp.where(
        early,
        step - step * _series(step * small) + _series(small),
        longest - 2 * step * power / (1 - power),
    )


def _series(y: jax.Array) -> jax.Array:
    return y * (1 / 6 - y**2 * (1 / 360 - y**2 * (1 / 15120 - y**2 / 604800)))


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
    threshold: jax.Array,
    nesterov: bool,
) -> Any:
    mu, nu = average(slots.mu, grad, b1), average(slots.nu, abs_sq(grad), b2)
    mean = corrected_mean(mu, grad, b1, step, nesterov)
    longest = 2 / (1 - b2) - 1
    length = effective_length(b2, step, longest)
    enough = (length >= threshold) & (length > 4)  # at 4 and below the variance is infinite
    known = jnp.where(enough, length, longest)
    factor = jnp.sqrt(
        jnp.where(
            enough,
            (known - 4) * (known - 2) / ((longest - 4) * (longest - 2)) * longest / known,
            1.0,
        )
    )
    return jnp.where(
        enough, factor * mean / (jnp.sqrt(debias(nu, b2, step) + eps_root) + eps), mean
    ), Moments(mu, nu)


@definition
def scale_by_radam(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    threshold: Hyperparam = 5.0,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    """RAdam's direction: u = c_t m̂ / (√(r̂ + ε_root) + ε) once ρ_t reaches a threshold, and m̂
    before.

    Args:
      b1: β1 in [0, 1), decay of m.
      b2: β2 in [0, 1), decay of r.
      eps: ε ≥ 0, beside the root.
      eps_root: ε_root ≥ 0, under the root.
      threshold: the ρ from which on the step is divided; 4, below which c is not defined, acts
        where less is given.
      nesterov: the m̂ of a step ahead.

    Raises:
      HyperparamError: a number out of its range.

    State: 8 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_radam()
    >>> u, _ = tx.update(jnp.array([7.0]), tx.init(jnp.zeros(1)))  # the first steps are the mean gradient itself
    >>> round(u.item(), 4)
    7.0

    Liu et al. 2020, arXiv 1908.03265, Algorithm 2.
    """
    return leafwise(
        _init,
        _update,
        b1=b1,
        b2=b2,
        eps=eps,
        eps_root=eps_root,
        threshold=threshold,
        nesterov=nesterov,
    )


@definition
def radam(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    threshold: Hyperparam = 5.0,
    *,
    nesterov: bool = False,
    **flags: Unpack[DecayFlags],
) -> GradientTransformation:
    r"""Adam with a warmup that follows from β2: steps grow as the variance of their divisor falls.

    For every array, all of one shape: θ ← θ − η c_t m̂ / (√(r̂ + ε_root) + ε) where ρ_t ≥ 5, and θ
    ← θ − η m̂ before; ρ_t counts how many gradients r̂ is worth, and c_t in (0, 1) rises with it.

    When: no warmup schedule is to be tuned. When not: gradients far above 1 at the start, which the
    first five steps take as they are; clip them, or take `adamw` with a warmup.

    Args:
      learning_rate: η ≥ 0, parameter units per step; 1e-4 to 3e-3.
      b1: β1 in [0, 1), decay of m; typically 0.9.
      b2: β2 in [0, 1), decay of r; above 0.67, for ρ to reach 5; typically 0.999.
      eps: ε ≥ 0, beside the root; 1e-8.
      eps_root: ε_root ≥ 0, under the root.
      threshold: the ρ from which on the step is divided; 5. The paper's text takes 4, below which c
        is not defined.
      nesterov: the m̂ of a step ahead.
      **flags: `weight_decay`, `mask`, `decay_form`, `cautious` and `peak_learning_rate`, as
        `descend` explains them.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: with weight decay, `update` is called without parameters.

    State: 8 bytes per parameter (m and r).

    >>> import gradtx, jax.numpy as jnp
    >>> tx, g = gradtx.radam(1.0), jnp.array([1.0])
    >>> state, sizes = tx.init(g), []
    >>> for _ in range(1000):
    ...     u, state = tx.update(g, state)
    ...     sizes.append(-u.item())
    >>> [round(sizes[t - 1], 3) for t in (1, 5, 6, 100, 1000)]  # undivided up to t = 5, then a warmup
    [1.0, 1.0, 0.026, 0.215, 0.645]

    See also: `adam`, `scale_by_radam`.

    Liu et al. 2020, arXiv 1908.03265, Algorithm 2.
    """
    return descend(
        scale_by_radam(b1, b2, eps, eps_root, threshold, nesterov=nesterov), learning_rate, **flags
    )
