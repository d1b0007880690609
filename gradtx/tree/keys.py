"""Random keys for the leaves of a tree, the same whatever the order of its leaves."""

import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def path_hash(path: str) -> np.uint32:
    """A number that depends on a leaf's path alone."""
    return np.uint32(zlib.crc32(path.encode()))


def as_key(key: Any) -> jax.Array:
    """A key as it is, old style or new; a number as the key of that seed."""
    array = jnp.asarray(key)
    if array.ndim or jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        return array
    return jax.random.key(array.astype(jnp.uint32))


def leaf_key(key: Any, step: Any, leaf: Any) -> jax.Array:
    """The key of one leaf at one step: fold the step into the definition's key, or seed, then the
    leaf.
    """
    return jax.random.fold_in(jax.random.fold_in(as_key(key), step), leaf)
