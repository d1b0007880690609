"""Corner cases that Optax gets wrong, each shown on both: what Optax does, and what gradtx does."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.peer import optax


def after_steps(tx: Any, grads: Any, params: Any, steps: int = 1) -> Any:
    """The parameters after some equal gradients."""
    state = tx.init(params)
    for _ in range(steps):
        updates, state = tx.update(grads, state, params)
        params = gradtx.apply_updates(params, updates)
    return params


@pytest.mark.parametrize("method", ["clip_by_global_norm", "clip_by_block_rms", "adaptive_grad_clip"])
def test_clipping_a_zero_gradient_to_zero_is_zero(method: str) -> None:
    w, zero = jnp.ones((2, 2)), jnp.zeros((2, 2))
    limit = 1e-45 if method == "clip_by_block_rms" else 0.0  # the smallest positive number: zero is no threshold to divide by
    tx = getattr(gradtx, method)(limit)
    updates, _ = tx.update(zero, tx.init(w), w)
    assert updates.tolist() == zero.tolist()


def test_clipping_to_zero_in_optax_is_nan() -> None:
    tx = optax.clip_by_global_norm(0.0)
    assert jnp.isnan(tx.update(jnp.zeros(2), tx.init(jnp.zeros(2)))[0]).all()


def test_b2_in_the_state_is_not_rounded_to_the_parameters_dtype() -> None:
    """0.999 is 1 in bfloat16, and with it Adam's second moment would stay at zero."""
    params = jnp.array([1.0, 2.0], jnp.bfloat16)
    ours, theirs = (lib.inject_hyperparams(lib.adamw)(1e-3) for lib in (gradtx, optax))
    assert theirs.init(params).hyperparams["b2"] == 1.0
    assert ours.init(params).hyperparams["b2"] == np.float32(0.999)
    update, state = ours.update(params, ours.init(params), params)
    assert state.hyperparams["b2"] == np.float32(0.999) and state.hyperparams["b2"].dtype == jnp.float32
    np.testing.assert_allclose(np.asarray(update, np.float32), -1e-3, rtol=2**-8)


def test_the_learning_rate_is_never_rounded_to_the_gradients_dtype() -> None:
    """0.003 is 0.00299 in bfloat16; times 3 the difference is seen after one rounding of the product."""
    grad = jnp.array([3.0], jnp.bfloat16)
    for rate in (0.003, jnp.float32(0.003), lambda count: jnp.float32(0.003)):
        tx = gradtx.sgd(rate)
        updates, _ = tx.update(grad, tx.init(grad))
        assert updates[0] == jnp.bfloat16(-np.float32(0.003) * 3)


def test_the_global_norm_of_bfloat16_gradients_is_summed_in_float32() -> None:
    """In bfloat16 a sum of ones stands still at 256."""
    grads = {"a": jnp.ones(4096, jnp.bfloat16), "b": jnp.ones(4096, jnp.bfloat16)}
    assert gradtx.global_norm(grads) == np.float32(np.sqrt(8192.0)) and gradtx.global_norm(grads).dtype == jnp.float32
    tx = gradtx.clip_by_global_norm(1.0)
    updates, _ = tx.update(grads, tx.init(grads))
    assert updates["a"][0] == jnp.bfloat16(1 / np.sqrt(8192.0))


def test_the_second_moment_of_bfloat16_parameters_is_float32() -> None:
    """In bfloat16 a change of 0.1 % is less than half a unit, so nu would not follow the gradients."""
    params = jnp.ones(2, jnp.bfloat16)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(gradtx.adam(0.1).init(params).slots))
    assert {leaf.dtype for leaf in jax.tree.leaves(optax.adam(0.1).init(params)) if leaf.ndim} == {jnp.dtype(jnp.bfloat16)}


def test_a_chain_of_adam_and_freeze_keeps_nothing_for_frozen_leaves() -> None:
    params = {"head": jnp.ones(2), "trunk": jnp.ones(3)}
    mask = {"head": False, "trunk": True}
    kept = [sum(leaf.size for leaf in jax.tree.leaves(lib.chain(lib.adam(0.1), lib.freeze(mask)).init(params))) for lib in (gradtx, optax)]
    assert kept[0] == 4 + 1 and kept[1] >= 10  # mu and nu of the head, and the count; Optax: of everything
    moved = after_steps(gradtx.chain(gradtx.adam(0.1), gradtx.freeze(mask)), params, params, steps=3)
    expected = after_steps(optax.chain(optax.adam(0.1), optax.freeze(mask)), params, params, steps=3)
    np.testing.assert_allclose(moved["head"], expected["head"], rtol=1e-5)
    assert moved["trunk"].tolist() == [1, 1, 1]
