"""Schedules against float64 equations, against Optax, against the textbook, and as data: one table
of cases for all of it.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradtx
from gradtx.definition.definition import registry
from gradtx.definition.schedule import Schedule
from tests.support.schedule_cases import (
    BEHIND_OPERATORS,
    CASES,
    COUNTS,
    LAST,
    STRATEGIES,
    Case,
    case,
    cases,
    each,
    expected,
    line,
    one_cosine,
    one_line,
    ours,
    poly,
    theirs,
    warm_cosine,
)


def public_schedules() -> set[str]:
    return {
        name
        for name, factory in registry.items()
        if factory.result is Schedule and factory.module.startswith("gradtx.schedules.")
    }


def test_every_public_schedule_is_exported_and_in_the_table() -> None:
    assert public_schedules() | BEHIND_OPERATORS == {item.name for item in CASES}
    assert {item.name for item in CASES} == set(STRATEGIES)
    assert all(hasattr(gradtx, name) for name in public_schedules())
    in_optax = {
        name
        for name in dir(optax.schedules)
        if name.endswith(("_schedule", "_schedules", "_decay")) and name[0] != "_"
    }
    assert in_optax <= public_schedules()


@cases
def test_equation_in_float64(item: Case) -> None:
    with jax.enable_x64(True):
        got = ours(item)(jnp.asarray(COUNTS))
        assert got.dtype == jnp.float64
        np.testing.assert_allclose(got, expected(item, COUNTS), rtol=1e-12, atol=1e-15)


@cases
def test_equation_in_float32(item: Case) -> None:
    got = ours(item)(jnp.asarray(COUNTS))
    assert got.dtype == jnp.float32 and got.shape == COUNTS.shape and not got.weak_type
    np.testing.assert_allclose(got, expected(item, COUNTS), rtol=1e-5, atol=1e-15)


@pytest.mark.parametrize("item", [item for item in CASES if item.like_optax], ids=str)
def test_optax(item: Case) -> None:
    counts = jnp.asarray(COUNTS)
    np.testing.assert_allclose(
        ours(item)(counts), jax.vmap(theirs(item))(counts), rtol=1e-5, atol=2e-8
    )


@pytest.mark.parametrize(
    "name", sorted(name for name in public_schedules() if hasattr(optax, name))
)
def test_signature_is_that_of_optax(name: str) -> None:
    def arguments(function: Any) -> list[Any]:
        import inspect

        return [
            (parameter.name, parameter.default)
            for parameter in inspect.signature(function).parameters.values()
        ]

    assert arguments(getattr(gradtx, name)) == arguments(getattr(optax, name))


def test_differences_from_optax_that_have_a_reason() -> None:
    """Each row of the table that has `like_optax=False` although Optax has the function, and what
    else differs.
    """
    peak = warm_cosine(
        peak_value=0.0, warmup_steps=5, end_value=0.1
    )  # an end value counts below a peak of 0, too
    assert (float(ours(peak)(20)), float(theirs(peak)(20))) == (pytest.approx(0.1), 0.0)
    constant = case("constant_schedule", value=3)  # the value of a schedule is real
    assert ours(constant)(0).dtype == jnp.float32 and theirs(constant)(0) == 3
    rounded = one_cosine(
        transition_steps=100, pct_start=0.29
    )  # 0.29 of 100 steps are 29, though 0.29 * 100 < 29
    assert (float(ours(rounded)(29)), float(theirs(rounded)(28))) == (
        pytest.approx(0.4),
        pytest.approx(0.4),
    )
    down = one_line(
        transition_steps=17, pct_final=1.0
    )  # a last phase without length leaves the one before it as it was
    assert (float(ours(down)(11)), float(theirs(down)(11))) == (
        pytest.approx(0.208),
        pytest.approx(0.20002),
    )
    root = poly(
        power=0.5, transition_begin=7
    )  # rounding under a root makes no nan at the end; Optax's number there is the compiler's
    assert float(jax.jit(ours(root).__call__)(jnp.arange(20))[17]) == pytest.approx(0.02)
    ramp = line(
        init_value=0.0, end_value=3, transition_steps=1_000_000
    )  # the first steps of a long ramp keep their digits
    assert float(ours(ramp)(1)) == pytest.approx(3e-6, rel=1e-6) and float(
        theirs(ramp)(1)
    ) != pytest.approx(3e-6, rel=1e-2)


def test_textbook() -> None:
    """η_τ at τ = 1, 2, 3, ... of the lecture notes, with their names for the constants."""
    eta_0, eta_k, k, s, tau = 0.1, 0.01, 20, 7.0, np.arange(1, 60)
    notes = {
        gradtx.linear_schedule(eta_0, eta_k, k): np.where(
            tau < k, (1 - tau / k) * eta_0 + (tau / k) * eta_k, eta_k
        ),
        gradtx.power_law_schedule(eta_0, s, -0.7): eta_0 * (1 + tau / s) ** -0.7,
        gradtx.exponential_decay(eta_0, s, 0.8): eta_0 * 0.8 ** (tau / s),
    }
    with jax.enable_x64(True):
        for schedule, formula in notes.items():
            np.testing.assert_allclose(
                gradtx.shift_schedule(schedule, 1)(jnp.asarray(tau - 1)), formula, rtol=1e-12
            )


def test_transformer_paper() -> None:
    """Vaswani et al. 2017, equation 3."""
    width, warmup, tau = 512, 40, np.arange(1, 200)
    schedule = gradtx.shift_schedule(
        gradtx.inverse_sqrt_schedule(0.0, (width * warmup) ** -0.5, warmup), 1
    )
    with jax.enable_x64(True):
        got = schedule(jnp.asarray(tau - 1))
    np.testing.assert_allclose(
        got, width**-0.5 * np.minimum(tau**-0.5, tau * warmup**-1.5), rtol=1e-12
    )


def moments(item: Any) -> list[int]:
    """Every whole number in a call, which holds all its boundaries."""
    if isinstance(item, Case):
        return moments(list(item.kwargs.values()))
    if isinstance(item, Mapping):
        return moments([*item.keys(), *item.values()])
    if isinstance(item, list):
        return [found for part in item for found in moments(part)]
    return [item] if isinstance(item, int) else []


@pytest.mark.parametrize("name", sorted(STRATEGIES))
@settings(max_examples=8, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_equation_at_random(name: str, data: st.DataObject) -> None:
    """At 0, 1, the last count, and beside every boundary and every sum of boundaries."""
    item = Case(name, data.draw(st.fixed_dictionaries(STRATEGIES[name])))
    found = moments(item)
    edges = [
        0,
        *found,
        sum(found),
        sum(found[:2]),
        *data.draw(st.lists(st.integers(0, 1000), min_size=2, max_size=2)),
    ]
    near = sorted({max(edge + shift, 0) for edge in edges for shift in (-1, 0, 1)} | {LAST})
    counts = np.resize(np.array(near, np.int32), 64)
    with jax.enable_x64(True):
        np.testing.assert_allclose(
            ours(item)(jnp.asarray(counts)), expected(item, counts), rtol=1e-12, atol=1e-15
        )
    got = ours(item)(jnp.asarray(counts))
    np.testing.assert_allclose(got, expected(item, counts), rtol=2e-5, atol=1e-6)


@each
def test_arrays_of_counts(item: Case) -> None:
    schedule = ours(item)
    many = schedule(jnp.arange(100))
    assert many.shape == (100,) and many.dtype == jnp.float32
    assert all(
        float(schedule(count)) == pytest.approx(float(many[count]), rel=1e-6)
        for count in (0, 1, 7, 12, 99)
    )
    assert schedule(0).shape == schedule(jnp.int32(0)).shape == ()


def test_counts_near_the_last_do_not_wrap() -> None:
    ramp = gradtx.linear_schedule(1.0, 0.0, 10)
    assert float(gradtx.shift_schedule(ramp, 100)(LAST)) == 0.0
    assert float(gradtx.join_schedules([ramp, ramp], [LAST - 5])(LAST)) == 0.5
    assert float(gradtx.warmup_stable_decay_schedule(0.0, 1.0, 10, LAST, 10)(10**9)) == 1.0


def test_growth_saturates_before_infinity() -> None:
    growing = gradtx.exponential_decay(0.0, 1, 2.0)
    assert float(growing(LAST)) == 0.0
    assert np.isfinite(gradtx.exponential_decay(1.0, 1, 2.0)(jnp.asarray([200, LAST]))).all()


def test_single_precision_loses_nothing_at_the_ends_of_a_long_run() -> None:
    """1 − (1 − p) at one in a million has lost two digits of seven; both weights are kept
    instead.
    """
    long = 1_000_000
    assert float(gradtx.linear_schedule(0.0, 1.0, long)(1)) == pytest.approx(1e-6, rel=2e-7)
    assert float(gradtx.linear_schedule(1.0, 0.0, long)(long - 1)) == pytest.approx(1e-6, rel=2e-7)
    assert float(gradtx.cosine_decay_schedule(1.0, long)(long - 10)) == pytest.approx(
        np.sin(np.pi / 2 * 1e-5) ** 2, rel=1e-6
    )
