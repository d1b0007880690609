"""Arithmetic of schedules: values, printing, JSON, traced operands, and what mistakes are told."""

import json
import pickle
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import HyperparamError
from tests.support.public import public_names

COSINE = gradtx.cosine_decay_schedule(1.0, 100)
LINE = gradtx.linear_schedule(0.2, 0.6, 40)


def double(count: Any) -> Any:
    return 2.0 * count


EXPRESSIONS = {
    "0.5 * COSINE": lambda c, line: 0.5 * c,
    "COSINE * 0.5": lambda c, line: c * 0.5,
    "2 * COSINE": lambda c, line: 2 * c,
    "COSINE + LINE": lambda c, line: c + line,
    "1 - COSINE": lambda c, line: 1 - c,
    "COSINE - 0.25": lambda c, line: c - 0.25,
    "-COSINE": lambda c, line: -c,
    "-(COSINE + LINE)": lambda c, line: -(c + line),
    "-COSINE * LINE": lambda c, line: -c * line,
    "COSINE / 2": lambda c, line: c / 2,
    "0.1 / LINE": lambda c, line: 0.1 / line,
    "COSINE - (LINE - 0.5)": lambda c, line: c - (line - 0.5),
    "COSINE - LINE - 0.5": lambda c, line: c - line - 0.5,
    "COSINE / (LINE * 2)": lambda c, line: c / (line * 2),
    "(COSINE + 0.1) * LINE": lambda c, line: (c + 0.1) * line,
    "COSINE + 0.1 * LINE": lambda c, line: c + 0.1 * line,
    "COSINE - -LINE": lambda c, line: c - -line,
    "-0.5 * COSINE": lambda c, line: -0.5 * c,
}


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_expression(text: str) -> None:
    """Its value, and its own text, by which it comes back as it does from JSON and pickle."""
    schedule, counts = eval(text), jnp.arange(0, 120, 7)
    np.testing.assert_allclose(
        schedule(counts), EXPRESSIONS[text](COSINE(counts), LINE(counts)), rtol=1e-6
    )
    shown = text.replace("COSINE", repr(COSINE)).replace("LINE", repr(LINE))
    assert repr(schedule) == schedule.name == shown
    for copy in (
        eval(shown, public_names()),
        gradtx.from_config(json.loads(json.dumps(gradtx.to_config(schedule)))),
        pickle.loads(pickle.dumps(schedule)),
    ):
        assert copy == schedule and hash(copy) == hash(schedule) and repr(copy) == shown
    assert schedule != COSINE and isinstance(schedule, gradtx.Schedule)


@pytest.mark.parametrize(
    "half", [0.5, np.float32(0.5), np.array(0.5), jnp.array(0.5), jnp.array(0.5, jnp.bfloat16)]
)
def test_numbers_of_every_kind(half: Any) -> None:
    for schedule in (half * COSINE, COSINE * half, COSINE / (1 / half)):
        assert isinstance(schedule, gradtx.Schedule)
        value = schedule(jnp.arange(3))
        np.testing.assert_allclose(value, 0.5 * COSINE(jnp.arange(3)), rtol=1e-6)
        assert value.dtype == jnp.float32 and not value.weak_type


def test_functions_of_the_count() -> None:
    for schedule in (double * LINE, LINE * double):
        assert float(schedule(20)) == pytest.approx(16.0)
    assert float((0 + LINE)(0)) == pytest.approx(0.2)  # as in `sum`


def test_traced_operands() -> None:
    """jit, vmap and grad through the number; a definition with it is one program for all."""
    assert float(jax.jit(lambda scale: (scale * COSINE)(50))(0.5)) == pytest.approx(0.25)
    assert float(jax.grad(lambda scale: (scale * COSINE)(50))(3.0)) == pytest.approx(0.5)
    scales = jnp.array([1.0, 2.0])
    assert jax.vmap(lambda scale: (scale * COSINE)(50))(scales).tolist() == pytest.approx([0.5, 1])
    tx = gradtx.sgd(0.5 * COSINE)
    assert gradtx.replace(tx, left=0.25) == gradtx.sgd(0.25 * COSINE)
    assert gradtx.replace(tx, init_value=2.0) == gradtx.sgd(
        0.5 * gradtx.cosine_decay_schedule(2.0, 100)
    )
    batch = gradtx.replace(tx, left=scales)
    assert gradtx.hyperparams(batch, at=50)["learning_rate"].tolist() == pytest.approx([0.5, 1])
    assert repr(batch).startswith("sgd(learning_rate=f32[2] * cosine_decay_schedule(")


def test_a_batch_of_definitions_multiplies_inside_a_builder() -> None:
    """A builder of a batch receives arrays, which no user may write."""

    @gradtx.definition
    def halved(learning_rate: gradtx.NonNegative, scale: gradtx.NonNegative) -> Any:
        return gradtx.sgd(learning_rate * scale)  # pyright: ignore[reportOperatorIssue]

    tx = gradtx.replace(halved(COSINE, 0.5), scale=jnp.array([0.5, 1.0]))
    axes = gradtx.vmap_axes(tx, "scale"), None
    step = jax.vmap(lambda tx, g: tx.update(g, tx.init(g))[0], in_axes=axes)
    assert step(tx, jnp.array(1.0)).tolist() == [-0.5, -1.0]


WRONG = {
    "COSINE * '3'": "cosine_decay_schedule(...) * '3': '3' is not a number, a schedule or a "
    "function of the count",
    "None + COSINE": "None + cosine_decay_schedule(...): None is not a number",
    "COSINE - True": "True is not a number, a schedule",
    "COSINE * 1j": "1j is not a number, a schedule",
    "COSINE * gradtx.sgd(0.1)": "sgd(learning_rate=0.1) is not a number, a schedule",
    "COSINE * [0.5]": "[0.5] is not a number, a schedule",
    "COSINE * jnp.ones(3)": "cosine_decay_schedule(...) * f32[3]: f32[3] is an array of shape "
    "(3,), and must be one number; evaluate the schedule at a count first, schedule(count), or for "
    "a batch of schedules take gradtx.replace and gradtx.vmap_axes",
    "np.ones((1, 2)) / COSINE": "f64[1,2] / cosine_decay_schedule(...): f64[1,2] is an array",
    "COSINE * gradtx.linear_schedule": "linear_schedule is a function that makes schedules: call "
    "it, linear_schedule(...)",
    "COSINE / 0": "cosine_decay_schedule(init_value=1.0, decay_steps=100) / 0 divides a schedule "
    "by 0",
}


@pytest.mark.parametrize("text", WRONG)
def test_wrong_operands(text: str) -> None:
    with pytest.raises(HyperparamError, match=re.escape(WRONG[text])):
        eval(text)


LENGTHS: dict[str, int | None] = {
    "constant_schedule(1.0)": 0,
    "linear_schedule(1.0, 0.0, 10, transition_begin=-5)": 10,
    "polynomial_schedule(1.0, 0.0, 2.0, 10, 5)": 15,
    "exponential_decay(1.0, 10, 0.5)": None,
    "warmup_constant_schedule(0.0, 1.0, 10)": 10,
    "warmup_cosine_decay_schedule(0.0, 1.0, 10, 30)": 30,
    "warmup_stable_decay_schedule(0.0, 1.0, 10, 20, 30)": 60,
    "half_life_schedule(0.5, 0.9, 10)": 10,
    "piecewise_constant_schedule(1.0, {30: 0.1, 10: 0.1})": 30,
    "piecewise_interpolate_schedule('linear', 1.0)": 0,
    "cosine_onecycle_schedule(20, 1.0)": 20,
    "linear_onecycle_schedule(20, 1.0)": 20,
    "join_schedules([1.0, linear_schedule(1.0, 0.0, 7)], [10])": 17,
    "join_schedules([1.0, exponential_decay(1.0, 10, 0.5)], [10])": None,
    "with_warmup(0.5, 10)": 10,
    "with_warmup(cosine_decay_schedule(1.0, 20), 10)": 30,
    "shift_schedule(cosine_decay_schedule(1.0, 20), 5)": 15,
    "shift_schedule(cosine_decay_schedule(1.0, 20), 50)": 0,
    "sgdr_schedule([dict(init_value=0, peak_value=1, warmup_steps=1, decay_steps=9)] * 3)": 27,
    "0.5 * cosine_decay_schedule(1.0, 20) + linear_schedule(0.0, 1.0, 30)": 30,
    "-cosine_decay_schedule(1.0, 20)": 20,
    "cosine_decay_schedule(1.0, 20) * exponential_decay(1.0, 10, 0.5)": None,
    "phases(warmup(10, 1.0), constant(20), cooldown(5))": 35,
    "phases(warmup(10, 1.0), exponential_decay(1.0, 10, 0.5))": None,
    "restarts(cosine_decay_schedule(1.0, 10), times=3, factor=2)": 70,
    "restarts(cosine_decay_schedule(1.0, 10))": None,
}


@pytest.mark.parametrize("text", LENGTHS)
def test_length(text: str) -> None:
    """The value is constant from the length on, and not before."""
    schedule, length = eval(text, public_names()), LENGTHS[text]
    assert schedule.length == length
    if length is not None:
        tail = schedule(length + jnp.arange(50))
        assert tail.tolist() == [tail[0]] * 50
        assert length == 0 or float(schedule(length - 1)) != float(tail[0])


def test_length_of_a_function_and_of_traced_steps() -> None:
    assert gradtx.with_warmup(double, 10).length is None
    summed = jax.jit(lambda n: (gradtx.cosine_decay_schedule(1.0, n) + LINE).length)
    assert int(summed(90)) == 90 and int(summed(10)) == 40


def test_length_of_a_schedule_of_the_users() -> None:
    @gradtx.schedule(length=lambda every, **_: 3 * every)
    def three_steps(count: Any, value: gradtx.Hyperparam, every: gradtx.Positive) -> Any:
        return value * 0.5 ** jnp.minimum(count // every, 3)  # pyright: ignore

    assert three_steps(1.0, 10).length == 30 and (0.5 * three_steps(1.0, 20)).length == 60
    assert gradtx.restarts(three_steps(1.0, 10), times=2).length == 60
