"""Clipping by z-score at its corners: what is gathered, what is a spike, what does not count."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import HyperparamError

W = {"a": jnp.zeros(2), "b": jnp.zeros(1)}


def of_norm(norm: float) -> dict[str, jax.Array]:
    return {"a": jnp.array([0.48, 0.64]) * norm, "b": jnp.array([0.6]) * norm}


def follow(tx: Any, norms: Sequence[float]) -> tuple[list[float], Any]:
    """The norms of the updates, and the last state's statistics."""
    state, seen, update = tx.init(W), [], jax.jit(tx.update)
    for norm in norms:
        updates, state = update(of_norm(norm), state)
        seen.append(float(gradtx.global_norm(updates)))
    return seen, state.slots["zclip"]


def test_the_first_norms_are_gathered_and_bound_by_max_norm_alone() -> None:
    norms = [3.0, 100.0, 0.0, 5.0]
    seen, kept = follow(gradtx.zclip(warmup_steps=4, max_norm=7.0), norms)
    np.testing.assert_allclose(seen, [3.0, 7.0, 0.0, 5.0], rtol=1e-6)
    assert (kept.mean, kept.variance, kept.norm_count) == (
        pytest.approx(np.mean(norms), rel=1e-6),
        pytest.approx(np.var(norms), rel=1e-6),
        4,
    )


@pytest.mark.parametrize("eps", [1e-6, 0.0])
def test_equal_norms_pass_and_a_spike_after_them_is_cut_to_their_mean(eps: float) -> None:
    """σ = 0, where z divides by ε or by nothing."""
    seen, kept = follow(
        gradtx.zclip(warmup_steps=3, max_norm=math.inf, eps=eps), [5.0] * 40 + [50.0, 4.0]
    )
    np.testing.assert_allclose(seen, [5.0] * 41 + [4.0], rtol=1e-6)
    assert kept.mean == pytest.approx(0.97 * 5 + 0.03 * 4, rel=1e-6) and kept.variance > 0


def test_what_is_cut_is_what_the_mean_follows_and_max_norm_does_not_count() -> None:
    seen, kept = follow(
        gradtx.zclip(2.0, 0.5, 2, 10.0, 0.0), [9.0, 11.0, 16.0]
    )  # mean 10, deviation 1; z = 6: 10 + 4/6
    assert seen[2] == pytest.approx(10.0, rel=1e-6)
    assert kept.mean == pytest.approx(10 + 1 / 3, rel=1e-6) and kept.variance == pytest.approx(
        0.5 + 0.5 / 9, rel=1e-5
    )


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, 1e30])
@pytest.mark.parametrize("before", [1, 6])
@pytest.mark.parametrize("max_norm", [20.0, math.inf])
def test_a_norm_that_is_not_finite_does_not_count(bad: float, before: int, max_norm: float) -> None:
    """While norms are gathered and later; 1e30 squared is inf in float32."""
    tx = gradtx.zclip(warmup_steps=4, max_norm=max_norm)
    state = tx.init(W)
    for number in range(before):
        _, state = tx.update(of_norm(10.0 + number % 2), state)
    updates, new = tx.update({"a": jnp.array([1.0, bad]), "b": jnp.ones(1)}, state)
    assert new.slots == state.slots and new.count == before + 1
    assert updates["a"][0] == 0.0 and updates["b"][0] == 0.0
    assert updates["a"][1] == 0.0 if bad == 1e30 else not np.isfinite(updates["a"][1])


def test_the_bound_does_not_follow_a_norm_that_rises_by_more_than_seven_deviations_for_good() -> (
    None
):
    """z_max √(z_max² + 2) = 7.2: above it σ shrinks faster than μ rises."""
    quiet = [9.0, 11.0] * 10
    tx = gradtx.zclip(warmup_steps=20, max_norm=math.inf)
    followed, lost = (follow(tx, quiet + [level] * 400)[0][-1] for level in (16.5, 18.0))
    assert followed == pytest.approx(16.5, rel=1e-6) and lost < 12.0


def test_under_a_mask_the_others_are_not_measured() -> None:
    tx = gradtx.masked(gradtx.zclip(), "b")
    updates, state = tx.update({"a": jnp.full(2, jnp.nan), "b": jnp.array([3.0])}, tx.init(W))
    assert updates["b"].tolist() == [1.0] and state.slots["zclip"].mean == 3.0


def test_norms_of_bfloat16_gradients_are_kept_in_float32() -> None:
    ones = jnp.ones(4096, jnp.bfloat16)  # in bfloat16 their sum would stand still at 256
    tx = gradtx.zclip(max_norm=math.inf)
    updates, state = tx.update(ones, tx.init(ones))
    assert state.slots["zclip"].mean.dtype == jnp.float32 and state.slots["zclip"].mean == 64.0
    assert updates.dtype == jnp.bfloat16 and updates[0] == 1.0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"z_threshold": 0.0}, r"zclip: z_threshold = 0.0 is outside its range \(0, inf\]"),
        ({"decay": 1.0}, r"zclip: decay = 1.0 is outside its range \[0, 1\)"),
        ({"warmup_steps": 0}, r"zclip: warmup_steps = 0 is outside its range \(0, inf\]"),
        ({"max_norm": -1.0}, r"zclip: max_norm = -1.0 is outside its range \[0, inf\]"),
        ({"eps": -1e-6}, r"zclip: eps = -1e-06 is outside its range \[0, inf\)"),
    ],
)
def test_numbers_out_of_their_range_are_refused(arguments: dict[str, float], text: str) -> None:
    with pytest.raises(HyperparamError, match=text):
        gradtx.zclip(**arguments)
