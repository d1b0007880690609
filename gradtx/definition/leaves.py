"""Leaves of definitions: numbers and arrays, which compare and hash by value."""

import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def hash_key(leaf: Any) -> Any:
    """Describe a leaf for a hash: a known number by its value, any other array by its shape."""
    if isinstance(leaf, numbers.Number | np.generic):
        return leaf
    value = known_number(leaf)
    # The value of a tracer is unknown, and it equals itself alone.
    return getattr(leaf, "shape", None) if value is leaf else value


def known_number(value: Any) -> Any:
    """Turn an array that holds one known number into a NumPy scalar; return others unchanged.

    Frameworks keep a definition as a constant: flax's `nnx.Optimizer` refuses arrays in it, and a
    dict hashes it. A scalar of NumPy's has the same dtype in a program, and is a constant.
    """
    is_array = isinstance(value, np.ndarray | jax.Array) and not isinstance(value, Tracer)
    if not is_array or value.shape or jnp.issubdtype(value.dtype, jax.dtypes.extended):
        return value
    if isinstance(value, jax.Array) and not (value.is_fully_replicated and not value.is_deleted()):
        return value
    return np.asarray(value)[()]


def same_leaf(mine: Any, other: Any) -> bool:
    """Compare two leaves by shape and value; a tracer equals itself alone."""
    if mine is other:
        return True
    if isinstance(mine, Tracer) or isinstance(other, Tracer):
        return False
    left, right = _plain(mine), _plain(other)
    return left.shape == right.shape and bool(np.array_equal(left, right))


def _plain(leaf: Any) -> np.ndarray:
    """Turn a leaf into a NumPy array; a random key becomes its numbers."""
    key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if key else leaf)
