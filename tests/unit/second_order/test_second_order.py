"""Second derivatives: directions as trees, memory of chunks, and refusals."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import gradtx
from gradtx.second_order import fisher_diag, hessian_diag, hvp

PARAMS = {"w": jnp.arange(6.0).reshape(2, 3) / 7, "b": jnp.array([0.5, -0.5])}
INPUTS, TARGETS = jnp.linspace(-1.0, 1.0, 12).reshape(4, 3), jnp.ones((4, 2))


def loss(params, inputs, targets):
    outputs = jnp.tanh(inputs @ params["w"].T + params["b"][None])
    return jnp.sum((outputs - targets) ** 2)


def dense():
    flat, unravel = ravel_pytree(PARAMS)
    return jax.hessian(lambda vector: loss(unravel(vector), INPUTS, TARGETS))(flat)


def test_a_direction_may_be_a_tree():
    flat, _ = ravel_pytree(PARAMS)
    product = hvp(loss, PARAMS, PARAMS, INPUTS, TARGETS)
    assert jax.tree.structure(product) == jax.tree.structure(PARAMS)
    right, _ = ravel_pytree(hvp(loss, flat, PARAMS, INPUTS, TARGETS))
    np.testing.assert_array_equal(ravel_pytree(product)[0], right)
    np.testing.assert_allclose(right, dense() @ flat, rtol=1e-5, atol=1e-5)


def test_all_of_it_runs_in_a_program():
    args = (PARAMS, INPUTS, TARGETS)
    diagonal = jax.jit(lambda *args: hessian_diag(loss, *args, chunk_size=3))(*args)
    np.testing.assert_allclose(diagonal, jnp.diag(dense()), rtol=1e-5, atol=1e-5)
    inputs = jnp.stack([INPUTS, 2 * INPUTS])
    both = jax.vmap(lambda inputs: fisher_diag(loss, PARAMS, inputs, TARGETS))(inputs)
    assert both.shape == (2, 8)
    np.testing.assert_allclose(both[1], fisher_diag(loss, PARAMS, 2 * INPUTS, TARGETS), rtol=1e-5)


def test_a_chunk_bounds_the_memory():
    """Temporaries of 1,000 parameters: eight vectors at once, and not a million entries."""
    params, inputs = jnp.ones(1000), jnp.ones((2, 1000))

    def quartic(params, inputs, targets):
        return jnp.sum((inputs @ params) ** 4)

    def temporaries(chunk_size):
        compute: Any = jax.jit(
            lambda params, inputs: hessian_diag(
                quartic, params, inputs, None, chunk_size=chunk_size
            )
        )
        return compute.lower(params, inputs).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(8) < 200_000 and temporaries(1000) > 3_000_000


def test_no_parameters_have_no_diagonal():
    assert hessian_diag(lambda p, x, y: jnp.zeros(()), {}, None, None).shape == (0,)


def test_low_precision_stays():
    params = jnp.ones(3, jnp.bfloat16)

    def cubic(params, inputs, targets):
        return jnp.sum(params**3)

    assert hessian_diag(cubic, params, None, None).dtype == jnp.bfloat16
    assert hvp(cubic, jnp.ones(3), params, None, None).dtype == jnp.bfloat16


def test_a_direction_of_another_size():
    text = r"^hvp: v has 4 entries and params 8: pass one entry of v for each entry of params$"
    with pytest.raises(gradtx.StructureError, match=text):
        hvp(loss, jnp.ones(4), PARAMS, INPUTS, TARGETS)


def test_a_chunk_of_nothing():
    text = (
        r"^hessian_diag: chunk_size = 0 is below 1: give the number of products that run at once$"
    )
    with pytest.raises(gradtx.HyperparamError, match=text):
        hessian_diag(loss, PARAMS, INPUTS, TARGETS, chunk_size=0)
