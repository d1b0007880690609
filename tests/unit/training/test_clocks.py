"""Hyperparameters are read from a state at the clock of the member that they belong to."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import gradtx
from tests.support.evaluating import W

LINE = gradtx.linear_schedule(1.0, 0.0, 100)
"""1 − count / 100."""


def rates(tx: Any, steps: int, bad: tuple[int, ...] = ()) -> dict[str, float]:
    """The hyperparameters at the state after some steps, as counts: how far each schedule has
    come.
    """
    state = tx.init(W)
    for step in range(1, steps + 1):
        _, state = tx.update(jnp.array(jnp.nan if step in bad else 1.0), state, W)
    return {
        name: round(100 * (1 - float(value)))
        for name, value in gradtx.hyperparams(tx, at=state).items()
        if "rate" in name
    }


def even(count: Any) -> Any:
    return count % 2 == 0


def test_a_schedule_is_read_at_the_clock_of_its_member() -> None:
    assert rates(gradtx.conditionally_mask(gradtx.sgd(LINE), even), 5) == {"learning_rate": 3}
    assert rates(gradtx.conditionally_transform(gradtx.sgd(LINE), even), 4) == {"learning_rate": 2}
    assert rates(gradtx.apply_if_finite(gradtx.sgd(LINE), 9), 5, bad=(2, 3)) == {"learning_rate": 3}
    assert rates(
        gradtx.chain(gradtx.apply_if_finite(gradtx.sgd(LINE), 9), gradtx.scale(1.0)), 5, bad=(2,)
    ) == {"learning_rate": 4}
    assert rates(gradtx.lookahead(gradtx.sgd(LINE), 3, 0.5, reset_state=True), 5) == {
        "learning_rate": 2
    }
    assert rates(gradtx.lookahead(gradtx.sgd(LINE), 3, 0.5), 5) == {"learning_rate": 5}
    assert rates(gradtx.sam(gradtx.sgd(LINE), gradtx.scale(-1.0), 2), 5) == {"learning_rate": 2}
    assert rates(gradtx.ema_nesterov(gradtx.apply_if_finite(gradtx.sgd(LINE), 9)), 5, bad=(2,)) == {
        "learning_rate": 4
    }
    assert rates(gradtx.mechanize(gradtx.conditionally_mask(gradtx.sgd(LINE), even)), 5) == {
        "learning_rate": 3
    }


def test_the_read_rate_is_the_one_of_the_next_step() -> None:
    for tx in (
        gradtx.conditionally_mask(gradtx.sgd(LINE), even),
        gradtx.tunable(gradtx.conditionally_mask(gradtx.sgd(LINE), even)),
        gradtx.apply_if_finite(gradtx.tunable(gradtx.sgd(LINE)), 9),
        gradtx.lookahead(gradtx.tunable(gradtx.sgd(LINE)), 4, 0.5, reset_state=True),
    ):
        state = tx.init(W)
        for step in range(6):
            _, state = tx.update(
                jnp.array(jnp.nan if step == 1 and "finite" in repr(tx) else 1.0), state, W
            )
        expected = float(gradtx.hyperparams(tx, at=state)["learning_rate"])
        assert expected != 1.0
        assert float(tx.update(jnp.array(1.0), state, W)[0]) == -expected


def test_one_transformation_in_several_places_has_the_clock_of_each() -> None:
    one = gradtx.sgd(LINE)
    tx = gradtx.chain(
        one, finite=gradtx.apply_if_finite(one, 9), at_times=gradtx.conditionally_mask(one, even)
    )
    assert rates(tx, 5, bad=(2,)) == {
        "sgd.learning_rate": 5,
        "finite.inner.learning_rate": 4,
        "at_times.inner.learning_rate": 3,
    }
    masked = gradtx.conditionally_mask(one, even)
    twice = gradtx.chain(a=masked, b=masked)
    assert rates(twice, 5) == {"a.inner.learning_rate": 3, "b.inner.learning_rate": 3}


def test_a_wrapper_that_counts_for_itself_reads_its_own_hyperparameters_there() -> None:
    tx = gradtx.chain(
        gradtx.apply_if_finite(gradtx.sgd(0.1), max_consecutive_errors=lambda count: count),
        gradtx.scale(1.0),
    )
    state = tx.init(W)
    for step in range(4):
        _, state = tx.update(jnp.array(jnp.nan if step == 3 else 1.0), state, W)
    assert (
        int(gradtx.hyperparams(tx, at=state)["max_consecutive_errors"]) == 3
        and int(state.count) == 4
    )


def test_tunable_keeps_a_schedule_at_the_clock_of_its_member() -> None:
    plain = gradtx.conditionally_mask(gradtx.sgd(LINE), even)
    held = gradtx.tunable(plain)
    state, other = plain.init(W), held.init(W)
    for _ in range(5):
        updates, state = plain.update(jnp.array(1.0), state, W)
        mine, other = held.update(jnp.array(1.0), other, W)
        assert float(mine) == float(updates)
    assert float(other.hyperparams["learning_rate"]) == pytest.approx(0.98)


def test_a_value_that_is_kept_inside_a_skipping_wrapper_is_read() -> None:
    tx = gradtx.apply_if_finite(gradtx.tunable(gradtx.sgd(0.1), "learning_rate"), 9)
    state = tx.init(W)
    _, state = tx.update(jnp.array(jnp.nan), state, W)
    state.hyperparams["learning_rate"] = jnp.array(0.5)
    assert float(gradtx.hyperparams(tx, at=state)["learning_rate"]) == 0.5 and int(state.count) == 0
    assert float(tx.update(jnp.array(1.0), state, W)[0]) == -0.5


@pytest.mark.parametrize(
    "tx",
    [
        gradtx.guard(gradtx.adam(0.1)),
        gradtx.accumulate(gradtx.adam(0.1), 2),
        gradtx.apply_if_finite(gradtx.adam(0.1), 2),
        gradtx.dynamic_loss_scale(gradtx.adam(0.1)),
        gradtx.with_metrics(gradtx.guard(gradtx.adam(0.1))),
    ],
    ids=str,
)
def test_the_count_of_a_state_is_an_array_of_its_own(tx: Any) -> None:
    """Where it is that of a member, too: one array in two places of a state could not be
    donated.
    """
    w = jnp.array([0.5, -1.0])
    _, state = tx.update(w, tx.init(w), w)
    leaves = jax.tree.leaves(state)
    assert len({id(leaf) for leaf in leaves}) == len(leaves)
    count = int(state.count)
    assert int(jax.jit(lambda state: state, donate_argnums=0)(state).count) == count
