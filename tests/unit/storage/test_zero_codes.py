"""A state starts with the codes of zeros, which no encoder computes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.storage.codec import CODECS
from gradtx.storage.zero_codes import zero_codes

NAMES = ("bf16", "bf16+8", "dynamic8", "f16", "int4", "int8", "packed16")


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_constants_are_the_codes_of_zeros(name: str, square: bool) -> None:
    codec, zeros = CODECS[name], jnp.zeros((96, 40))
    found = zero_codes(codec, zeros, square, 32)
    expected = codec.encode(zeros, None, square=square, block=32)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("tx", [gradtx.adamw(1e-3), gradtx.rmsprop(1e-3, initial_scale=0.5)])
def test_init_is_that_within_jit(tx: Any) -> None:
    """Within a trace an encoder runs; slots that are not zeros are encoded in both."""
    stored, params = gradtx.stored(tx, "int8"), {"w": jnp.ones((64, 64))}
    found, expected = stored.init(params), jax.jit(stored.init)(params)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_leaf_of_one_tile_is_a_short_program() -> None:
    """Instructions for each leaf on one CPU device; adamw in float32 has 49."""
    tx = gradtx.stored(gradtx.adamw(1e-3), "int8", fused=True)
    params = {str(n): jnp.zeros((64, 64)) for n in range(4)}
    step = jax.jit(lambda params, state, grads: gradtx.update_params(tx, grads, state, params))
    text: Any = step.lower(params, tx.init(params), params).compile().as_text()
    assert text.count(" = ") / len(params) <= 450
