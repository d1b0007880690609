"""Wrappers in the corners that the rows of the table do not reach, and beside Optax where it has
another form or another answer.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import (
    GradtxError,
    HyperparamError,
    StateError,
)
from tests.methods.row import rate
from tests.support.close import close
from tests.support.peer import optax
from tests.support.trees import gradient, start

contrib = optax.contrib
ONE, NAN = jnp.array(1.0), jnp.array(jnp.nan)


# Schedule-Free


def wrapped(lib: Any, inner: Any, **arguments: Any) -> Any:
    return (lib.contrib if lib is optax else lib).schedule_free(inner, rate, **arguments)


def test_parameters_to_evaluate_are_those_of_optax() -> None:
    with jax.enable_x64(True):
        ends = []
        for lib, evaluate in (
            (gradtx, gradtx.schedule_free_eval_params),
            (optax, contrib.schedule_free_eval_params),
        ):
            tx, params = wrapped(lib, lib.sgd(rate), b1=0.8), list(map(jnp.asarray, start()))
            state = tx.init(params)
            for step in range(1, 6):
                updates, state = tx.update(list(map(jnp.asarray, gradient(step))), state, params)
                params = gradtx.apply_updates(params, updates)
            ends.append(evaluate(state, params))
        close(*ends)


def test_parameters_to_evaluate_are_found_wherever_the_state_is() -> None:
    params = {"a": jnp.array([2.0]), "b": jnp.array([3.0])}
    inner = gradtx.schedule_free_sgd(0.5)
    split = gradtx.partition({"free": inner, "plain": gradtx.sgd(0.5)}, {"a": "free", "b": "plain"})
    after_one_step = {
        "a": jnp.array([1.0]),
        "b": jnp.array([1.5]),
    }  # the average of one iterate is that iterate
    for tx, b in (
        (gradtx.chain(gradtx.clip(9.0), last=inner), 1.5),
        (split, 1.5),
        (optax.chain(optax.clip(9.0), inner), 1.5),
    ):
        state = tx.init(params)
        updates, state = tx.update(params, state, params)
        close(
            gradtx.schedule_free_eval_params(state, gradtx.apply_updates(params, updates)),
            {**after_one_step, "b": jnp.array([b])},
            1e-6,
        )
    with pytest.raises(
        StateError,
        match=r"no slots of schedule_free, which are b1, max_lr, weight_sum, z: pass the state",
    ):
        gradtx.schedule_free_eval_params(gradtx.sgd(0.1).init(params), params)


def test_the_mixing_may_change_from_step_to_step() -> None:
    """x and z as in the paper, both kept; b1 of this step mixes y, and that of the step before
    recovers x.
    """
    with jax.enable_x64(True):
        tx = gradtx.schedule_free(gradtx.sgd(0.3), 0.3, b1=lambda count: 0.5 + 0.1 * count)
        y = x = z = jnp.array(1.0)
        state = tx.init(y)
        for t in range(1, 5):
            g = jnp.sin(3.0 * t)
            z, b1 = z - 0.3 * g, 0.5 + 0.1 * (t - 1)
            x = (1 - 1 / t) * x + z / t
            updates, state = tx.update(g, state, y)
            y = y + updates
            close(y, b1 * x + (1 - b1) * z)
            close(gradtx.schedule_free_eval_params(state, y), x)


def test_without_mixing_there_is_no_average_to_recover() -> None:
    with pytest.raises(
        HyperparamError, match=r"schedule_free: b1 = 0\.0 is outside its range \(0, 1\]"
    ):
        gradtx.schedule_free(gradtx.sgd(0.1), 0.1, b1=0.0)


def test_the_state_dtype_is_that_of_z() -> None:
    state = gradtx.schedule_free_sgd(0.1, state_dtype=jnp.bfloat16).init(jnp.ones(2))
    assert state.slots["schedule_free"]["z"].dtype == jnp.bfloat16


def synced(period: Any) -> Any:
    return gradtx.lookahead(gradtx.sgd(0.1), period, 0.5)


def sharp(period: Any) -> Any:
    return gradtx.sam(gradtx.sgd(0.1), gradtx.sgd(0.1), period)


@pytest.mark.parametrize("period", [0, 2.0, True])
@pytest.mark.parametrize(("name", "make"), [("lookahead", synced), ("sam", sharp)])
def test_periods_are_whole_numbers(name: str, make: Any, period: Any) -> None:
    with pytest.raises(
        HyperparamError,
        match=rf"{name}: sync_period = 0 is not a number of steps; give a whole number from 1 on"
        if period == 0
        else rf"{name}: sync_period = {period!r} must be a whole number",
    ):
        make(period)


@pytest.mark.parametrize("warmup", [False, True])
def test_average_of_parameters(warmup: bool) -> None:
    with jax.enable_x64(True):
        tx, w = gradtx.chain(gradtx.sgd(0.5), gradtx.params_ema(0.4, warmup=warmup)), jnp.array(2.0)
        mean, state = (
            w,
            gradtx.chain(gradtx.sgd(0.5), gradtx.params_ema(0.4, warmup=warmup)).init(w),
        )
        for t in range(1, 12):
            updates, state = tx.update(jnp.cos(1.0 * t), state, w)
            w = gradtx.apply_updates(w, updates)
            b = min(0.4, (1 + t) / (10 + t)) if warmup else 0.4
            mean = b * mean + (1 - b) * w
            close(state.slots["params_ema"].ema, mean)


# Conditions


@pytest.mark.parametrize("patience", [1, 3])
def test_plateaus_are_those_of_optax(patience: int) -> None:
    values = np.abs(np.random.default_rng(patience).normal(size=60)) + np.linspace(2, 1, 60)
    with jax.enable_x64(True):
        ours, theirs = (
            lib.reduce_on_plateau(0.9, patience=patience, rtol=0.05, cooldown=2)
            for lib in (gradtx, contrib)
        )
        state, other = ours.init(ONE), theirs.init(ONE)
        step, expect = jax.jit(ours.update), jax.jit(theirs.update)
        for value in values:
            updates, state = step(ONE, state, value=value)
            expected, other = expect(ONE, other, value=value)
            close(updates, expected, 1e-6)
            kept = state.slots["reduce_on_plateau"]
            close(
                [getattr(kept, name) for name in kept._fields],
                [getattr(other, name.replace("value_count", "count")) for name in kept._fields],
                1e-6,
            )
        assert 0 < float(state.slots["reduce_on_plateau"].scale) < 1


def test_a_better_negative_value_is_better() -> None:
    tx = gradtx.reduce_on_plateau(0.5, patience=1, rtol=0.1)
    state = tx.init(ONE)
    for value, scale in ((-1.0, 1.0), (-1.2, 1.0), (-1.3, 0.5), (-1.4, 0.5), (jnp.nan, 0.25)):
        updates, state = tx.update(ONE, state, value=value)
        assert float(updates) == scale


def test_steps_that_are_not_finite_are_left_out_as_optax_does() -> None:
    bad = {2, 3, 6, 7, 8, 9}
    with jax.enable_x64(True):
        ours, theirs = (lib.apply_if_finite(lib.adam(rate), 3) for lib in (gradtx, optax))
        params = list(map(jnp.asarray, start()))
        state, other = ours.init(params), theirs.init(params)
        for step in range(1, 12):
            grads = [
                jnp.asarray(g) * (jnp.inf if step in bad and i == 1 else 1.0)
                for i, g in enumerate(gradient(step))
            ]
            updates, state = jax.jit(ours.update)(grads, state, params)
            expected, other = theirs.update(grads, other, params)
            close(updates, expected)
            counts = state.slots["apply_if_finite"]
            assert counts[:3] == (other.notfinite_count, other.last_finite, other.total_notfinite)
        assert state.slots["apply_if_finite"].applied == state.count == 6


def test_a_clock_stands_still_while_steps_are_left_out() -> None:
    tx = gradtx.apply_if_finite(gradtx.scale(lambda count: 1.0 + count), 9)
    state, seen = tx.init(ONE), []
    for g in (ONE, NAN, ONE, NAN, ONE):
        updates, state = tx.update(g, state)
        seen.append(float(updates))
    assert seen == [1.0, 0.0, 2.0, 0.0, 3.0] and state.count == 3
    chained = gradtx.chain(tx)
    assert chained.update(NAN, chained.init(ONE))[1].count == 0, "all of a chain of one member"
    longer = gradtx.chain(tx, gradtx.scale(1.0))
    assert longer.update(NAN, longer.init(ONE))[1].count == 1, "other members have not skipped it"


class Seen:
    """A transformation as a plain pair, which notes when it is run."""

    times = 0

    def init(self, params: Any) -> Any:
        return ()

    def update(self, updates: Any, state: Any, params: Any = None) -> Any:
        self.times += 1
        return updates * 2, state


@pytest.mark.parametrize(
    ("make", "other"), [(gradtx.conditionally_transform, 1.0), (gradtx.conditionally_mask, 0.0)]
)
def test_what_is_left_out_does_not_run(make: Any, other: float) -> None:
    seen = Seen()
    tx = make(seen, lambda count: count % 3 == 0)
    state = tx.init(ONE)
    values = []
    for _ in range(4):
        updates, state = tx.update(ONE, state)
        values.append(float(updates))
    assert values == [2.0, other, other, 2.0] and seen.times == 2
    costly = make(gradtx.stateless(lambda u, p: jnp.sort(u)), lambda count: count % 3 == 0)
    big = jnp.ones(4096)
    assert "conditional" in str(
        jax.jit(costly.update).lower(big, costly.init(big)).compile().as_text()
    )


def below_two(count: Any, value: Any) -> Any:
    return value < 2.0


@pytest.mark.parametrize("name", ["conditionally_transform", "conditionally_mask"])
def test_conditions_may_see_the_extra_arguments(name: str) -> None:
    ours, theirs = (
        getattr(lib, name)(lib.sgd(0.1, momentum=0.9), below_two, forward_extra_args=True)
        for lib in (gradtx, optax)
    )
    state, other = ours.init(ONE), theirs.init(ONE)
    for value in (1.0, 3.0, 1.0, 1.0, 5.0):
        updates, state = ours.update(ONE, state, value=value)
        expected, other = theirs.update(ONE, other, value=value)
        close(updates, expected, 1e-6)


def test_a_wrapper_around_itself_is_refused_by_name() -> None:
    twice = gradtx.apply_if_finite(gradtx.apply_if_finite(gradtx.sgd(0.1), 1), 2)
    message = (
        r"^apply_if_finite directly around another apply_if_finite: both would store their "
        r"slots under one name; put the inner one in a chain$"
    )
    with pytest.raises(GradtxError, match=message):
        twice.init(ONE)
    with pytest.raises(GradtxError, match=message):
        gradtx.apply_if_finite(
            gradtx.accumulate(gradtx.apply_if_finite(gradtx.sgd(0.1), 1), 2), 2
        ).init(ONE)
    apart = gradtx.apply_if_finite(
        gradtx.chain(gradtx.apply_if_finite(gradtx.sgd(0.1), 1), gradtx.scale(2.0)), 2
    )
    assert set(apart.init(ONE).slots) == {"sgd", "apply_if_finite"}
