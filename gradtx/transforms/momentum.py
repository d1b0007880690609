"""Momentum and exponential moving averages (EMA) of updates."""

from typing import NamedTuple

import jax

from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, DTypeLike, Fraction
from gradtx.transforms.moments import average, debias
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
    return debias(mean, decay, step) if correct else mean, Average(mean)


@definition
def ema(
    decay: Decay, debias: bool = True, accumulator_dtype: DTypeLike | None = None
) -> GradientTransformation:
    """Exponential moving average (EMA) of updates; for that of parameters take `params_ema`.

    m ← β m + (1 − β) g; u = m / (1 − β^t), or u = m.

    When: to smooth gradients or updates at their own scale. When not: for the classical momentum, a
    sum; take `trace`.

    Args:
      decay: β in [0, 1); the average reaches back about 1/(1 − β) steps. Typically 0.9 to 0.999.
      debias: divide by 1 − β^t, to correct for the start at zero.
      accumulator_dtype: dtype of m; None: the parameter's, float32 at least.

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
    return leafwise(_ema_init, _ema, correct=debias)
