"""The table of schedules: each case is a call by name, that gradtx, Optax and the float64 oracle
can each make.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import optax
import pytest
from hypothesis import strategies as st

import gradtx
from gradtx.definition import schedule as schedule_module
from gradtx.definition.schedule import OPERATORS, Schedule
from tests.oracles import schedules as oracles

LAST = 2**31 - 1
BEHIND_OPERATORS = {
    "negate_schedule",
    *(operator.build.__name__ for operator in OPERATORS.values()),
}
"""Schedules that an expression makes, and nobody by name."""
COUNTS = np.array(
    [*range(32), 40, 41, 999_998, 999_999, 1_000_000, 2_000_000, LAST - 1, LAST], np.int32
)


class Case(NamedTuple):
    """A schedule as a call by name, so that gradtx, Optax and the oracle can each make their
    own.
    """

    name: str
    kwargs: Mapping[str, Any]
    like_optax: bool = True

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{key}={value}' for key, value in self.kwargs.items())})"

    __repr__ = __str__


def case(name: str, *, like_optax: bool = True, **kwargs: Any) -> Case:
    return Case(name, kwargs, like_optax)


def build(value: Any, find: Callable[[str], Any]) -> Any:
    """A case, and the cases in its arguments, made with the functions that `find` gives."""
    if isinstance(value, Case):
        return find(value.name)(**{key: build(item, find) for key, item in value.kwargs.items()})
    return [build(item, find) for item in value] if isinstance(value, list) else value


def builder(name: str) -> Callable[..., Any]:
    """A builder, also one behind an operator; it takes even `*phases` by name."""
    factory = getattr(gradtx if hasattr(gradtx, name) else schedule_module, name).factory

    def make(**kwargs: Any) -> Any:
        args, named = factory.arguments(kwargs)
        return factory(*args, **named)

    return make


def ours(value: Case) -> Schedule:
    return build(value, builder)


def theirs(value: Case) -> Callable[[Any], Any]:
    return build(value, functools.partial(getattr, optax))


def expected(value: Case, counts: np.ndarray) -> np.ndarray:
    schedule = build(
        value, lambda name: functools.partial(functools.partial, getattr(oracles, name))
    )
    return np.array([schedule(int(count)) for count in counts])


line = functools.partial(case, "linear_schedule", init_value=0.1, end_value=0.02)
poly = functools.partial(
    case, "polynomial_schedule", init_value=0.1, end_value=0.02, transition_steps=10
)
exponential = functools.partial(
    case, "exponential_decay", init_value=0.5, transition_steps=4, decay_rate=0.6
)
cosine = functools.partial(case, "cosine_decay_schedule", init_value=0.3, decay_steps=16)
constants = functools.partial(case, "piecewise_constant_schedule", init_value=0.3)
route = functools.partial(case, "piecewise_interpolate_schedule", init_value=0.3)
one_cosine = functools.partial(case, "cosine_onecycle_schedule", peak_value=0.4)
one_line = functools.partial(case, "linear_onecycle_schedule", peak_value=0.4)
warm_cosine = functools.partial(
    case, "warmup_cosine_decay_schedule", init_value=0.01, peak_value=0.4, decay_steps=20
)
warm_exponential = functools.partial(
    case,
    "warmup_exponential_decay_schedule",
    init_value=0.01,
    peak_value=0.4,
    transition_steps=4,
    decay_rate=0.6,
)
stable = functools.partial(
    case,
    "warmup_stable_decay_schedule",
    like_optax=False,
    init_value=0.01,
    peak_value=0.4,
    warmup_steps=5,
    stable_steps=7,
    decay_steps=10,
)
inverse = functools.partial(
    case, "inverse_sqrt_schedule", like_optax=False, init_value=0.01, peak_value=0.4
)
join = functools.partial(case, "join_schedules")
wsd = functools.partial(case, "phases", like_optax=False)
warm = functools.partial(case, "warmup", steps=5, peak_value=0.4)
cool = functools.partial(case, "cooldown", steps=10)
fast_slow = functools.partial(case, "fast_slow_decay_schedule", like_optax=False, peak_value=0.4)
again = functools.partial(case, "restarts", like_optax=False)
cycle = {"init_value": 0.01, "peak_value": 0.4, "warmup_steps": 3, "decay_steps": 11}

CASES = [
    case("constant_schedule", value=0.3),
    case("constant_schedule", value=3),
    line(transition_steps=10),
    line(transition_steps=10, transition_begin=7),
    line(transition_steps=10, transition_begin=-7),
    line(transition_steps=0),
    line(transition_steps=-5),
    line(transition_steps=12.5, transition_begin=2.5, like_optax=False),
    line(init_value=0.0, end_value=3, transition_steps=1_000_000, like_optax=False),
    poly(power=2),
    poly(power=0.5, transition_begin=7),
    poly(power=0),
    poly(power=3.0, transition_steps=-1),
    exponential(),
    exponential(staircase=True),
    exponential(transition_begin=6),
    exponential(transition_begin=6, staircase=True, end_value=0.1),
    exponential(transition_begin=-6),
    exponential(end_value=0.1),
    exponential(end_value=0.7),
    exponential(decay_rate=1.5, end_value=2.0),
    exponential(decay_rate=1.0, end_value=0.2),
    exponential(decay_rate=0.0, end_value=0.7),
    exponential(transition_steps=0, end_value=0.7),
    exponential(transition_steps=2.5, staircase=True),
    case("power_law_schedule", like_optax=False, init_value=0.5, transition_steps=4, power=-1.0),
    case("power_law_schedule", like_optax=False, init_value=0.5, transition_steps=2.5, power=0.25),
    cosine(),
    cosine(alpha=0.1),
    cosine(exponent=2.0),
    cosine(alpha=0.1, exponent=0.5),
    case(
        "half_life_schedule",
        like_optax=False,
        init_value=0.9,
        end_value=0.9999,
        transition_steps=17,
    ),
    case(
        "half_life_schedule", like_optax=False, init_value=0.9, end_value=0.5, transition_steps=2.5
    ),
    constants(),
    constants(boundaries_and_scales={5: 0.5, 6: 2.0, 20: 0.0}),
    constants(boundaries_and_scales={0: 0.5, 9: 0.1}),
    route(interpolate_type="linear"),
    route(interpolate_type="linear", boundaries_and_scales={5: 0.5, 6: 2.0, 20: 0.1}),
    route(interpolate_type="linear", boundaries_and_scales={0: 0.5, 9: 0.1}),
    route(interpolate_type="cosine", boundaries_and_scales={5: 0.5, 6: 2.0, 20: 0.1}),
    route(
        interpolate_type="1-sqrt", boundaries_and_scales={5: 0.5, 6: 2.0, 20: 0.1}, like_optax=False
    ),
    one_cosine(transition_steps=25),
    one_cosine(transition_steps=17, pct_start=0.21, div_factor=10.0, final_div_factor=100.0),
    one_cosine(transition_steps=17, pct_start=0.0),
    one_line(transition_steps=25),
    one_line(
        transition_steps=17, pct_start=0.21, pct_final=0.5, div_factor=10.0, final_div_factor=100.0
    ),
    one_line(transition_steps=17, pct_start=0.0),
    one_line(transition_steps=17, pct_final=1.0, like_optax=False),
    join(schedules=[line(transition_steps=5), exponential(), cosine()], boundaries=[7, 12]),
    join(schedules=[cosine()], boundaries=[]),
    join(
        schedules=[line(transition_steps=5), 0.25, join(schedules=[0.1, cosine()], boundaries=[4])],
        boundaries=[7, 12],
        like_optax=False,
    ),
    case("with_warmup", like_optax=False, schedule=cosine(), warmup_steps=5),
    case("with_warmup", like_optax=False, schedule=0.3, warmup_steps=0, init_value=0.01),
    case("shift_schedule", like_optax=False, schedule=line(transition_steps=10), steps=3),
    case("shift_schedule", like_optax=False, schedule=exponential(), steps=-3),
    case("warmup_constant_schedule", init_value=0.01, peak_value=0.4, warmup_steps=6),
    case("warmup_constant_schedule", init_value=0.01, peak_value=0.4, warmup_steps=0),
    warm_cosine(warmup_steps=5),
    warm_cosine(warmup_steps=0, end_value=0.02),
    warm_cosine(warmup_steps=5, end_value=0.02, exponent=2.0),
    warm_exponential(warmup_steps=5),
    warm_exponential(warmup_steps=0, transition_begin=3),
    warm_exponential(warmup_steps=5, transition_begin=3, staircase=True, end_value=0.1),
    inverse(warmup_steps=4),
    inverse(warmup_steps=0, timescale=10.0),
    inverse(warmup_steps=6, timescale=3),
    stable(),
    stable(end_value=0.02, shape="cosine"),
    stable(end_value=0.02, shape="1-sqrt"),
    stable(warmup_steps=0, stable_steps=0, decay_steps=0, end_value=0.02),
    case(
        "sgdr_schedule",
        cosine_kwargs=[
            cycle,
            {**cycle, "decay_steps": 7, "end_value": 0.02},
            {**cycle, "exponent": 2.0},
        ],
    ),
    stable(end_value=0.02, shape="sqrt"),
    stable(end_value=0.02, shape="exponential"),
    route(
        interpolate_type="exponential",
        boundaries_and_scales={5: 0.5, 6: 2.0, 20: 0.1},
        like_optax=False,
    ),
    wsd(phases=[warm(), case("constant", steps=7), cool()]),
    wsd(phases=[warm(init_value=0.01, shape="cosine"), cool(end_value=0.02, shape="1-sqrt")]),
    wsd(phases=[cool(end_value=0.02, shape="sqrt")], init_value=0.3),
    wsd(phases=[cool(end_value=0.02, shape="exponential"), warm(init_value=0.1)], init_value=0.3),
    wsd(phases=[warm(), cool(end_value=0.02, shape="polynomial", power=2.5)]),
    wsd(phases=[warm(), cool(end_value=0.02, shape="power", power=0.6)]),
    fast_slow(knee_value=0.1, warmup_steps=4, stable_steps=3, fast_steps=9, slow_steps=7),
    fast_slow(
        knee_value=0.5,
        warmup_steps=0,
        stable_steps=0,
        fast_steps=2.5,
        slow_steps=0,
        power=2.0,
        end_value=0.02,
    ),
    wsd(phases=[warm(steps=0), case("constant", steps=2.5, value=0.1), cool(steps=1_000_000)]),
    wsd(phases=[warm(), cosine(), cool(end_value=0.1), exponential()]),
    again(schedule=cosine()),
    again(schedule=line(transition_steps=7), times=3, decay=0.5),
    again(schedule=cosine(alpha=0.1), times=4, factor=2),
    again(schedule=exponential(), times=3, factor=1.5, decay=0.7, steps=6),
    again(schedule=wsd(phases=[warm(), cool(steps=6)]), times=9, steps=12.5),
    case("add_schedules", like_optax=False, left=cosine(), right=exponential()),
    case("subtract_schedules", like_optax=False, left=0.7, right=cosine()),
    case("multiply_schedules", like_optax=False, left=0.5, right=cosine(alpha=0.1)),
    case(
        "divide_schedules", like_optax=False, left=line(transition_steps=7), right=cosine(alpha=1)
    ),
    case("negate_schedule", like_optax=False, value=wsd(phases=[warm(), cool()])),
]
EACH = list({item.name: item for item in reversed(CASES)}.values())


value, steps, exponents = st.floats(0.01, 2.0), st.integers(1, 300), st.floats(0.2, 3.0)
growing = st.lists(st.integers(1, 60), min_size=2, max_size=2).map(
    lambda gaps: [gaps[0], gaps[0] + gaps[1]]
)
decays = {
    "decay_rate": st.floats(0.5, 1.0),
    "transition_begin": st.integers(0, 50),
    "staircase": st.booleans(),
    "end_value": value,
}
warmups = {"init_value": value, "peak_value": value, "warmup_steps": steps}
factors = st.floats(0.1, 3.0)
shapes = st.sampled_from(["linear", "cosine", "1-sqrt", "sqrt", "exponential"])
tables = st.tuples(st.sampled_from([(3, 17), (40, 41)]), st.tuples(factors, factors)).map(
    lambda pair: dict(zip(*pair, strict=True))
)
lines = st.builds(line, init_value=value, end_value=value, transition_steps=steps)
sides = {"left": lines, "right": value | lines}
warms = st.builds(warm, steps=steps, peak_value=value, init_value=value, shape=shapes)
stables = st.builds(functools.partial(case, "constant"), steps=steps)
cools = st.builds(cool, steps=steps, end_value=value, shape=shapes)
percents = st.integers(1, 49).map(lambda percent: percent / 100)
divisors = {
    "transition_steps": steps,
    "peak_value": value,
    "div_factor": st.floats(2, 50),
    "final_div_factor": st.floats(2, 1e4),
}
cosines = st.fixed_dictionaries(
    {
        **warmups,
        "decay_steps": st.integers(301, 500),
        "end_value": value,
        "exponent": st.sampled_from([0.5, 1.0, 2.0]),
    }
)

STRATEGIES: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "constant_schedule": {"value": value},
    "linear_schedule": {
        "init_value": value,
        "end_value": value,
        "transition_steps": steps,
        "transition_begin": st.integers(-9, 50),
    },
    "polynomial_schedule": {
        "init_value": value,
        "end_value": value,
        "power": exponents,
        "transition_steps": steps,
    },
    "exponential_decay": {"init_value": value, "transition_steps": steps, **decays},
    "fast_slow_decay_schedule": {
        "peak_value": value,
        "knee_value": value,
        "warmup_steps": steps,
        "stable_steps": steps,
        "fast_steps": steps,
        "slow_steps": steps,
        "power": exponents,
    },
    "power_law_schedule": {
        "init_value": value,
        "transition_steps": steps,
        "power": st.floats(-2.0, 1.0),
    },
    "cosine_decay_schedule": {
        "init_value": value,
        "decay_steps": steps,
        "alpha": st.floats(0.0, 1.0),
        "exponent": exponents,
    },
    "half_life_schedule": {
        "init_value": st.floats(0.3, 0.9),
        "end_value": st.floats(0.3, 0.99),
        "transition_steps": steps,
    },
    "piecewise_constant_schedule": {"init_value": value, "boundaries_and_scales": tables},
    "piecewise_interpolate_schedule": {
        "interpolate_type": shapes,
        "init_value": value,
        "boundaries_and_scales": tables,
    },
    "cosine_onecycle_schedule": {**divisors, "pct_start": percents},
    "linear_onecycle_schedule": {
        **divisors,
        "pct_start": percents,
        "pct_final": percents.map(lambda share: 1 - share),
    },
    "join_schedules": {
        "schedules": st.tuples(lines, value, lines).map(list),
        "boundaries": growing,
    },
    "with_warmup": {"schedule": lines, "warmup_steps": steps, "init_value": value},
    "shift_schedule": {"schedule": lines, "steps": st.integers(-50, 50)},
    "warmup_constant_schedule": warmups,
    "warmup_cosine_decay_schedule": {
        **warmups,
        "decay_steps": st.integers(301, 500),
        "end_value": value,
        "exponent": exponents,
    },
    "warmup_exponential_decay_schedule": {**warmups, "transition_steps": steps, **decays},
    "inverse_sqrt_schedule": {**warmups, "timescale": st.floats(0.5, 300.0)},
    "warmup_stable_decay_schedule": {
        **warmups,
        "stable_steps": steps,
        "decay_steps": steps,
        "end_value": value,
        "shape": shapes,
    },
    "sgdr_schedule": {"cosine_kwargs": st.tuples(cosines, cosines).map(list)},
    "phases": {"phases": st.tuples(warms, stables, cools, cools).map(list)},
    "restarts": {
        "schedule": lines,
        "times": st.integers(1, 4),
        "factor": st.sampled_from([1, 2, 1.5]),
        "decay": st.floats(0.3, 1.0),
        "steps": steps,
    },
    "add_schedules": sides,
    "subtract_schedules": sides,
    "multiply_schedules": sides,
    "divide_schedules": sides,
    "negate_schedule": {"value": lines},
}


cases = pytest.mark.parametrize("item", CASES, ids=str)


each = pytest.mark.parametrize("item", EACH, ids=lambda item: item.name)
