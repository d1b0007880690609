"""MultiSteps beside that of Optax, and as what it is: accumulate."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import pytest

import gradtx
from tests.support.bits import TINY, bits
from tests.support.peer import optax


def bad_now_and_then(number: int) -> Any:
    scale = {3: jnp.nan, 4: 100.0, 9: jnp.inf, 13: 40.0}.get(number, 1.0)
    return {"w": scale * jnp.cos(number + jnp.arange(3.0)), "b": jnp.sin(1.0 * jnp.asarray(number))}


def growing(count: Any) -> Any:
    return jnp.minimum(1 + count, 4)


def skipping(lib: Any, which: str) -> dict[str, Any]:
    large = functools.partial(lib.skip_large_updates, max_squared_norm=25.0)
    return {
        "none": {},
        "not finite": {"should_skip_update_fn": lib.skip_not_finite},
        "large": {"should_skip_update_fn": large},
    }[which]


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("skip", ["none", "not finite", "large"])
@pytest.mark.parametrize("every", [3, growing])
def test_beside_multi_steps(every: Any, skip: str, mean: bool) -> None:
    """20 micro-steps: the updates, when they come, and both counts."""
    params = {"w": jnp.ones(3), "b": jnp.ones(())}
    ours, theirs = (
        lib.MultiSteps(
            lib.sgd(0.1, momentum=0.9),
            every_k_schedule=every,
            use_grad_mean=mean,
            **skipping(lib, skip),
        )
        for lib in (gradtx, optax)
    )
    state, other, update, expect = (
        ours.init(params),
        theirs.init(params),
        jax.jit(ours.update),
        jax.jit(theirs.update),
    )
    for number in range(20):
        grads = bad_now_and_then(number) if skip != "none" else bad_now_and_then(1)
        updates, state = update(grads, state, params)
        expected, other = expect(grads, other, params)
        chex.assert_trees_all_close(updates, expected, rtol=1e-5, atol=1e-6)
        kept = state.slots["accumulate"]
        assert (kept.micro_step, kept.applied, state.count) == (
            other.mini_step,
            other.gradient_step,
            other.gradient_step,
        )
        assert ours.has_updated(state) == theirs.has_updated(other)
    assert 2 < int(state.count) < 8


def test_multi_steps_is_accumulate() -> None:
    steps = gradtx.MultiSteps(gradtx.adam(0.1), 4, use_grad_mean=False)
    tx = steps.gradient_transformation()
    assert tx == gradtx.accumulate(
        gradtx.adam(0.1), 4, use_grad_mean=False, accumulator_dtype=jnp.float32
    )
    assert (
        steps.inner_opt == gradtx.adam(0.1) and gradtx.replace(tx, every=8).arguments["every"] == 8
    )
    assert bits(steps.init(TINY)) == bits(tx.init(TINY)) and not steps.has_updated(steps.init(TINY))
    skip = functools.partial(gradtx.skip_large_updates, max_squared_norm=25.0)
    assert [bool(skip({"w": jnp.array([3.0, w])}, 0, None)[0]) for w in (3.9, 4.0, jnp.nan)] == [
        False,
        True,
        True,
    ]
    not_finite = [jnp.array([jnp.inf, 1.0, jnp.nan]), jnp.array(-jnp.inf), jnp.array(3)]
    skipped, counts = jax.jit(gradtx.skip_not_finite)(not_finite, 0, None)
    assert skipped and counts["should_skip"] and counts["num_not_finite"] == 3
    skipped, counts = gradtx.skip_not_finite([], 0, None)
    assert not skipped and counts["num_not_finite"] == 0
