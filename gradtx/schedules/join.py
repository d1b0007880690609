r"""Combined schedules: one after another, behind a warmup, or shifted.

join      η = s_i(count − b_i) for the last b_i ≤ count;   b_0 = 0
warmup    join of a line from η_0 to s(0), and s
shift     η = s(count + k)
"""

import functools
from collections.abc import Sequence
from typing import Any

from gradtx.definition.errors import HyperparamError
from gradtx.definition.schedule import length_of, schedule, value_at
from gradtx.definition.types import Array, Hyperparam, NonNegative
from gradtx.schedules.parts import (
    add_steps,
    at_least_zero,
    check_increasing,
    fill,
    join,
    route,
)


def _check_join(schedules: Sequence[Hyperparam], boundaries: Sequence[NonNegative]) -> None:
    if len(schedules) != len(boundaries) + 1:
        raise HyperparamError(
            f"join_schedules: {len(schedules)} schedules need {max(len(schedules) - 1, 0)} "
            f"boundaries between them, and there are {len(boundaries)}; "
            "give one schedule more than boundaries"
        )
    check_increasing("join_schedules: the boundaries", boundaries)


def _join_length(schedules: Sequence[Any], boundaries: Sequence[Any]) -> Any:
    last = length_of(schedules[-1])
    return None if last is None else sum(boundaries[-1:]) + last


@schedule(check=_check_join, length=_join_length)
def join_schedules(
    count: Array, schedules: Sequence[Hyperparam], boundaries: Sequence[NonNegative]
) -> Array:
    """Join schedules, one after another: from b_i on η = s_i(count − b_i).

    Each schedule starts at its own count 0.

    When: phases that no other schedule here has. When not: a warmup before a schedule; take
    `with_warmup`.

    Args:
      schedules: s_0, s_1, ...: schedules, numbers, or plain functions of the count.
      boundaries: b_1 < b_2 < ...: the counts at which the next schedule starts; one less than
        schedules.

    Raises:
      HyperparamError: another number of boundaries; boundaries that do not increase or are
        negative.

    State: 0 bytes.

    >>> import gradtx, jax.numpy as jnp
    >>> halving = gradtx.exponential_decay(4.0, transition_steps=1, decay_rate=0.5)
    >>> rise = gradtx.linear_schedule(1.0, 3.0, 2)
    >>> gradtx.join_schedules([rise, halving, 0.0], [2, 5])(jnp.arange(7)).tolist()
    [1.0, 2.0, 4.0, 2.0, 1.0, 0.0, 0.0]

    See also: `phases`, by length; `restarts`, `with_warmup`.
    """
    return join(count, [functools.partial(value_at, item) for item in schedules], boundaries)


def _warm_length(schedule: Any, warmup_steps: Any, **_: Any) -> Any:
    length = length_of(schedule)
    return None if length is None else warmup_steps + length


@schedule(length=_warm_length)
def with_warmup(
    count: Array, schedule: Hyperparam, warmup_steps: NonNegative, init_value: Hyperparam = 0.0
) -> Array:
    """Add a linear warmup to a schedule.

    A line from η_0 to s(0) over W updates, then η = s(count − W).

    When: any optimizer whose first steps are too rough, above all adaptive methods. When not: SGD
    with a small learning rate.

    Args:
      schedule: s, a schedule, a number, or a plain function of the count.
      warmup_steps: W ≥ 0, updates; 100 to 10000; 0: no warmup.
      init_value: η_0, the value at count 0; 0 makes the first update a step of size 0.

    Raises:
      HyperparamError: W < 0.

    State: 0 bytes.

    >>> import gradtx, jax.numpy as jnp
    >>> decay = gradtx.linear_schedule(1.0, 0.0, 4)
    >>> gradtx.with_warmup(decay, warmup_steps=2)(jnp.arange(7)).tolist()
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]

    See also: `warmup_cosine_decay_schedule`, `inverse_sqrt_schedule`.

    Goyal et al. 2017, arXiv 1706.02677, section 2.2.
    """
    warmup = functools.partial(
        route, stops=[warmup_steps], values=[init_value, value_at(schedule, 0)]
    )
    return join(count, [warmup, functools.partial(value_at, schedule)], [warmup_steps])


def _shifted_length(schedule: Any, steps: Any) -> Any:
    length = length_of(schedule)
    return None if length is None else at_least_zero(length - steps)


@schedule(length=_shifted_length)
def shift_schedule(count: Array, schedule: Hyperparam, steps: Hyperparam) -> Array:
    """Shift a schedule by k updates: η = s(max(count + k, 0)).

    With a negative k the schedule starts later, and is s(0) until then.

    When: a formula counts its steps τ = 1, 2, 3, ... (k = 1), or a run continues another one.

    Args:
      schedule: s, a schedule, a number, or a plain function of the count.
      steps: k, updates; the count saturates at the largest integer.

    State: 0 bytes.

    >>> import gradtx, jax.numpy as jnp
    >>> decay = gradtx.power_law_schedule(6.0, transition_steps=1, power=-1)
    >>> textbook = gradtx.shift_schedule(decay, 1)
    >>> textbook(jnp.arange(3)).tolist()  # η_0 (1 + τ/s)^c at τ = 1, 2, 3
    [3.0, 2.0, 1.5]
    """
    return fill(count, value_at(schedule, add_steps(count, steps)))
