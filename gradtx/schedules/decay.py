r"""Decay without an end: exponential decay and power laws.

exponential    η = η_0 c^(t/s),        t = max(count − begin, 0); staircase: c^⌊t/s⌋
power law      η = η_0 (1 + count/s)^c
"""

import math

import jax.numpy as jnp

from gradtx.definition.schedule import schedule
from gradtx.definition.types import Array, Hyperparam, NonNegative, Positive
from gradtx.schedules.parts import number, real, same_kind, steps_since


def _growth_limit(rate: Array) -> Array:
    """The exponent at which growth stops.

    The value there is the largest number to the power 0.9, so that neither it nor its gradient
    overflows.
    """
    grows = rate > 1
    largest = 0.9 * math.log(jnp.finfo(rate.dtype).max)
    return jnp.where(grows, largest / jnp.log(jnp.where(grows, rate, 2)), jnp.inf)


@schedule
def exponential_decay(
    count: Array,
    init_value: Hyperparam,
    transition_steps: Hyperparam,
    decay_rate: NonNegative,
    transition_begin: Hyperparam = 0,
    staircase: bool = False,
    end_value: Hyperparam | None = None,
) -> Array:
    """Exponential decay: η = η_0 c^(t/s), t = max(count − begin, 0).

    With `end_value` the decay stops there: η = max(η, η_end) for c < 1, and min(η, η_end) for
    growth.

    When: a decay over orders of magnitude; or with c > 1 a learning-rate test. When not: the length
    of the run is known; a cosine or a line to zero ends lower.

    The textbook's τ = 1, 2, 3, ... is `shift_schedule(exponential_decay(...), 1)`.

    Args:
      init_value: η_0.
      transition_steps: s, updates per factor of c; 0 or less: constant at η_0.
      decay_rate: c ≥ 0; 0.5 to 0.99; above 1 it grows; 0: constant at η_0.
      transition_begin: the count at which the decay starts; below 0 counts as 0.
      staircase: decay only at whole multiples of s: the exponent is ⌊t/s⌋.
      end_value: η_end, the bound; None for none.

    Raises:
      HyperparamError: a negative decay rate, whose fractional powers are not real.

    State: 0 bytes.

    >>> import gradtx, jax.numpy as jnp
    >>> smooth = gradtx.exponential_decay(8.0, 2, decay_rate=0.25, end_value=0.5)
    >>> smooth(jnp.arange(6)).tolist()
    [8.0, 4.0, 2.0, 1.0, 0.5, 0.5]
    >>> stairs = gradtx.exponential_decay(8.0, 2, decay_rate=0.25, staircase=True)
    >>> stairs(jnp.arange(6)).tolist()
    [8.0, 8.0, 2.0, 2.0, 0.5, 0.5]

    See also: `power_law_schedule`, `warmup_exponential_decay_schedule`.

    Bishop and Bishop 2024, Deep Learning: Foundations and Concepts, section 7.3.
    """
    steps, rate = number(transition_steps), real(decay_rate)
    # As in Optax, no steps or a rate of 0 make it constant; the `where`s keep 0/0 and ln 0 out.
    moves = (steps > 0) & (rate > 0)
    steps, rate = jnp.where(moves, steps, 1), jnp.where(moves, rate, 1)
    elapsed, steps = same_kind(steps_since(count, jnp.maximum(number(transition_begin), 0)), steps)
    times = real(elapsed // steps) if staircase else real(elapsed) / real(steps)
    value = real(init_value) * rate ** jnp.minimum(times, _growth_limit(rate))
    if end_value is None:
        return value
    end = real(end_value)
    limit = jnp.where(rate < 1, jnp.maximum(value, end), jnp.minimum(value, end))
    return jnp.where(moves, limit, value)


@schedule
def power_law_schedule(
    count: Array, init_value: Hyperparam, transition_steps: Positive, power: Hyperparam
) -> Array:
    """Power-law decay: η = η_0 (1 + count/s)^c.

    When: runs without a planned end; c = −1 is the classical 1/t decay of stochastic approximation,
    c = −1/2 the rate for convex losses. When not: the length of the run is known.

    The textbook's τ = 1, 2, 3, ... is `shift_schedule(power_law_schedule(...), 1)`.

    Args:
      init_value: η_0, the value at count 0.
      transition_steps: s > 0, updates until the base has doubled.
      power: c, any real number; below 0 decays; −1 to −0.5.

    Raises:
      HyperparamError: s ≤ 0.

    State: 0 bytes.

    >>> import gradtx, jax.numpy as jnp
    >>> gradtx.power_law_schedule(1.0, transition_steps=1, power=-1)(jnp.array([0, 1, 3])).tolist()
    [1.0, 0.5, 0.25]

    See also: `inverse_sqrt_schedule`.

    Bishop and Bishop 2024, Deep Learning: Foundations and Concepts, section 7.3; the conditions on
    c: Robbins and Monro 1951, Annals of Mathematical Statistics 22, equations 6 and 26.
    """
    return real(init_value) * (1 + real(count) / real(transition_steps)) ** real(power)
