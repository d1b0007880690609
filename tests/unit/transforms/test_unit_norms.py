"""Norms of output units, clipping by them, and the diagonal normal distribution."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.transforms
import pytest

import gradtx
from gradtx.transforms.adaptive_clipping import unitwise_clip, unitwise_norm
from gradtx.transforms.multi_normal import multi_normal


@pytest.mark.parametrize("ours", [unitwise_norm, unitwise_clip])
def test_arguments_are_those_of_optax(ours: Any) -> None:
    names = [
        [(p.name, p.default) for p in inspect.signature(one).parameters.values()]
        for one in (ours, getattr(optax.transforms, ours.__name__))
    ]
    assert names[0] == names[1]


def test_adaptive_clipping_is_both_functions() -> None:
    w, g = jnp.arange(6.0).reshape(2, 3), jnp.array([[3.0, -1.0, 0.1], [4.0, 2.0, 0.0]])
    tx = gradtx.adaptive_grad_clip(0.1)
    bound = 0.1 * jnp.maximum(unitwise_norm(w), 1e-3)
    right = unitwise_clip(unitwise_norm(g), bound, g)
    np.testing.assert_allclose(tx.update(g, tx.init(w), w)[0], right, rtol=1e-6)


def test_corners_of_unit_norms() -> None:
    assert not jax.grad(lambda x: unitwise_norm(x).sum())(jnp.zeros((2, 3))).any()
    half = jnp.full((300, 2), 300.0, jnp.float16)
    assert unitwise_norm(half).dtype == half.dtype
    np.testing.assert_allclose(unitwise_norm(half)[0], [300 * 300**0.5] * 2, rtol=1e-3)
    clipped = unitwise_clip(jnp.full((1, 2), 600.0), jnp.full((1, 2), 6.0), half)
    assert clipped.dtype == half.dtype and clipped[0].tolist() == [3.0, 3.0]
    with pytest.raises(
        gradtx.StructureError, match=r"\(1, 1, 1, 1, 1, 1\); of more than five axes"
    ):
        unitwise_norm(jnp.ones((1,) * 6))
    assert unitwise_norm(jnp.ones((2,) * 6), axis=0).shape == (2,) * 6
    message = r"g_norm has shape \(2,\) and max_norm \(2,\), the gradient \(3,\); the norms must"
    with pytest.raises(gradtx.StructureError, match=message):
        unitwise_clip(jnp.ones(2), jnp.ones(2), jnp.ones(3))


def test_the_normal_distribution_of_optax() -> None:
    loc, log_scale = jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 0.5], [1.0, -1.0]])
    ours, theirs = (f(loc, log_scale) for f in (multi_normal, optax.multi_normal))
    key, point = jax.random.PRNGKey(7), jnp.array([[0.5, 1.5], [1.0, -2.0]])
    with jax.numpy_rank_promotion("allow"):
        right = theirs.sample((3,), key), theirs.log_prob(point)
        batch = theirs.log_prob(jnp.stack([point, 2 * point]))
    np.testing.assert_allclose(ours.sample((3,), key), right[0], rtol=1e-6)
    np.testing.assert_allclose(ours.log_prob(point), right[1], rtol=1e-6)
    np.testing.assert_allclose(ours.log_prob(jnp.stack([point, 2 * point])), batch, rtol=1e-6)
    assert [one.tolist() for one in ours.params] == [one.tolist() for one in theirs.params]
    assert multi_normal(0.0, 0.0).sample((), jax.random.key(0)).shape == ()
    assert jax.jit(lambda one: one.log_prob(point))(ours) == ours.log_prob(point)
    with pytest.raises(gradtx.StructureError, match=r"loc has shape \(2,\), log_scale \(3,\)"):
        multi_normal(jnp.ones(2), jnp.ones(3))
