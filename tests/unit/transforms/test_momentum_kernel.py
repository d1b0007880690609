"""A kernel as data: JSON, equality, pickles, hyperparameters, batches."""

import json
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.support.momentum_kernels import KERNELS, run


def test_numbers_are_hyperparameters() -> None:
    tx = gradtx.adamw(1e-3, momentum=gradtx.k_maxwell(3, start=2, transition_steps=4))
    names = gradtx.hyperparams(tx)
    assert names["start"] == 2 and names["init_mean_age"] == 58.0
    ages, grads = jnp.array([5.0, 30.0]), jnp.sin(jnp.arange(24.0).reshape(8, 3))
    inner = gradtx.scale_by_momentum(tx.arguments["momentum"])
    batch = gradtx.replace(inner, init_mean_age=ages)
    axes = gradtx.vmap_axes(batch, "init_mean_age")
    both = jax.vmap(run, in_axes=(axes, None))(batch, grads)
    for age, one in zip((5.0, 30.0), both, strict=True):
        alone = run(gradtx.replace(inner, init_mean_age=age), grads)
        np.testing.assert_allclose(one, alone, rtol=2e-6, atol=1e-7)


def test_other_numbers_compile_nothing() -> None:
    first, grad = gradtx.scale_by_momentum(gradtx.bi_maxwell()), jnp.ones(3)
    step: Any = jax.jit(lambda tx, g, s: tx.update(g, s))
    step(first, grad, first.init(grad))
    for start in (5, 6):
        step(gradtx.replace(first, start=start), grad, first.init(grad))
    assert step._cache_size() == 1


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_a_kernel_is_data(name: str) -> None:
    kernel = KERNELS[name]
    tx = gradtx.adamw(1e-3, momentum=kernel)
    assert gradtx.from_config(json.loads(json.dumps(gradtx.to_config(tx)))) == tx
    assert gradtx.from_config(gradtx.to_config(kernel)) == kernel and hash(kernel) == hash(kernel)
    assert eval(repr(kernel), dict(vars(gradtx))) == kernel
    state = tx.init(jnp.ones((2, 3)))
    for one in (state, gradtx.stored(tx, "int8", min_size=0).init(jnp.ones((64, 64)))):
        again = pickle.loads(pickle.dumps(one))
        assert jax.tree.structure(again) == jax.tree.structure(one)
    assert gradtx.replace(tx, start=9) != tx and gradtx.replace(tx, learning_rate=1e-3) == tx
