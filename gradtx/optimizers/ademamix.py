r"""AdEMAMix: Adam with a second, much longer average of gradients.

m1 ← β1 m1 + (1 − β1) g        m̂1 = m1 / (1 − β1^t)
m2 ← β3 m2 + (1 − β3) g        (no bias correction: it starts small)
r ← β2 r + (1 − β2) g²         r̂ = r / (1 − β2^t)
u = (m̂1 + α m2) / (√(r̂ + ε_root) + ε)
θ ← θ − η (u + λ θ)
"""

from typing import NamedTuple, Unpack

import jax

from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, DTypeLike, Hyperparam, NonNegative, Squares
from gradtx.engine.selector import Where
from gradtx.transforms.moments import average, debias
from gradtx.tree.arithmetic import abs_sq, sqrt
from gradtx.tree.casts import real_zeros, zeros


class MixedMoments(NamedTuple):
    """A short and a long average of gradients, and an average of squared gradients."""

    m1: jax.Array
    m2: jax.Array
    nu: Squares


def _init(param, *, mu_dtype: DTypeLike | None) -> MixedMoments:
    return MixedMoments(m1=zeros(param, mu_dtype), m2=zeros(param, mu_dtype), nu=real_zeros(param))


def _ademamix(grad, slots: MixedMoments, param, step, *, b1, b2, b3, alpha, eps, eps_root):
    m1, m2 = average(slots.m1, grad, b1), average(slots.m2, grad, b3)
    nu = average(slots.nu, abs_sq(grad), b2)
    # As in the paper m2 has no bias correction: it starts small, and grows with the run.
    mean = debias(m1, b1, step) + alpha * m2
    return mean / (sqrt(debias(nu, b2, step) + eps_root) + eps), MixedMoments(m1, m2, nu)


@definition
def scale_by_ademamix(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: Decay = 0.9999,
    alpha: NonNegative = 6.0,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    """AdEMAMix's direction: u = (m̂1 + α m2) / (√(r̂ + ε_root) + ε).

    m̂1 is a short, m2 a long average of g; r̂ is an average of g².

    Args:
      b1: β1 in [0, 1), decay of the short average.
      b2: β2 in [0, 1), decay of r.
      b3: β3 in [0, 1), decay of the long average; often a `half_life_schedule`.
      alpha: α ≥ 0, the weight of the long average; often a `linear_schedule` from 0.
      eps: ε ≥ 0, outside the root.
      eps_root: ε_root ≥ 0, inside the root.
      mu_dtype: dtype of both averages of g; None: the parameter's, at least float32.

    Raises:
      HyperparamError: a number is out of its range.

    State: 12 bytes per parameter; 8 with `mu_dtype=bfloat16`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_ademamix(b3=0.5, alpha=4.0)
    >>> u, _ = tx.update(jnp.array([-7.0]), tx.init(jnp.zeros(1)))
    >>> round(u.item(), 4)  # the sign, and 4 (1 − 0.5) of it
    -3.0

    Pagliardini, Ablin and Grangier 2024, arXiv 2409.03137, Algorithm 1.
    """
    return leafwise(_init, _ademamix)


@definition
def ademamix(
    learning_rate: Hyperparam,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: Decay = 0.9999,
    alpha: NonNegative = 5.0,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: NonNegative = 0.0,
    mask: Where | None = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""AdEMAMix: Adam with a second, slow average (EMA) of gradients.

    The slow average remembers gradients of ten thousand steps ago.

    For every array, all of one shape: m1 ← β1 m1 + (1 − β1) g, m2 ← β3 m2 + (1 − β3) g, r ← β2 r +
    (1 − β2) g², θ ← θ − η ((m̂1 + α m2) / (√(r̂ + ε_root) + ε) + λ θ), with m̂1 = m1/(1 − β1^t) and
    r̂ = r/(1 − β2^t); m2 has no bias correction.

    When: for long runs, where old gradients still help; in the paper a language model reaches
    AdamW's loss with about half of the tokens.
    When not: for fewer than about 1/(1 − β3) steps, or for a loss that changes during training.

    The paper warms up α and β3 over T steps, normally the whole run: `ademamix(eta,
    b3=half_life_schedule(0.9, 0.9999, T), alpha=linear_schedule(0.0, 5.0, T))`. Without the warmup,
    early steps may diverge.

    Args:
      learning_rate: η, parameter units per step; 1e-4 to 3e-3, as for AdamW.
      b1: β1 in [0, 1), decay of m1; typically 0.9.
      b2: β2 in [0, 1), decay of r; typically 0.999.
      b3: β3 in [0, 1), decay of m2; 0.999 to 0.9999.
      alpha: α ≥ 0, the weight of m2; 4 to 10.
      eps: ε ≥ 0, outside the root; 1e-8.
      eps_root: ε_root ≥ 0, inside the root.
      mu_dtype: dtype of m1 and m2; None: the parameter's, at least float32.
      weight_decay: λ ≥ 0, a fraction of the parameter per unit of learning rate; 0 (here) to 0.1.
      mask: the leaves that decay (see `masked`); None: all.
      **flags: `decay_form`, `huber_delta`, `cautious`, `peak_learning_rate` and `axis_names`; see
        `descend`.

    Raises:
      HyperparamError: a number is out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 12 bytes per parameter (m1, m2 and r).

    >>> import gradtx, jax.numpy as jnp
    >>> w, g = jnp.zeros(1), jnp.ones(1)
    >>> mix, plain = gradtx.ademamix(0.1, b3=0.99, alpha=5.0), gradtx.adam(0.1)
    >>> mixed, started = mix.init(w), plain.init(w)
    >>> for _ in range(100):
    ...     (u, mixed), (v, started) = mix.update(g, mixed, w), plain.update(g, started)
    >>> round((u / v).item(), 4)  # 1 + 5 (1 − 0.99^100)
    4.1698

    See also: `adamw`, `half_life_schedule`, `simplified_ademamix`.

    Pagliardini, Ablin and Grangier 2024, arXiv 2409.03137, Algorithm 1.
    """
    rule = scale_by_ademamix(b1, b2, b3, alpha, eps, eps_root, mu_dtype)
    return descend(rule, learning_rate, weight_decay, mask, **flags)
