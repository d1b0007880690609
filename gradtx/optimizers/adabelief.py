r"""AdaBelief: large steps where the gradient is as its average foretold, small ones where it is
not.

m ← β1 m + (1 − β1) g                       m̂ = m / (1 − β1^t)
s ← β2 s + (1 − β2) (g − m)² + ε_root       ŝ = s / (1 − β2^t)
u = m̂ / (√ŝ + ε)
θ ← θ − η u

With Nesterov m̂ = β1 m / (1 − β1^(t+1)) + (1 − β1) g / (1 − β1^t).
"""

from typing import Any, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.descend import DecayFlags, descend
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, NonNegative
from gradtx.transforms.moments import Moments, average, corrected_mean, debias
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
    nesterov: bool,
) -> Any:
    mu = average(slots.mu, grad, b1)
    nu = average(slots.nu, abs_sq(grad - mu), b2) + eps_root
    return corrected_mean(mu, grad, b1, step, nesterov) / (
        jnp.sqrt(debias(nu, b2, step)) + eps
    ), Moments(mu, nu)


@definition
def scale_by_belief(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-16,
    eps_root: NonNegative = 1e-16,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    """AdaBelief's direction: u = m̂ / (√ŝ + ε), with s an average of (g − m)².

    Args:
      b1: β1 in [0, 1), decay of m.
      b2: β2 in [0, 1), decay of s.
      eps: ε ≥ 0, beside the root.
      eps_root: ε_root ≥ 0, joined to s at every step; with both at 0 a steady gradient divides by
        zero.
      nesterov: the m̂ of a step ahead.

    Raises:
      HyperparamError: a number out of its range.

    State: 8 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_belief(b1=0.5)
    >>> u, _ = tx.update(jnp.array([4.0]), tx.init(jnp.zeros(1)))  # g = 4 where m = 2: 4 / |4 − 2|
    >>> round(u.item(), 4)
    2.0

    Zhuang et al. 2020, arXiv 2010.07468, Algorithm 2.
    """
    return leafwise(_init, _update, b1=b1, b2=b2, eps=eps, eps_root=eps_root, nesterov=nesterov)


@definition
def adabelief(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-16,
    eps_root: NonNegative = 1e-16,
    *,
    nesterov: bool = False,
    **flags: Unpack[DecayFlags],
) -> GradientTransformation:
    r"""Adam, where the spread of the gradient around its average takes the place of its size.

    For every array, all of one shape: m ← β1 m + (1 − β1) g, s ← β2 s + (1 − β2) (g − m)² + ε_root,
    θ ← θ − η m̂ / (√ŝ + ε).

    When: image classifiers and GANs, where Adam generalises worse than SGD; a steady gradient may
    take steps well above η.
    When not: with ε as small as here, coordinates whose gradient hardly changes move far; raise
    `eps` to 1e-8, or take `adamw`.

    Args:
      learning_rate: η ≥ 0, parameter units per step; 1e-4 to 1e-3.
      b1: β1 in [0, 1), decay of m; typically 0.9.
      b2: β2 in [0, 1), decay of s; typically 0.999.
      eps: ε ≥ 0, beside the root; 1e-16 to 1e-8.
      eps_root: ε_root ≥ 0, joined to s at every step; 1e-16.
      nesterov: the m̂ of a step ahead.
      **flags: `weight_decay`, `mask`, `decay_form`, `cautious` and `peak_learning_rate`, as
        `descend` explains them.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: with weight decay, `update` is called without parameters.

    State: 8 bytes per parameter (m and s).

    >>> import gradtx, jax.numpy as jnp
    >>> tx, g = gradtx.adabelief(1.0, b1=0.5), jnp.array([1.0, 1.0])
    >>> _, state = tx.update(g, tx.init(g))
    >>> updates, _ = tx.update(jnp.array([1.0, -1.0]), state)  # the first comes as foretold, and is believed
    >>> [round(u, 2) for u in updates.tolist()]
    [-2.53, 0.52]

    See also: `adam`, `scale_by_belief`.

    Zhuang et al. 2020, arXiv 2010.07468, Algorithm 2.
    """
    return descend(
        scale_by_belief(b1, b2, eps, eps_root, nesterov=nesterov), learning_rate, **flags
    )
