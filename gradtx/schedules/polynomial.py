r"""Constant, linear and polynomial schedules.

p = t/K held inside [0, 1],   t = count − max(begin, 0)
linear       η = (1 − p) η_0 + p η_K
polynomial   η = (1 − p)^c η_0 + (1 − (1 − p)^c) η_K
"""

from typing import Any

import jax.numpy as jnp

from gradtx.definition.schedule import length_of, schedule
from gradtx.definition.types import Array, Hyperparam, NonNegative
from gradtx.schedules.parts import (
    Weights,
    add_steps,
    at_least_zero,
    blend,
    fill,
    number,
    phase,
    raise_weights,
)


def _progress(count: Array, steps: Hyperparam, begin: Hyperparam) -> Weights:
    begin = jnp.maximum(number(begin), 0)
    return phase(count, begin, add_steps(begin, steps))


def _interpolate(
    weights: Weights, init_value: Hyperparam, end_value: Hyperparam, steps: Hyperparam
) -> Array:
    """The value between the two; the first one where the number of steps is not positive."""
    return jnp.where(number(steps) > 0, blend(weights, init_value, end_value), fill(0, init_value))


@schedule(length=length_of)
def constant_schedule(count: Array, value: Hyperparam) -> Array:
    """A constant schedule: η = η_0 at every count.

    When: code of others needs a schedule; gradtx accepts the number itself wherever it accepts a
    schedule.

    Args:
      value: η_0, any real number.

    State: 0 bytes.

    >>> import gradtx
    >>> float(gradtx.constant_schedule(0.5)(1000))
    0.5
    """
    return fill(count, value)


def _length(transition_steps: Any, transition_begin: Any, **_: Any) -> Any:
    return at_least_zero(transition_begin) + at_least_zero(transition_steps)


@schedule(length=_length)
def linear_schedule(
    count: Array,
    init_value: Hyperparam,
    end_value: Hyperparam,
    transition_steps: Hyperparam,
    transition_begin: Hyperparam = 0,
) -> Array:
    """Linear schedule: a straight line from one value to another, then constant.

    η = (1 − p) η_0 + p η_K, p = (count − begin)/K in [0, 1].

    When: the learning rate of a run whose length is known; also as a warmup. When not: the length
    is open; take `power_law_schedule` or `warmup_stable_decay_schedule`.

    The textbook's τ = 1, 2, 3, ... is `shift_schedule(linear_schedule(...), 1)`.

    Args:
      init_value: η_0, the value up to `transition_begin`.
      end_value: η_K, the value from `transition_begin + transition_steps` on; 0 to 0.1 η_0.
      transition_steps: K, updates; 0 or less: constant at η_0.
      transition_begin: the count at which the line starts; below 0 counts as 0 (to skip the first
        part of the line, take `shift_schedule`).

    State: 0 bytes.

    >>> import gradtx, jax.numpy as jnp
    >>> gradtx.linear_schedule(1.0, 0.0, transition_steps=4)(jnp.arange(6)).tolist()
    [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]

    See also: `polynomial_schedule`, `with_warmup`.

    Bishop and Bishop 2024, Deep Learning: Foundations and Concepts, section 7.3.
    """
    return _interpolate(
        _progress(count, transition_steps, transition_begin),
        init_value,
        end_value,
        transition_steps,
    )


@schedule(length=_length)
def polynomial_schedule(
    count: Array,
    init_value: Hyperparam,
    end_value: Hyperparam,
    power: NonNegative,
    transition_steps: Hyperparam,
    transition_begin: Hyperparam = 0,
) -> Array:
    """Polynomial decay from one value to another: η = η_K + (η_0 − η_K)(1 − p)^c.

    p = (count − begin)/K, held inside [0, 1].

    When: a decay that slows down towards its end (c > 1) or speeds up (c < 1); c = 0.9 is common in
    segmentation, c = 2 in tuning language models. When not: c = 1; take `linear_schedule`.

    Args:
      init_value: η_0, the value up to `transition_begin`.
      end_value: η_K, the value from `transition_begin + transition_steps` on.
      power: c ≥ 0; 0 stays at η_0.
      transition_steps: K, updates; 0 or less: constant at η_0.
      transition_begin: the count at which the decay starts; below 0 counts as 0.

    Raises:
      HyperparamError: a negative power, which would divide by zero at the end.

    State: 0 bytes.

    >>> import gradtx, jax.numpy as jnp
    >>> gradtx.polynomial_schedule(1.0, 0.0, power=2, transition_steps=4)(jnp.arange(6)).tolist()
    [1.0, 0.5625, 0.25, 0.0625, 0.0, 0.0]

    Liu, Rabinovich and Berg 2015, arXiv 1506.04579 (the "poly" policy).
    """
    weights = raise_weights(_progress(count, transition_steps, transition_begin), power)
    return _interpolate(weights, init_value, end_value, transition_steps)
