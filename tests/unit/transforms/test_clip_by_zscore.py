"""clip_by_zscore: its bound, what enters its window, and its mistakes."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import HyperparamError
from tests.methods import METHODS
from tests.support.trees import follow_reference, gradient


def run(tx: Any, norms: Any) -> tuple[np.ndarray, Any]:
    state, updates = jax.lax.scan(
        lambda state, g: tx.update(g, state)[::-1],
        tx.init(jnp.array(1.0)),
        jnp.asarray(norms, jnp.float32),
    )
    return np.asarray(updates), state


def test_the_reference_clips_some_steps() -> None:
    updates = follow_reference(METHODS["clip_by_zscore"].oracle)
    shorter = [abs(u[0]).max() < abs(gradient(t)[0]).max() for t, u in enumerate(updates, start=1)]
    assert 2 <= sum(shorter) <= 15


def test_the_window_holds_norms_before_clipping() -> None:
    tx = gradtx.clip_by_zscore(window=4, warmup_steps=4)
    updates, state = run(tx, [9.0, 11.0, 9.0, 11.0, 59.0])
    np.testing.assert_allclose(updates[4], 10 + 3 * np.sqrt(4 / 3), rtol=1e-6)
    assert state.slots["clip_by_zscore"].norms.tolist() == [59.0, 11.0, 9.0, 11.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_norm_that_is_not_finite_enters_no_window(bad: float) -> None:
    tx = gradtx.clip_by_zscore(window=4, warmup_steps=2)
    updates, state = run(tx, [1.0, 1.1, bad, 1.05, 9.0])
    assert np.isfinite(state.slots["clip_by_zscore"].norms).all()
    assert np.isfinite(updates[3:]).all() and updates[4] < 1.5


def test_equal_norms_pass() -> None:
    updates, _ = run(gradtx.clip_by_zscore(window=8, warmup_steps=2), [2.0] * 6 + [2.001, 3.0])
    np.testing.assert_allclose(updates, [2.0] * 6 + [2.001, 2.00625], rtol=1e-3)
    assert updates[6] == np.float32(2.001)


MISTAKES: tuple[tuple[dict[str, Any], str], ...] = (
    (
        {"window": 1},
        "clip_by_zscore: window = 1 is too short for a deviation, which needs two numbers: give a "
        "whole number from 2 on, such as 128",
    ),
    ({"zscore": 0.0}, "clip_by_zscore: zscore = 0.0 is outside its range (0, inf]"),
)


def test_mistakes() -> None:
    for told, text in MISTAKES:
        with pytest.raises(HyperparamError, match=f"^{re.escape(text)}$"):
            gradtx.clip_by_zscore(**told)


def test_the_count_of_a_window_stays_small() -> None:
    """A count that saturated would write every number to one place."""
    tx = gradtx.clip_by_zscore(zscore=1e6, window=4, warmup_steps=4)
    for length, count in ((3, 3), (7, 7), (8, 4), (9, 5), (41, 5)):
        _, state = run(tx, 1.0 + np.arange(length))
        own = state.slots["clip_by_zscore"]
        assert own.norm_count == count
        assert sorted(own.norms.tolist())[-min(length, 4) :] == [
            1.0 + n for n in range(max(length - 4, 0), length)
        ]
