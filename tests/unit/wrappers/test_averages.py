"""Averages of the parameters in the corners that the references do not reach."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import gradtx
from gradtx.definition.errors import HyperparamError
from tests.support.evaluating import GRADS, SGD, W, close, evaluated, train

# What the average is


def test_before_its_start_the_average_follows_the_parameters() -> None:
    tx = gradtx.chain(SGD, gradtx.params_average(start=3, every=2))
    w, state, seen = W, tx.init(W), []
    for _ in range(6):  # w = 7.5, 7, 6.5, 6, 5.5, 5
        updates, state = tx.update(jnp.array(1.0), state, w)
        w = gradtx.apply_updates(w, updates)
        seen.append(
            (float(gradtx.eval_params(tx, state, w)), int(state.slots["params_average"]["n"]))
        )
    assert seen == [(7.5, 0), (7.0, 0), (6.5, 1), (6.5, 1), (6.0, 2), (6.0, 2)]


def test_what_was_not_finite_before_the_start_or_between_is_forgotten() -> None:
    tx = gradtx.chain(gradtx.scale(-1.0), gradtx.params_average(start=2, every=2))
    state = tx.init(W)
    for step, w in enumerate((jnp.inf, 4.0, jnp.nan, 2.0), start=1):
        _, state = tx.update(jnp.array(0.0), state, jnp.array(w))
        assert bool(jnp.isfinite(state.slots["params_average"]["mean"])) == (step > 1)
    assert float(state.slots["params_average"]["mean"]) == 3.0


def test_a_start_that_is_moved_begins_a_new_mean() -> None:
    tx = gradtx.chain(SGD, gradtx.params_average(start=1))
    state, w = train(tx, W, jnp.array(1.0))
    later = gradtx.replace(tx, start=5)
    for n in (0, 1, 2):
        updates, state = later.update(jnp.array(1.0), state, w)
        w = gradtx.apply_updates(w, updates)
        assert int(state.slots["params_average"]["n"]) == n
    assert float(gradtx.eval_params(later, state, w)) == float(w) + 0.25


def test_the_mean_of_parameters_in_bfloat16_is_taken_in_float32() -> None:
    half, tx = (
        jnp.array(1.0, jnp.bfloat16),
        gradtx.chain(gradtx.scale(1.0), gradtx.params_average()),
    )
    state = tx.init(half)
    for step in range(256):
        _, state = tx.update(
            jnp.array(0.0, jnp.bfloat16), state, jnp.array(1.0 + (step % 2) / 128, jnp.bfloat16)
        )
    kept = state.slots["params_average"]["mean"]
    assert kept.dtype == jnp.float32 and abs(float(kept) - (1 + 1 / 256)) < 1e-6
    _, state = tx.update(jnp.array(2.0**-10, jnp.bfloat16), tx.init(half), half)
    assert float(state.slots["params_average"]["mean"]) == 1 + 2.0**-10, (
        "which bfloat16 does not hold"
    )
    narrow = gradtx.params_average(accumulator_dtype=jnp.bfloat16).init(half)
    assert narrow.slots["params_average"]["mean"].dtype == jnp.bfloat16


def test_numbers_of_steps_are_whole() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        (
            {"start": 2.5},
            r"params_average: start = 2\.5 is not a number of updates; give a whole number",
        ),
        (
            {"every": True},
            r"params_average: every = True is a bool, and must be a real number",
        ),
        ({"every": 0}, r"params_average: every = 0 is outside its range \[1, inf\]"),
        ({"start": -1}, r"params_average: start = -1 is outside its range \[0, inf\]"),
        ({"horizon": 0.5}, r"params_average: horizon = 0\.5 is outside its range \[1, inf\]"),
    ]
    for arguments, said in cases:
        with pytest.raises(HyperparamError, match=said):
            gradtx.params_average(**arguments)
    assert gradtx.params_average(start=float("inf"), every=4.0)


def test_numbers_of_steps_may_be_arrays_and_schedules() -> None:
    tx = gradtx.chain(
        SGD,
        gradtx.params_average(
            start=jnp.array(2),
            every=lambda count: 1 + count // 4,
            horizon=lambda count: 2.0 + count,
        ),
    )
    plain = gradtx.chain(SGD, gradtx.params_average(start=2))
    close(evaluated(tx), evaluated(plain))
    starts = gradtx.replace(plain, start=jnp.array([1.0, 2.0, 9.0]))
    axes = gradtx.vmap_axes(starts, "start")
    found = jax.vmap(lambda tx: evaluated(tx, W, jnp.array(1.0)), in_axes=(axes,))(starts)
    close(found, jnp.array([(7.5 + 6.5 + 5.0) / 3, (6.5 + 5.0) / 2, 5.0]))


def test_a_decay_of_zero_at_first_follows_the_parameters() -> None:
    tx = gradtx.chain(SGD, gradtx.params_ema(lambda count: jnp.where(count < 2, 0.0, 0.5)))
    assert [float(evaluated(tx, W, jnp.array(1.0), steps)) for steps in (1, 2, 3)] == [
        7.5,
        6.5,
        (6.5 + 5.0) / 2,
    ]


def test_a_warmup_of_the_decay_is_a_schedule_too() -> None:
    """The ready-made one, and one of the caller's own: count 0 is the first update."""
    ready, made = (
        gradtx.chain(SGD, gradtx.params_ema(decay, warmup=warmup))
        for decay, warmup in (
            (0.9, True),
            (lambda count: jnp.minimum(0.9, (2.0 + count) / (11.0 + count)), False),
        )
    )
    for steps in (1, 7):
        close(evaluated(ready, steps=steps), evaluated(made, steps=steps))
    assert float(evaluated(ready, W, jnp.array(1.0), 1)) == pytest.approx(
        2 / 11 * 8.0 + 9 / 11 * 7.5
    )


# EMA-Nesterov


def test_without_a_look_ahead_it_is_the_inner_transformation() -> None:
    inner, tx = gradtx.adam(0.1), gradtx.ema_nesterov(gradtx.adam(0.1), beta=0.0)
    close(train(tx)[1], train(inner)[1], 0.0)
    close(evaluated(tx), train(inner)[1], 0.0)


def test_the_look_ahead_may_be_changed_between_steps() -> None:
    """θ is found with the b that y was made with, whatever b is now."""
    tx = gradtx.ema_nesterov(SGD, 0.5, 0.5)
    state, y = train(tx)
    close(
        gradtx.eval_params(gradtx.replace(tx, beta=0.0), state, y),
        gradtx.eval_params(tx, state, y),
        0.0,
    )
    theta = gradtx.eval_params(tx, state, y)
    updates, after_off = gradtx.replace(tx, beta=0.0).update(GRADS, state, y)
    moved = gradtx.apply_updates(y, updates)
    close(moved, jax.tree.map(lambda y, g: y - 0.5 * g, y, GRADS))
    way = jax.tree.map(
        lambda m, new, old: 0.5 * m + 0.5 * (new - old),
        state.slots["ema_nesterov"]["m"],
        moved,
        theta,
    )
    close(after_off.slots["ema_nesterov"]["m"], way)
