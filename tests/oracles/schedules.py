"""Schedules in float64, one count at a time, from their equations; every function takes (count,
parameters).
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from tests.oracles.fast_slow import fast_slow_decay_schedule  # noqa: F401  (its place in the table)

Schedule = float | Callable[[float], float]


def at(schedule: Schedule, count: float) -> float:
    return float(schedule(count)) if callable(schedule) else float(schedule)


def way(shape: str, done: float) -> float:
    """The share of the way from the old value to the new one, from the share of the time."""
    return {
        "linear": done,
        "cosine": math.sin(0.5 * math.pi * done) ** 2,
        "1-sqrt": math.sqrt(done),
        "sqrt": done / (1 + math.sqrt(1 - done)),  # 1 − √(1 − p), without the cancellation
    }[shape]


def along(shape: str, done: float, old: float, new: float, power: float | None = None) -> float:
    """The value part of the way from the old one to the new one."""
    if shape == "exponential":
        return old ** (1 - done) * new**done
    if shape == "power" and power:
        return old + done**power * (new - old)
    share = 1 - (1 - done) ** power if shape == "polynomial" and power else way(shape, done)
    return (1 - share) * old + share * new


def half_cosine(count: float, steps: float) -> float:
    """½ (1 + cos(π count/steps)), from 1 to 0; by the half angle, cos²(½ π count/steps), which has
    no cancellation.
    """
    return math.cos(0.5 * math.pi * count / steps) ** 2 if count < steps else 0.0


def constant_schedule(count: float, value: float) -> float:
    return value


def linear_schedule(
    count: float,
    init_value: float,
    end_value: float,
    transition_steps: float,
    transition_begin: float = 0,
) -> float:
    return polynomial_schedule(count, init_value, end_value, 1, transition_steps, transition_begin)


def polynomial_schedule(
    count: float,
    init_value: float,
    end_value: float,
    power: float,
    transition_steps: float,
    transition_begin: float = 0,
) -> float:
    if transition_steps <= 0:
        return init_value
    elapsed = min(max(count - max(transition_begin, 0), 0), transition_steps)
    left = ((transition_steps - elapsed) / transition_steps) ** power
    return left * init_value + (1 - left) * end_value


def exponential_decay(
    count: float,
    init_value: float,
    transition_steps: float,
    decay_rate: float,
    transition_begin: float = 0,
    staircase: bool = False,
    end_value: float | None = None,
) -> float:
    if transition_steps <= 0 or decay_rate == 0:
        return init_value
    times = max(count - max(transition_begin, 0), 0) / transition_steps
    with np.errstate(over="ignore", under="ignore"):
        value = float(
            init_value * np.float64(decay_rate) ** (math.floor(times) if staircase else times)
        )
    if end_value is None:
        return value
    return max(value, end_value) if decay_rate < 1 else min(value, end_value)


def power_law_schedule(
    count: float, init_value: float, transition_steps: float, power: float
) -> float:
    return init_value * (1 + count / transition_steps) ** power


def cosine_decay_schedule(
    count: float, init_value: float, decay_steps: float, alpha: float = 0.0, exponent: float = 1.0
) -> float:
    return init_value * ((1 - alpha) * half_cosine(count, decay_steps) ** exponent + alpha)


def piecewise_constant_schedule(
    count: float, init_value: float, boundaries_and_scales: Mapping[int, float] | None = None
) -> float:
    return init_value * math.prod(
        scale for boundary, scale in (boundaries_and_scales or {}).items() if boundary <= count
    )


def through(count: float, shape: str, points: Sequence[tuple[float, float]]) -> float:
    """The value on the way through (count, value) points, by looking for the two that `count` is
    between.
    """
    for (start, old), (stop, new) in itertools.pairwise(points):
        if start <= count < stop:
            return along(shape, (count - start) / (stop - start), old, new)
    return points[-1][1]


def piecewise_interpolate_schedule(
    count: float,
    interpolate_type: str,
    init_value: float,
    boundaries_and_scales: Mapping[int, float] | None = None,
) -> float:
    points = [(0.0, init_value)]
    for boundary, scale in (boundaries_and_scales or {}).items():
        points.append((boundary, points[-1][1] * scale))
    return through(count, interpolate_type, points)


def whole(share: float, steps: float) -> int:
    """⌊share · steps⌋ of the numbers as they are written, in exact arithmetic."""
    return math.floor(Fraction(str(share)) * Fraction(str(steps)))


def cosine_onecycle_schedule(
    count: float,
    transition_steps: int,
    peak_value: float,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> float:
    first = peak_value / div_factor
    points = [
        (0, first),
        (whole(pct_start, transition_steps), peak_value),
        (transition_steps, first / final_div_factor),
    ]
    return through(count, "cosine", points)


def linear_onecycle_schedule(
    count: float,
    transition_steps: int,
    peak_value: float,
    pct_start: float = 0.3,
    pct_final: float = 0.85,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> float:
    first, peak, fall = (
        peak_value / div_factor,
        whole(pct_start, transition_steps),
        whole(pct_final, transition_steps),
    )
    return through(
        count,
        "linear",
        [
            (0, first),
            (peak, peak_value),
            (fall, first),
            (transition_steps, first / final_div_factor),
        ],
    )


def join_schedules(
    count: float, schedules: Sequence[Schedule], boundaries: Sequence[float]
) -> float:
    begun = [
        (boundary, schedule)
        for boundary, schedule in zip((0, *boundaries), schedules, strict=True)
        if boundary <= count
    ]
    start, schedule = begun[-1]
    return at(schedule, count - start)


def with_warmup(
    count: float, schedule: Schedule, warmup_steps: float, init_value: float = 0.0
) -> float:
    if count >= warmup_steps:
        return at(schedule, count - warmup_steps)
    done = count / warmup_steps
    return (1 - done) * init_value + done * at(schedule, 0)


def shift_schedule(count: float, schedule: Schedule, steps: float) -> float:
    return at(schedule, max(count + steps, 0))


def warmup_constant_schedule(
    count: float, init_value: float, peak_value: float, warmup_steps: float
) -> float:
    return linear_schedule(count, init_value, peak_value, warmup_steps)


def warmup_cosine_decay_schedule(
    count: float,
    init_value: float,
    peak_value: float,
    warmup_steps: float,
    decay_steps: float,
    end_value: float = 0.0,
    exponent: float = 1.0,
) -> float:
    if count < warmup_steps:
        return linear_schedule(count, init_value, peak_value, warmup_steps)
    left = half_cosine(count - warmup_steps, decay_steps - warmup_steps) ** exponent
    return left * peak_value + (1 - left) * end_value


def sgdr_schedule(count: float, cosine_kwargs: Sequence[Mapping[str, Any]]) -> float:
    for kwargs in cosine_kwargs[:-1]:
        if count < kwargs["decay_steps"]:
            return warmup_cosine_decay_schedule(count, **kwargs)
        count -= kwargs["decay_steps"]
    return warmup_cosine_decay_schedule(count, **cosine_kwargs[-1])


def warmup_exponential_decay_schedule(
    count: float,
    init_value: float,
    peak_value: float,
    warmup_steps: float,
    transition_steps: float,
    decay_rate: float,
    **rest: Any,
) -> float:
    if count < warmup_steps:
        return linear_schedule(count, init_value, peak_value, warmup_steps)
    return exponential_decay(count - warmup_steps, peak_value, transition_steps, decay_rate, **rest)


def inverse_sqrt_schedule(
    count: float,
    init_value: float,
    peak_value: float,
    warmup_steps: float,
    timescale: float | None = None,
) -> float:
    if count < warmup_steps:
        return linear_schedule(count, init_value, peak_value, warmup_steps)
    scale = warmup_steps if timescale is None else timescale
    return peak_value * math.sqrt(scale / (scale + count - warmup_steps))


def warmup_stable_decay_schedule(
    count: float,
    init_value: float,
    peak_value: float,
    warmup_steps: float,
    stable_steps: float,
    decay_steps: float,
    end_value: float = 0.0,
    shape: str = "linear",
) -> float:
    if count < warmup_steps:
        return linear_schedule(count, init_value, peak_value, warmup_steps)
    decayed = count - warmup_steps - stable_steps
    if decayed >= decay_steps:
        return end_value
    share = max(decayed, 0) / decay_steps if decay_steps else 0.0
    return along(shape, share, peak_value, end_value)


def half_life_schedule(
    count: float, init_value: float, end_value: float, transition_steps: float
) -> float:
    """Pagliardini et al. 2024, section 3: half-lives in a straight line."""
    done = min(count / transition_steps, 1.0)
    half_life = (1 - done) * math.log(0.5) / math.log(init_value) + done * math.log(0.5) / math.log(
        end_value
    )
    return 0.5 ** (1 / half_life)


def warmup(
    done: float,
    before: float,
    steps: float,
    peak_value: float,
    init_value: float | None = None,
    shape: str = "linear",
    power: float | None = None,
) -> float:
    return along(shape, done, before if init_value is None else init_value, peak_value, power)


def constant(done: float, before: float, steps: float, value: float | None = None) -> float:
    return before if value is None else value


def cooldown(
    done: float,
    before: float,
    steps: float,
    end_value: float = 0.0,
    shape: str = "linear",
    power: float | None = None,
) -> float:
    return along(shape, done, before, end_value, power)


def length(schedule: Any) -> float:
    """The steps of a schedule that has an end, from its arguments."""
    if schedule.func is phases:
        return sum(map(length, schedule.keywords["phases"]))
    names = ("steps", "decay_steps", "transition_steps")
    return next(schedule.keywords[name] for name in names if name in schedule.keywords)


def phases(count: float, phases: Sequence[Any], init_value: float = 0.0) -> float:
    """The phase in which the count is; every phase before it has run to its end."""
    value, begin = init_value, 0.0
    for index, one in enumerate(phases):
        is_phase = one.func in (warmup, constant, cooldown)
        if not is_phase and index == len(phases) - 1:
            return one(count - begin)
        steps = length(one)
        inside = count - begin
        if inside < steps:
            return one(inside / steps, value) if is_phase else one(inside)
        value = one(1.0, value) if is_phase else one(steps)
        begin += steps
    return value


def restarts(
    count: float,
    schedule: Any,
    times: int | None = None,
    factor: float = 1,
    decay: float = 1.0,
    steps: float | None = None,
) -> float:
    own = length(schedule) if steps is None else steps
    if times is None:
        cycle, inside = divmod(count, own)
        return decay**cycle * at(schedule, inside)
    cycle, begin = 0, 0.0
    while cycle < times - 1 and count >= begin + own * factor**cycle:
        begin += own * factor**cycle
        cycle += 1
    return decay**cycle * at(schedule, min((count - begin) / factor**cycle, own))


def add_schedules(count: float, left: Schedule, right: Schedule) -> float:
    return at(left, count) + at(right, count)


def subtract_schedules(count: float, left: Schedule, right: Schedule) -> float:
    return at(left, count) - at(right, count)


def multiply_schedules(count: float, left: Schedule, right: Schedule) -> float:
    return at(left, count) * at(right, count)


def divide_schedules(count: float, left: Schedule, right: Schedule) -> float:
    return at(left, count) / at(right, count)


def negate_schedule(count: float, value: Schedule) -> float:
    return -at(value, count)
