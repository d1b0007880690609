"""Arrays compared bit for bit."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx

TINY = {"w": jnp.array([[1.0, -0.0], [2e-38, 3.0]]), "b": jnp.array([0.5, -0.0])}
"""Parameters of numbers that a careless sum or product would change."""


def bits(tree: Any) -> list[Any]:
    """Every array as its bytes, so that −0 is not 0."""
    return [(np.asarray(leaf).dtype, np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(tree)]


def input_grad(leaf: Any) -> tuple[Any, ...]:
    """A leaf to the bit."""
    if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return str(leaf.dtype), leaf.shape, np.asarray(jax.random.key_data(leaf)).tobytes()
    array = np.asarray(leaf)
    return (
        type(leaf) if not hasattr(leaf, "dtype") else str(array.dtype),
        array.shape,
        array.tobytes(),
    )


def assert_same(one: Any, other: Any) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for path, left in gradtx.flatten_state(jax.tree.map(lambda leaf: leaf, one)).items():
        assert input_grad(left) == input_grad(gradtx.flatten_state(other)[path]), path
    assert [input_grad(leaf) for leaf in jax.tree.leaves(one)] == [
        input_grad(leaf) for leaf in jax.tree.leaves(other)
    ]
