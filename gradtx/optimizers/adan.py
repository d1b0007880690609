r"""Adan: Adam that also averages how the gradient changes from step to step.

    d = g − g_before,   0 at t = 1
    m ← β1 m + (1 − β1) g                       m̂ = m / (1 − β1^t)
    v ← β2 v + (1 − β2) d                       v̂ = v / (1 − β2^t)
    n ← β3 n + (1 − β3) (g + c d)²              n̂ = n / (1 − β3^t)
    u = (m̂ + c v̂) / (√(n̂ + ε_root) + ε)
    θ ← θ − η (u + λ θ)

The paper has c = β2. Optax, and so the default here, has c = 1 − β2.
"""

from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, Fraction, Hyperparam, NonNegative, Squares
from gradtx.engine.selector import Where
from gradtx.transforms.kernel_rules import momentwise
from gradtx.transforms.moments import average, debias
from gradtx.transforms.momentum_kernel import MomentumKernel
from gradtx.tree.arithmetic import abs_sq, sqrt
from gradtx.tree.casts import real_zeros, zeros


class NesterovMoments(NamedTuple):
    """Averages of gradients (mu), differences (delta) and squares (nu), and the last gradient."""

    mu: jax.Array
    delta: jax.Array
    nu: Squares
    previous: jax.Array


def _init(param) -> NesterovMoments:
    return NesterovMoments(zeros(param), zeros(param), real_zeros(param), zeros(param))


def _adan(
    grad, slots: NesterovMoments, param, step, *, b1, b2, b3, eps, eps_root, difference_weight=None
):
    weight = 1 - b2 if difference_weight is None else difference_weight  # 1 − β2 as in Optax
    previous = jnp.where(step > 1, slots.previous, grad)  # no gradient precedes the first one
    # Each gradient has its weight before the difference, which of large ones may overflow.
    mu = average(slots.mu, grad, b1)
    delta = b2 * slots.delta + ((1 - b2) * grad - (1 - b2) * previous)
    nu = average(slots.nu, abs_sq(grad + (weight * grad - weight * previous)), b3)
    mean = debias(mu, b1, step) + weight * debias(delta, b2, step)
    direction = mean / (sqrt(debias(nu, b3, step) + eps_root) + eps)
    return direction, NesterovMoments(mu, delta, nu, grad)


@definition
def scale_by_adan(
    b1: Decay = 0.98,
    b2: Decay = 0.92,
    b3: Decay = 0.99,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    *,
    difference_weight: Fraction | None = None,
    momentum: MomentumKernel | None = None,
) -> GradientTransformation:
    """Adan's direction: u = (m̂ + c v̂) / (√(n̂ + ε_root) + ε).

    v is an average of g − g_before.

    Args:
      b1: β1 in [0, 1), decay of m.
      b2: β2 in [0, 1), decay of v.
      b3: β3 in [0, 1), decay of n.
      eps: ε ≥ 0, outside the root.
      eps_root: ε_root ≥ 0, inside the root.
      difference_weight: c in [0, 1]; None: 1 − β2, as in Optax; the paper takes β2.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.

    Raises:
      HyperparamError: a number is out of its range.

    State: 16 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx, g = gradtx.scale_by_adan(b1=0.0, b2=0.0, b3=0.0), jnp.array([1.0])
    >>> _, state = tx.update(g, tx.init(g))
    >>> u, _ = tx.update(3 * g, state)  # g = 3, d = 2, c = 1: 5 / 5
    >>> round(u.item(), 4)
    1.0

    Xie et al. 2022, arXiv 2208.06677, Algorithm 1, where every β is 1 − β of here.
    """
    return momentwise(_init, _adan, momentum)


@definition
def adan(
    learning_rate: Hyperparam,
    b1: Decay = 0.98,
    b2: Decay = 0.92,
    b3: Decay = 0.99,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    mask: Where | None = None,
    *,
    difference_weight: Fraction | None = None,
    momentum: MomentumKernel | None = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""Adan: Adam with Nesterov momentum from gradient differences.

    The differences have an average of their own.

    For every array, all of one shape: d = g − g_before, m, v and n averages of g, d and (g + c d)²,
    θ ← θ − η ((m̂ + c v̂) / (√(n̂ + ε_root) + ε) + λ θ).

    When: for large batches and vision transformers, with a learning rate 2 to 10 times AdamW's.
    When not: with little memory; Adan stores four arrays.

    The paper's Adan is `adan(eta, eps_root=0.0, difference_weight=0.92, decay_form="proximal")`: c
    = β2, and a step θ ← (θ − η u) / (1 + η λ). The default is Optax's c = 1 − β2, a twelfth of β2.

    Args:
      learning_rate: η, parameter units per step; 1e-3 to 1e-2.
      b1: β1 in [0, 1), decay of m; 0.98.
      b2: β2 in [0, 1), decay of v; 0.92.
      b3: β3 in [0, 1), decay of n; 0.99.
      eps: ε ≥ 0, outside the root; 1e-8.
      eps_root: ε_root ≥ 0, inside the root; 1e-8.
      weight_decay: λ ≥ 0, a fraction of the parameter per unit of learning rate; 0.02 in the paper.
      mask: the leaves that decay (see `masked`); None: all.
      difference_weight: c in [0, 1]; None: 1 − β2.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.
      **flags: `decay_form`, `huber_delta`, `cautious`, `peak_learning_rate` and `axis_names`; see
        `descend`.

    Raises:
      HyperparamError: a number is out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 16 bytes per parameter (m, v, n and the gradient before).

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array([3.0])
    >>> tx = gradtx.adan(0.5, weight_decay=1.0, decay_form="proximal")
    >>> updates, _ = tx.update(jnp.array([0.0]), tx.init(w), w)  # from 3 to 3 / (1 + 0.5)
    >>> updates.tolist()
    [-1.0]

    See also: `nadamw`, `scale_by_adan`.

    Xie et al. 2022, arXiv 2208.06677, Algorithm 1, where every β is 1 − β of here.
    """
    rule = scale_by_adan(
        b1, b2, b3, eps, eps_root, difference_weight=difference_weight, momentum=momentum
    )
    return descend(rule, learning_rate, weight_decay, mask, **flags)
