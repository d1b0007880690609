r"""Yogi: Adam whose average of squares changes by no more than the squared gradient.

    m ← β1 m + (1 − β1) g                       m̂ = m / (1 − β1^t)
    r ← r − (1 − β2) sign(r − g²) g²            r̂ = r / (1 − β2^t)
    u = m̂ / (√(r̂ + ε_root) + ε)
    θ ← θ − η u

m and r start at a small number.
"""

from typing import Unpack

import jax.numpy as jnp

from gradtx.compose.descend import DecayFlags, descend
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, Hyperparam, NonNegative
from gradtx.transforms.kernel_rules import momentwise
from gradtx.transforms.moments import Moments, average, debias
from gradtx.transforms.momentum_kernel import MomentumKernel
from gradtx.tree.arithmetic import abs_sq, sqrt
from gradtx.tree.casts import full, zeros


def _init(param, *, initial_accumulator_value) -> Moments:
    start = full(param, initial_accumulator_value)
    return Moments(mu=zeros(param) + start, nu=start)  # Optax starts m there, too


def _yogi(grad, slots: Moments, param, step, *, b1, b2, eps, eps_root):
    # Below half of the largest number: r never reaches inf, where inf − inf would be nan for ever.
    square = jnp.minimum(abs_sq(grad), jnp.finfo(slots.nu.dtype).max / 2)
    mu = average(slots.mu, grad, b1)
    # The change has the size of g², where Adam's has that of r: a large r falls slowly.
    nu = slots.nu - (1 - b2) * jnp.sign(slots.nu - square) * square
    return debias(mu, b1, step) / (sqrt(debias(nu, b2, step) + eps_root) + eps), Moments(mu, nu)


@definition
def scale_by_yogi(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-3,
    eps_root: NonNegative = 0.0,
    initial_accumulator_value: NonNegative = 1e-6,
    *,
    momentum: MomentumKernel | None = None,
) -> GradientTransformation:
    """Yogi's direction: u = m̂ / (√(r̂ + ε_root) + ε).

    The second moment changes additively: r ← r − (1 − β2) sign(r − g²) g².

    Args:
      b1: β1 in [0, 1), decay of m.
      b2: β2 in [0, 1); 1 − β2 is the largest change of r, in units of g².
      eps: ε ≥ 0, outside the root.
      eps_root: ε_root ≥ 0, inside the root.
      initial_accumulator_value: m and r before the first update, ≥ 0.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.

    Raises:
      HyperparamError: a number is out of its range.

    State: 8 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_yogi(b2=0.5, initial_accumulator_value=100.0)
    >>> _, state = tx.update(jnp.array([2.0]), tx.init(jnp.zeros(1)))
    >>> state.slots["scale_by_yogi"].nu.item()  # down by half of 4; Adam's r would be about 50
    98.0

    Zaheer et al. 2018, NeurIPS, Adaptive methods for nonconvex optimization, Algorithm 2.
    """
    return momentwise(_init, _yogi, momentum)


@definition
def yogi(
    learning_rate: Hyperparam,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-3,
    *,
    momentum: MomentumKernel | None = None,
    **flags: Unpack[DecayFlags],
) -> GradientTransformation:
    r"""Yogi: Adam with an additive, bounded change of the second moment.

    The divisor falls slowly when gradients become small.

    For every array, all of one shape: m ← β1 m + (1 − β1) g, r ← r − (1 − β2) sign(r − g²) g², θ ←
    θ − η m̂ / (√r̂ + ε).

    When: for sparse gradients; Adam forgets r between two of them, and then steps too far.
    When not: for gradients that start far above their later size; r then stays large for long.

    Args:
      learning_rate: η, parameter units per step; typically 1e-2.
      b1: β1 in [0, 1), decay of m; typically 0.9.
      b2: β2 in [0, 1); 1 − β2 is the largest change of r, in units of g²; typically 0.999.
      eps: ε ≥ 0, outside the root; 1e-3.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.
      **flags: `weight_decay`, `mask`, `decay_form`, `huber_delta`, `cautious`,
        `peak_learning_rate` and `axis_names`; see `descend`.

    Raises:
      HyperparamError: a number is out of its range.
      MissingParamsError: with weight decay, `update` is called without parameters.

    State: 8 bytes per parameter (m and r).

    >>> import gradtx, jax.numpy as jnp
    >>> w, spike = jnp.zeros(1), jnp.array([100.0])
    >>> def after_a_spike(tx):
    ...     _, state = tx.update(spike, tx.init(w))
    ...     for _ in range(100): u, state = tx.update(spike / 100, state)
    ...     return round(u.item(), 3)
    >>> after_a_spike(gradtx.yogi(1.0, b2=0.9)), after_a_spike(gradtx.adam(1.0, b2=0.9))
    (-0.032, -0.987)

    See also: `adam`, `amsgrad`, `scale_by_yogi`.

    Zaheer et al. 2018, NeurIPS, Adaptive methods for nonconvex optimization, Algorithm 2.
    """
    return descend(scale_by_yogi(b1, b2, eps, momentum=momentum), learning_rate, **flags)
