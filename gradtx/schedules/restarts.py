r"""Warm restarts: one schedule again and again.

cycle i = 0, 1, ...     L_i = factor^i L,   b_i = L_0 + ... + L_{i−1}
inside                  η = decay^i s((count − b_i)/factor^i)
"""

import math
from typing import Any

import jax.numpy as jnp

from gradtx.definition.errors import HyperparamError
from gradtx.definition.schedule import length_of, schedule, value_at
from gradtx.definition.show import show
from gradtx.definition.types import Array, ArrayLike, Hyperparam, NonNegative, Positive
from gradtx.schedules.parts import (
    add_steps,
    fill,
    has_begun,
    number,
    power,
    real,
    same_kind,
    steps_since,
)


def _check_restarts(
    schedule: Any, times: int | None, factor: float, decay: Any, steps: Any
) -> None:
    if times is not None and times < 1:
        raise HyperparamError(f"restarts: times = {times} is below 1, the number of cycles")
    if not 0 < factor < math.inf:
        raise HyperparamError(f"restarts: factor = {factor!r} is outside its range (0, inf)")
    if times is None and factor != 1:
        raise HyperparamError(
            f"restarts: with factor = {factor!r} each cycle has another length, and times is None; "
            "give the number of cycles, for example times=10"
        )
    if steps is None and not _has_length(schedule):
        raise HyperparamError(
            f"restarts: {show(schedule)} has no length; give the steps of the first cycle, "
            "restarts(..., steps=...)"
        )


def _has_length(schedule: Any) -> bool:
    length = length_of(schedule)
    return length is not None and not (isinstance(length, int | float) and length <= 0)


def _restarts_length(schedule: Any, times: int | None, factor: float, steps: Any, **_: Any) -> Any:
    if times is None:
        return None
    cycle = length_of(schedule) if steps is None else steps
    return cycle * sum(_whole(factor**cycle) for cycle in range(_cycles(times, factor)))


def _cycles(times: int, factor: float) -> int:
    """The number of cycles that a count of 64 bits, or a cycle of one update, can reach."""
    return times if factor == 1 else min(times, 1 + int(64 / abs(math.log2(factor))))


def _whole(value: float) -> float:
    """A whole number as an int, with which counts remain integers."""
    return int(value) if float(value).is_integer() else value


@schedule(check=_check_restarts, length=_restarts_length)
def restarts(
    count: Array,
    schedule: Hyperparam,
    times: int | None = None,
    factor: float = 1,
    decay: NonNegative = 1.0,
    steps: Positive | None = None,
) -> Array:
    """Repeat a schedule: warm restarts (SGDR), cyclical learning rates.

    Cycle i = 0, 1, ... takes f^i L updates: η = d^i s((count − b_i)/f^i), where b_i is its first
    count. After the last cycle the value is constant.

    When: each of several cycles is to end with a usable model; cyclical learning rates. When not:
    one budget, one model; a single cycle is simpler. Cycles that differ in more than length and
    height: `sgdr_schedule`, or `phases`.

    Args:
      schedule: s, one cycle: a schedule, or a plain function of the count.
      times: the number of cycles ≥ 1; None: without an end, for factor=1 alone.
      factor: f > 0, static: each cycle is f times as long as the one before; 1 or 2.
      decay: d ≥ 0: each cycle has d times the values of the one before; 0.5 to 1.
      steps: L > 0, updates of the first cycle. None: the length of the schedule.

    Raises:
      HyperparamError: a number out of its range; a schedule without a length and without `steps`; a
        factor other than 1 without `times`.

    State: 0 bytes.

    >>> import gradtx, jax.numpy as jnp
    >>> rate = gradtx.restarts(gradtx.linear_schedule(1.0, 0.0, 2), times=2, factor=2)
    >>> rate(jnp.arange(8)).tolist()
    [1.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    >>> triangle = gradtx.phases(gradtx.warmup(2, 1.0), gradtx.cooldown(2))
    >>> gradtx.restarts(triangle, decay=0.5)(jnp.arange(8)).tolist()
    [0.0, 0.5, 1.0, 0.5, 0.0, 0.25, 0.5, 0.25]

    See also: `sgdr_schedule`, `phases`.

    Loshchilov and Hutter 2017, arXiv 1608.03983, section 3; triangles: Smith 2015, arXiv
    1506.01186.
    """
    length: Any = length_of(schedule) if steps is None else steps
    if factor == 1:
        cycle, stretched = _equal_cycles(count, number(length), times)
    else:
        cycle, stretched = _growing_cycles(count, number(length), times or 1, factor)
    return fill(count, real(value_at(schedule, stretched)) * power(real(decay), real(cycle)))


def _equal_cycles(count: ArrayLike, length: Array, times: int | None) -> tuple[Array, Array]:
    """The number of the cycle, and the count inside of it."""
    elapsed, length = same_kind(steps_since(count, 0), length)
    safe = jnp.where(length > 0, length, 1)
    cycle = elapsed // safe
    cycle = cycle if times is None else jnp.minimum(cycle, times - 1)
    return cycle, jnp.minimum(elapsed - cycle * safe, length)


def _growing_cycles(
    count: ArrayLike, length: Array, times: int, factor: float
) -> tuple[Array, Array]:
    """The number of the cycle, and the count inside of it in steps of the first cycle."""
    cycle = jnp.zeros(jnp.shape(count))
    scale, elapsed = jnp.ones(jnp.shape(count)), real(steps_since(count, 0))
    begin = number(0)
    for index in range(1, _cycles(times, factor)):
        begin = add_steps(begin, _stretched(length, factor ** (index - 1)))
        # A cycle beyond the largest integer, at which its first count is held, never begins.
        is_whole = jnp.issubdtype(begin.dtype, jnp.integer)
        limit = jnp.iinfo(begin.dtype).max if is_whole else jnp.inf
        begun = has_begun(count, begin) & (begin < limit)
        cycle = jnp.where(begun, index, cycle)
        scale = jnp.where(begun, float(factor**index), scale)
        elapsed = jnp.where(begun, real(steps_since(count, begin)), elapsed)
    return cycle, jnp.minimum(elapsed / scale, real(length))


def _stretched(length: Array, scale: float) -> Array:
    """length · scale, an integer where both are, held at the largest one."""
    if not jnp.issubdtype(length.dtype, jnp.integer) or not float(scale).is_integer():
        return real(length) * scale
    largest = int(jnp.iinfo(length.dtype).max)
    whole = min(int(scale), largest)
    return jnp.where(length > largest // whole, largest, length * whole)
