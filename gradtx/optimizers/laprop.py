r"""LaProp: Adam the other way round; first divide, then average.

r ← β2 r + (1 − β2) g²                                  r̂ = r / (1 − β2^t)
m ← β1 m + (1 − β1) g / (√(r̂ + ε_root) + ε)             m̂ = m / (1 − β1^t)
θ ← θ − η (m̂ + λ θ)
"""

from typing import Any, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, DTypeLike, NonNegative
from gradtx.engine.selector import Where
from gradtx.transforms.moments import Moments, average, debias
from gradtx.tree.arithmetic import abs_sq
from gradtx.tree.casts import real_zeros, zeros


def _init(param: jax.Array, *, mu_dtype: DTypeLike | None) -> Moments:
    return Moments(mu=zeros(param, mu_dtype), nu=real_zeros(param))


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
    nu = average(slots.nu, abs_sq(grad), b2)
    mu = average(slots.mu, grad / (jnp.sqrt(debias(nu, b2, step) + eps_root) + eps), b1)
    return debias(mu, b1, step), Moments(mu, nu)


@definition
def scale_by_laprop(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-15,
    eps_root: NonNegative = 0.0,
    mu_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    """LaProp's direction: u = m̂, an average of g / (√(r̂ + ε_root) + ε).

    Args:
      b1: β1 in [0, 1), decay of m.
      b2: β2 in [0, 1), decay of r; it may be below β1.
      eps: ε ≥ 0, beside the root.
      eps_root: ε_root ≥ 0, under the root.
      mu_dtype: dtype of m; None: the parameter's, float32 at least.

    Raises:
      HyperparamError: a number out of its range.

    State: 8 bytes per parameter; 6 with `mu_dtype=bfloat16`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_laprop(b1=0.5, b2=0.0)
    >>> _, state = tx.update(jnp.array([1e9]), tx.init(jnp.zeros(1)))
    >>> u, _ = tx.update(jnp.array([-1.0]), state)  # an average of signs: (1/4 − 1/2) / (3/4)
    >>> round(u.item(), 4)
    -0.3333

    Ziyin, Wang and Ueda 2020, arXiv 2002.04839, Algorithm 1.
    """
    return leafwise(_init, _update, b1=b1, b2=b2, eps=eps, eps_root=eps_root, mu_dtype=mu_dtype)


@definition
def laprop(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-15,
    eps_root: NonNegative = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: NonNegative = 0.0,
    mask: Where | None = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""Momentum of gradients that are already divided by their size, so that β1 and β2 may be
    chosen apart.

    For every array, all of one shape: r ← β2 r + (1 − β2) g², m ← β1 m + (1 − β1) g / (√r̂ + ε), θ
    ← θ − η (m̂ + λ θ).

    When: noisy or shifting gradients that ask for a small β2: Adam becomes unstable with β2 below
    β1, LaProp does not.
    When not: at the usual β2 = 0.999 it goes much as `adamw` does.

    The paper has η inside m; with η constant that is the same.

    Args:
      learning_rate: η ≥ 0, parameter units per step; |m̂| ≤ 1/√(1 − β2) always; 1e-4 to 1e-3.
      b1: β1 in [0, 1), decay of m; typically 0.9.
      b2: β2 in [0, 1), decay of r; 0.9 to 0.999.
      eps: ε ≥ 0, beside the root; 1e-15.
      eps_root: ε_root ≥ 0, under the root.
      mu_dtype: dtype of m; None: the parameter's, float32 at least.
      weight_decay: λ ≥ 0, a fraction of the parameter per unit of learning rate; 1e-4 to 0.1.
      mask: which leaves decay (see `masked`); None: all.
      **flags: `decay_form`, `cautious` and `peak_learning_rate`, as `descend` explains them.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 8 bytes per parameter (m and r).

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.zeros(1)
    >>> def largest(tx):  # after a spike, with β2 = 0
    ...     _, state = tx.update(jnp.array([1e3]), tx.init(w), w)
    ...     return abs(round(tx.update(jnp.array([1.0]), state, w)[0].item()))
    >>> largest(gradtx.adamw(1.0, b2=0.0, weight_decay=0.0)), largest(gradtx.laprop(1.0, b2=0.0))
    (474, 1)

    See also: `adamw`, `scale_by_laprop`.

    Ziyin, Wang and Ueda 2020, arXiv 2002.04839, Algorithm 1.
    """
    return descend(
        scale_by_laprop(b1, b2, eps, eps_root, mu_dtype), learning_rate, weight_decay, mask, **flags
    )
