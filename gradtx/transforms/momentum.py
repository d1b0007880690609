"""Momentum and exponential moving averages (EMA) of updates."""

from typing import NamedTuple

import jax

from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, DTypeLike, Fraction
from gradtx.transforms.kernel_rules import momentwise
from gradtx.transforms.moments import (
    Momentum,
    average,
    corrected_mean,
    debias,
    init_momentum,
    mean_of,
    plain_mean,
)
from gradtx.transforms.momentum_kernel import MomentumKernel
from gradtx.tree.casts import zeros


class Trace(NamedTuple):
    """Accumulated updates."""

    trace: jax.Array


def _trace_init(param, *, accumulator_dtype: DTypeLike | None) -> Trace:
    return Trace(zeros(param, accumulator_dtype))


def _trace(grad, slots: Trace, param, step, *, decay, nesterov: bool):
    trace = grad + decay * slots.trace
    return grad + decay * trace if nesterov else trace, Trace(trace)


@definition
def trace(
    decay: Fraction, nesterov: bool = False, accumulator_dtype: DTypeLike | None = None
) -> GradientTransformation:
    """Momentum: a decaying sum of updates.

    t ← g + μ t; u = t, or u = g + μ t with Nesterov.

    When: a method without momentum of its own. Behind a learning rate this is the classical
    velocity: `chain(scale_by_learning_rate(eta), trace(mu))` is Δw ← μ Δw − η g exactly, also
    while η changes. When not: for an average instead of a sum; take `ema`. A sum above the largest
    float, up to g / (1 − μ), is inf and stays inf; an average does not overflow.

    Args:
      decay: μ in [0, 1]; typically 0.9.
      nesterov: look ahead by one more step of momentum.
      accumulator_dtype: dtype of t; None: the parameter's, float32 at least.

    Raises:
      HyperparamError: a number out of its range.

    State: 4 bytes per parameter (float32).

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.trace(0.5)
    >>> state, g = tx.init(jnp.zeros(1)), jnp.array([1.0])
    >>> for _ in range(3): u, state = tx.update(g, state)
    >>> u.tolist()
    [1.75]

    Sutskever, Martens, Dahl and Hinton 2013, ICML, equations 1 to 4.
    """
    return leafwise(_trace_init, _trace)


class Average(NamedTuple):
    """An exponential moving average of updates."""

    ema: jax.Array


def _ema_init(param, *, accumulator_dtype: DTypeLike | None) -> Average:
    return Average(zeros(param, accumulator_dtype))


def _ema(grad, slots: Average, param, step, *, decay, correct: bool):
    mean = average(slots.ema, grad, decay)
    direction = debias(mean, decay, step) if correct else mean_of(mean)
    return direction, Average(mean)


@definition
def ema(
    decay: Decay,
    debias: bool = True,
    accumulator_dtype: DTypeLike | None = None,
    *,
    momentum: MomentumKernel | None = None,
) -> GradientTransformation:
    """Exponential moving average (EMA) of updates; for that of parameters take `params_ema`.

    m ← β m + (1 − β) g; u = m / (1 − β^t), or u = m.

    When: to smooth gradients or updates at their own scale. When not: for the classical momentum, a
    sum; take `trace`.

    Args:
      decay: β in [0, 1); the average reaches back about 1/(1 − β) steps. Typically 0.9 to 0.999.
      debias: divide by 1 − β^t, to correct for the start at zero.
      accumulator_dtype: dtype of m; None: the parameter's, float32 at least.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.

    Raises:
      HyperparamError: a number out of its range.

    State: 4 bytes per parameter (float32).

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.ema(0.9)
    >>> u, state = tx.update(jnp.array([2.0]), tx.init(jnp.zeros(1)))
    >>> round(u.item(), 5), round(state.slots["ema"].ema.item(), 5)
    (2.0, 0.2)

    See also: `params_ema`, `trace`.

    Kingma and Ba 2015, arXiv 1412.6980, section 3.
    """
    return momentwise(_ema_init, _ema, momentum, field="ema", correct=debias)


def _momentum(grad, slots: Momentum, param, step, *, decay, nesterov: bool, bias_correction: bool):
    mu = average(slots.mu, grad, decay)
    if bias_correction:
        return corrected_mean(mu, grad, decay, step, nesterov), Momentum(mu)
    return plain_mean(mu, grad, decay, nesterov), Momentum(mu)


@definition
def scale_by_momentum(
    kernel: MomentumKernel,
    decay: Decay = 0.95,
    nesterov: bool = False,
    debias: bool = True,
    accumulator_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    r"""Momentum by a kernel: D = Σ_k c_k g_{t−k}, in the place of `ema` or `trace`.

    u = D, or u = μ D + (1 − μ) g with Nesterov; all of one shape.

    When: a rule of your own, before its direction: `chain(scale_by_momentum(k_maxwell()), rule)`.
    When not: for Adam, Lion or Muon; pass the kernel as their `momentum=`.

    Args:
      kernel: `bi_maxwell()`, `k_maxwell()`, `max_entropy()`, `ademamix_kernel()` or
        `exponentials(decays, weights)`.
      decay: μ in [0, 1), decay of the average that acts before the kernel's start, and the weight
        of the look-ahead; 0.95.
      nesterov: look one step ahead. A kernel may refuse it after its start (`max_entropy` does).
      debias: divide by the sum of the weights so far. It is near 1 after the start, because the
        buffers start as copies of an average.
      accumulator_dtype: dtype of the buffers; None: the parameter's, float32 at least.

    Raises:
      HyperparamError: a number out of its range.

    State: that of the kernel, 8 bytes per parameter for `bi_maxwell`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.scale_by_momentum(gradtx.bi_maxwell(start=0), decay=0.5, debias=False)
    >>> state, weights = tx.init(jnp.zeros(())), []
    >>> for g in (1.0, 0.0, 0.0):  # 0.5, then 0.5 (0.4385 0.85^k + 0.5615 0.98^k)
    ...     u, state = tx.update(jnp.array(g), state)
    ...     weights.append(round(u.item(), 4))
    >>> weights
    [0.5, 0.4615, 0.428]

    See also: `ema`, `trace`, `bi_maxwell`, `muon`.
    """
    return momentwise(
        init_momentum,
        _momentum,
        kernel,
        mu_dtype=accumulator_dtype,
        bias_correction=debias,
    )
