"""`phases`: continuity, the shapes, and what mistakes are told."""

import functools
import itertools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import HyperparamError
from gradtx.schedules.parts import SHAPES
from tests.support.public import public_names

SHAPED = [(shape, None) for shape in SHAPES] + [
    ("polynomial", 2.0),
    ("polynomial", 0.5),
    ("power", 0.6),
]


@pytest.mark.parametrize(("shape", "power"), SHAPED)
def test_each_phase_starts_where_the_one_before_ended(shape: str, power: float | None) -> None:
    """At the boundary both sides have one value, and the ends are exact."""
    rate = gradtx.phases(
        gradtx.warmup(10, 1.0, shape=shape, power=power),
        gradtx.constant(5),
        gradtx.cooldown(20, 0.25, shape=shape, power=power),
        gradtx.cooldown(10, 0.125),
        init_value=0.5,
    )
    assert rate(jnp.array([0, 10, 15, 35, 45, 10**9])).tolist() == [0.5, 1, 1, 0.25, 0.125, 0.125]
    values = np.asarray(rate(jnp.arange(16)))
    assert (np.diff(values) >= 0).all() and (np.diff(rate(jnp.arange(15, 50))) <= 0).all()


def test_the_known_schedules_are_phases() -> None:
    """Warmup-stable-decay, the cosine with warmup and the polynomial, to the last bit or nearly."""
    pairs = [
        (
            gradtx.phases(
                gradtx.warmup(5, 0.4, 0.01), gradtx.constant(7), gradtx.cooldown(10, 0.02, shape)
            ),
            gradtx.warmup_stable_decay_schedule(0.01, 0.4, 5, 7, 10, 0.02, shape),
        )
        for shape in SHAPES
    ]
    pairs += [
        (
            gradtx.phases(gradtx.warmup(5, 0.4), gradtx.cooldown(15, 0.02, "cosine")),
            gradtx.warmup_cosine_decay_schedule(0.0, 0.4, 5, 20, 0.02),
        ),
        (
            gradtx.phases(gradtx.cooldown(9, 0.02, "polynomial", power=3.0), init_value=0.4),
            gradtx.polynomial_schedule(0.4, 0.02, 3.0, 9),
        ),
    ]
    for mine, known in pairs:
        counts = jnp.arange(30)
        np.testing.assert_allclose(mine(counts), known(counts), rtol=1e-6, atol=1e-9)


def test_jumps_where_told() -> None:
    rate = gradtx.phases(
        gradtx.constant(2, 1.0), gradtx.warmup(2, 3.0, init_value=2.0), gradtx.constant(9, 0.5)
    )
    assert rate(jnp.arange(6)).tolist() == [1.0, 1.0, 2.0, 2.5, 0.5, 0.5]


def test_a_schedule_is_a_phase() -> None:
    """It starts at its own count 0, and the next phase at its last value."""
    rate = gradtx.phases(
        gradtx.warmup(2, 1.0), gradtx.linear_schedule(8.0, 4.0, 2), gradtx.cooldown(4)
    )
    assert rate(jnp.arange(9)).tolist() == [0.0, 0.5, 8.0, 6.0, 4.0, 3.0, 2.0, 1.0, 0.0]


def test_lengths_are_data() -> None:
    """One program for every length; a batch of lengths in one call."""
    rate = gradtx.phases(gradtx.warmup(10, 1.0), gradtx.cooldown(10))

    def at_15(steps: Any) -> Any:
        return gradtx.phases(gradtx.warmup(steps, 1.0), gradtx.cooldown(10))(15)

    assert jax.vmap(at_15)(jnp.array([5, 10, 30])).tolist() == [0.0, 0.5, 0.5]
    tx = gradtx.replace(gradtx.sgd(rate), peak_value=2.0)
    assert float(gradtx.hyperparams(tx, at=10)["learning_rate"]) == 2.0
    assert float(jax.grad(lambda peak: gradtx.phases(gradtx.warmup(4, peak))(2))(1.0)) == 0.5


def test_unsigned_steps() -> None:
    rate = gradtx.phases(gradtx.warmup(jnp.uint32(4), 1.0), gradtx.cooldown(np.uint8(4)))
    assert rate(jnp.arange(9)).tolist() == [0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25, 0]


def test_huge_phases_do_not_wrap() -> None:
    last = 2**31 - 1
    rate = gradtx.phases(gradtx.warmup(10, 1.0), gradtx.constant(last), gradtx.cooldown(last))
    assert rate(jnp.array([10, 10**9, last - 1])).tolist() == [1.0, 1.0, 1.0]


def test_every_two_phases_print_and_come_back() -> None:
    kinds = [gradtx.warmup(3, 1.0, shape="cosine"), gradtx.constant(2, 0.5), gradtx.cooldown(4)]
    for pair in itertools.permutations(kinds, 2):
        rate = gradtx.phases(*pair, init_value=0.1)
        assert eval(repr(rate), public_names()) == rate
        assert gradtx.from_config(gradtx.to_config(rate)) == rate


phases, warm, cool = gradtx.phases, functools.partial(gradtx.warmup, 10, 1.0), gradtx.cooldown
WRONG: dict[str, str] = {
    "phases()": "phases: there is no phase; give phases in order, for example phases(warmup(1000",
    "phases(1000)": "phases: 1000 is not a phase; write gradtx.warmup(steps, peak_value), "
    "gradtx.constant(steps), gradtx.cooldown(steps) or a schedule",
    "phases(gradtx.constant(5))": "phases: the first phase, constant(steps=5), has no value to "
    "start from; give phases(..., init_value=...)",
    "phases(cool(5), warm())": "the first phase, cooldown(steps=5), has no value to start from",
    "phases(gradtx.exponential_decay(1.0, 1, 0.5), cool(5))": "phases: exponential_decay(...) has "
    "no end, and a phase follows it; only the last phase may be without an end",
    "cool(5, shape='exponential')": "cooldown: an exponential phase cannot start or end at 0.0; "
    "give values above 0, or another shape",
    "phases(warm(shape='exponential'))": "phases: warmup: an exponential phase cannot start or "
    "end at 0.0",
    "cool(5, shape='cubic')": "cooldown: shape is 'cubic', which is unknown; choose one of "
    "'linear', 'cosine', '1-sqrt', 'sqrt', 'exponential', 'polynomial', 'power'",
    "cool(5, shape='polynomial')": "cooldown: shape='polynomial' needs power, for example "
    "power=2.0",
    "cool(5, shape='power')": "cooldown: shape='power' needs power, for example power=2.0",
    "warm(power=2.0)": "warmup: power = 2.0 belongs to shape='polynomial' or 'power', and the "
    "shape is 'linear'",
    "gradtx.adamw(warm())": "adamw: learning_rate = warmup(steps=10, peak_value=1.0) is one phase "
    "of a schedule; write gradtx.phases(...) around it",
    "gradtx.restarts(cool(5), 3)": "restarts: schedule = cooldown(steps=5) is one phase of a",
    "gradtx.linear_schedule(0.0, 1.0, 5) + cool(5)": "linear_schedule(...) + cooldown(...): "
    "cooldown(steps=5) is not a number, a schedule or a function of the count",
    "phases([warm()])": "phases: pass the phases of a list one by one, phases(*list)",
    "cool(100, '1-sqrt')": "cooldown: end_value = '1-sqrt' is neither a number, an array nor a "
    "schedule; write shape='1-sqrt'",
    "cool(-5)": "cooldown: steps = -5 is outside its range [0, inf)",
    "gradtx.warmup(3e-4, 1000)": "warmup: steps = 0.0003 is less than one step; the order of the "
    "arguments is steps, peak_value, init_value, shape, power",
    "gradtx.warmup_stable_decay_schedule(0.0, 1.0, 1, 1, 1, shape='exponential')": "warmup_stable_"
    "decay_schedule: an exponential phase cannot start or end at 0.0; give values above 0",
    "gradtx.piecewise_interpolate_schedule('exponential', 1.0, {5: 0.0})": "piecewise_interpolate_"
    "schedule: an exponential phase cannot start or end at 0.0",
}


@pytest.mark.parametrize("text", WRONG)
def test_mistakes(text: str) -> None:
    with pytest.raises(HyperparamError, match=re.escape(WRONG[text])):
        eval(text)


def test_the_published_fast_slow_decay() -> None:
    """The rates of modded-nanogpt's pull request 351, and the same from phases."""
    rate = gradtx.fast_slow_decay_schedule(0.03, 0.006, 100, 100, 1550, 1375)
    counts = jnp.array([0, 99, 199, 975, 1750, 2437, 3125])
    expected = [3e-4, 0.03, 0.03, 0.03 - 0.024 * 0.5**0.6, 0.006, 0.006 * 688 / 1375, 0.0]
    np.testing.assert_allclose(rate(counts), expected, rtol=1e-5, atol=1e-9)
    same = gradtx.phases(
        gradtx.warmup(99, 0.03, init_value=3e-4),
        gradtx.constant(101),
        gradtx.cooldown(1550, 0.006, "power", power=0.6),
        gradtx.cooldown(1375),
    )
    assert rate.length == same.length == 3125
    np.testing.assert_allclose(rate(jnp.arange(3200)), same(jnp.arange(3200)), rtol=1e-5, atol=1e-9)
