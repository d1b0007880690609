"""Corner cases that Optax gets wrong, each shown on both: what Optax does, and what gradtx does."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.support.following import updates_of
from tests.support.peer import optax


def after_steps(tx: Any, grads: Any, params: Any, steps: int = 1) -> Any:
    """The parameters after some equal gradients."""
    state = tx.init(params)
    for _ in range(steps):
        updates, state = tx.update(grads, state, params)
        params = gradtx.apply_updates(params, updates)
    return params


@pytest.mark.parametrize(
    "method", ["clip_by_global_norm", "clip_by_block_rms", "adaptive_grad_clip"]
)
def test_clipping_a_zero_gradient_to_zero_is_zero(method: str) -> None:
    w, zero = jnp.ones((2, 2)), jnp.zeros((2, 2))
    limit = (
        1e-45 if method == "clip_by_block_rms" else 0.0
    )  # the smallest positive number: zero is no threshold to divide by
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
    assert (
        state.hyperparams["b2"] == np.float32(0.999)
        and state.hyperparams["b2"].dtype == jnp.float32
    )
    np.testing.assert_allclose(np.asarray(update, np.float32), -1e-3, rtol=2**-8)


def test_the_learning_rate_is_never_rounded_to_the_gradients_dtype() -> None:
    """0.003 is 0.00299 in bfloat16; times 3 the difference is seen after one rounding of the
    product.
    """
    grad = jnp.array([3.0], jnp.bfloat16)
    for rate in (0.003, jnp.float32(0.003), lambda count: jnp.float32(0.003)):
        tx = gradtx.sgd(rate)
        updates, _ = tx.update(grad, tx.init(grad))
        assert updates[0] == jnp.bfloat16(-np.float32(0.003) * 3)


def test_the_global_norm_of_bfloat16_gradients_is_summed_in_float32() -> None:
    """In bfloat16 a sum of ones stands still at 256."""
    grads = {"a": jnp.ones(4096, jnp.bfloat16), "b": jnp.ones(4096, jnp.bfloat16)}
    assert (
        gradtx.global_norm(grads) == np.float32(np.sqrt(8192.0))
        and gradtx.global_norm(grads).dtype == jnp.float32
    )
    tx = gradtx.clip_by_global_norm(1.0)
    updates, _ = tx.update(grads, tx.init(grads))
    assert updates["a"][0] == jnp.bfloat16(1 / np.sqrt(8192.0))


def test_curvature_of_a_global_norm_is_that_of_its_square_at_entries_of_zero_too() -> None:
    """|x| has no derivative at 0, its square has two."""
    at = jnp.array([0.0, 1.0, -2.0])
    curvature = jax.hessian(lambda w: gradtx.global_norm({"w": w}) ** 2)(at)
    np.testing.assert_allclose(curvature, 2 * np.eye(3), atol=1e-6)
    assert jax.grad(lambda w: gradtx.global_norm({"w": w}) ** 2)(at).tolist() == pytest.approx(
        [0.0, 2.0, -4.0]
    )


def test_the_second_moment_of_bfloat16_parameters_is_float32() -> None:
    """In bfloat16 a change of 0.1 % is less than half a unit, so nu would not follow the
    gradients.
    """
    params = jnp.ones(2, jnp.bfloat16)
    assert all(
        leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(gradtx.adam(0.1).init(params).slots)
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(optax.adam(0.1).init(params)) if leaf.ndim} == {
        jnp.dtype(jnp.bfloat16)
    }


def test_a_chain_of_adam_and_freeze_keeps_nothing_for_frozen_leaves() -> None:
    params = {"head": jnp.ones(2), "trunk": jnp.ones(3)}
    mask = {"head": False, "trunk": True}
    kept = [
        sum(
            leaf.size
            for leaf in jax.tree.leaves(lib.chain(lib.adam(0.1), lib.freeze(mask)).init(params))
        )
        for lib in (gradtx, optax)
    ]
    assert (
        kept[0] == 4 + 1 and kept[1] >= 10
    )  # mu and nu of the head, and the count; Optax: of everything
    moved = after_steps(
        gradtx.chain(gradtx.adam(0.1), gradtx.freeze(mask)), params, params, steps=3
    )
    expected = after_steps(
        optax.chain(optax.adam(0.1), optax.freeze(mask)), params, params, steps=3
    )
    np.testing.assert_allclose(moved["head"], expected["head"], rtol=1e-5)
    assert moved["trunk"].tolist() == [1, 1, 1]


def test_sam_of_the_paper_is_finite_where_the_gradient_is_zero() -> None:
    """As at the start of a layer of zeros; Optax divides 0 by 0."""
    found = []
    for lib, sam in ((gradtx, gradtx.sam), (optax, optax.contrib.sam)):
        ascent = lib.chain((gradtx if lib is gradtx else optax.contrib).normalize(), lib.sgd(0.1))
        tx, w = sam(lib.sgd(0.1), ascent, opaque_mode=True), jnp.zeros(3)
        found.append(tx.update(w, tx.init(w), w, grad_fn=lambda w, i: w)[0].tolist())
    assert found[0] == [0.0, 0.0, 0.0] and np.isnan(found[1]).all()
    w = jnp.zeros(2)
    asam = gradtx.scale_by_asam(0.0)
    assert asam.update(w + 1.0, asam.init(w), w)[0].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("offset", [1, 4])
def test_adafactor_with_a_decay_offset_starts_its_averages_anew(offset: int) -> None:
    """1 − (t − t0)^−p has no meaning before t0 + 1, where Optax gives nan for ever; here nothing is
    remembered until then.
    """
    generator = np.random.default_rng(0)
    weight, *grads = (jnp.asarray(generator.normal(size=(3, 4)), jnp.float32) for _ in range(9))
    theirs = updates_of(optax.adafactor(0.1, 2, decay_offset=offset), grads, weight)
    assert all(bool(jnp.isnan(update).all()) for update in theirs)
    ours = updates_of(gradtx.adafactor(0.1, 2, decay_offset=offset), grads, weight)
    anew = updates_of(gradtx.adafactor(0.1, 2), grads[offset:], weight)
    np.testing.assert_allclose(ours[offset:], anew, rtol=1e-6)
    for grad, update in zip(grads[:offset], ours, strict=False):
        np.testing.assert_allclose(
            update, updates_of(gradtx.adafactor(0.1, 2), [grad], weight)[0], rtol=1e-6
        )


def test_values_below_zero_come_to_a_plateau_too() -> None:
    """Optax's bound is (1 - rtol) v*: for v* < 0 that is above v*, so no loss is ever no better."""
    found = {}
    for lib in (gradtx, optax.contrib):
        tx = lib.reduce_on_plateau(0.5, patience=3, rtol=1e-2)
        one = jnp.array(1.0)
        updates, state = one, tx.init(one)
        for _ in range(10):
            updates, state = tx.update(one, state, value=-1.0)
        found[lib] = float(updates)
    assert found == {gradtx: 0.125, optax.contrib: 1.0}
