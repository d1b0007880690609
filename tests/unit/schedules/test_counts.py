"""Counts of every integer dtype, and values that are no numbers."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.definition.errors import HyperparamError
from tests.support.schedule_cases import CASES, Case, ours

NARROW = ["int8", "uint8", "int16", "uint16", "uint32", "int32"]
WIDE = ["int64", "uint64"]
COUNTS = [0, 1, 7, 100]
LARGEST = 2**31 - 1


def value(schedule: Any, count: Any, jitted: bool) -> np.ndarray:
    return np.asarray(jax.jit(schedule)(count) if jitted else schedule(count))


def assert_same(mine: np.ndarray, right: np.ndarray) -> None:
    # Within `jit` the parameters are constants, and XLA folds some of the arithmetic.
    np.testing.assert_allclose(mine, right, rtol=4 * np.finfo(right.dtype).eps)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_integer_dtype_counts_alike(case: Case) -> None:
    """Against the Python integer; large unsigned counts are held at the largest count."""
    schedule = ours(case)
    for count in COUNTS:
        right = value(schedule, count, jitted=False)
        for dtype in NARROW:
            for made in (jnp.asarray(count, dtype), np.dtype(dtype).type(count)):
                for jitted in (False, True):
                    assert_same(value(schedule, made, jitted), right)
        for dtype in WIDE:
            np.testing.assert_array_equal(
                value(schedule, np.dtype(dtype).type(count), jitted=False), right
            )
    last = value(schedule, LARGEST, jitted=False)
    for count in (2**40, np.uint32(2**32 - 1), jnp.uint32(2**32 - 1), np.uint64(2**63)):
        np.testing.assert_array_equal(value(schedule, count, jitted=False), last)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_integer_dtype_counts_alike_in_x64(case: Case) -> None:
    with jax.enable_x64(True):
        schedule = ours(case)
        right = value(schedule, 100, jitted=False)
        for dtype in NARROW + WIDE:
            made = jnp.asarray(100, dtype)
            for jitted in (False, True):
                assert_same(value(schedule, made, jitted), right)


def test_the_count_of_a_framework() -> None:
    """The step of `nnx.Optimizer` is uint32, and that of a user's loop may be any integer."""
    line = gradtx.linear_schedule(1.0, 0.0, 1000)
    assert float(line(jnp.uint8(100))) == float(line(100)) == pytest.approx(0.9)
    assert float(line(jnp.uint32(0))) == 1.0
    counts = jnp.arange(250, dtype=jnp.uint8)
    np.testing.assert_array_equal(line(counts), line(counts.astype(jnp.int32)))


def test_a_function_of_the_users_receives_a_wide_count() -> None:
    shifted = gradtx.shift_schedule(lambda count: jnp.asarray(count - 200, jnp.float32), 0)
    assert float(shifted(jnp.uint8(100))) == -100.0


@pytest.mark.parametrize("count", [True, np.bool_(True), jnp.array(True)])
def test_a_bool_is_no_count(count: Any) -> None:
    with pytest.raises(
        HyperparamError, match=r"^constant_schedule: the count is .*, a bool, and must be a number$"
    ):
        gradtx.constant_schedule(0.1)(count)


def nothing(count: Any) -> Any:
    return None


def text(count: Any) -> Any:
    return "0.1"


def vector(count: Any) -> Any:
    return jnp.ones(2)


def numpy_vector(count: Any) -> Any:
    return np.ones((1, 3))


@gradtx.schedule
def own_vector(count: Any, value: gradtx.Hyperparam) -> Any:
    return jnp.stack([jnp.asarray(value)] * 2)  # pyright: ignore[reportArgumentType]


@gradtx.schedule
def own_nothing(count: Any, value: gradtx.Hyperparam) -> Any:
    return None


WRONG = {
    "nothing": (nothing, "the schedule nothing returned None, and must return a number"),
    "text": (text, "the schedule text returned '0.1', and must return a number"),
    "a vector": (
        vector,
        "the schedule vector returned an array of shape (2,) for one count, and must return one",
    ),
    "a vector of NumPy's": (
        numpy_vector,
        "the schedule numpy_vector returned an array of shape (1, 3) for one count, and must",
    ),
    "a vector of a schedule of one's own": (
        own_vector(0.5),
        "the schedule own_vector returned an array of shape (2,) for one count, and must return",
    ),
    "nothing of a schedule of one's own": (
        own_nothing(0.5),
        "the schedule own_nothing returned None, and must return a number",
    ),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize("place", ["rate", "b1", "joined"])
def test_a_schedule_gives_one_number(case: str, jitted: bool, place: str) -> None:
    schedule, message = WRONG[case]
    joined = gradtx.join_schedules([schedule, 0.1], [5])
    rate, b1 = {"rate": (schedule, 0.9), "b1": (0.1, schedule), "joined": (joined, 0.9)}[place]
    tx, w = gradtx.adam(rate, b1), jnp.ones(2)
    with pytest.raises(HyperparamError, match=re.escape(message)):
        (jax.jit(tx.update) if jitted else tx.update)(w, tx.init(w))


def test_counts_and_parameters_may_be_batches() -> None:
    line = gradtx.linear_schedule(1.0, 0.0, 4)
    assert line(jnp.arange(3)).shape == (3,)
    batch = jax.tree.map(lambda *each: jnp.stack(each), line, gradtx.linear_schedule(2.0, 0.0, 4))
    assert jax.vmap(lambda one: one(1))(batch).tolist() == [0.75, 1.5]
    assert (
        gradtx.hyperparams(gradtx.replace(gradtx.sgd(line), init_value=jnp.ones(3)), at=1)[
            "learning_rate"
        ].tolist()
        == [0.75] * 3
    )
    cosine = optax.cosine_decay_schedule(1.0, 10)
    assert gradtx.sgd(cosine).update(1.0, gradtx.sgd(cosine).init(1.0))[0].item() == -1.0
