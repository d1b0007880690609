"""Random keys for the leaves of a tree, the same whatever the order of its leaves."""

import zlib
from typing import Any

import jax
import numpy as np


def path_hash(path: str) -> np.uint32:
    """A number that depends on a leaf's path alone."""
    return np.uint32(zlib.crc32(path.encode()))


def leaf_key(key: Any, step: Any, leaf: Any) -> jax.Array:
    """The key of one leaf at one step: fold the step into the definition's key, then the leaf."""
    return jax.random.fold_in(jax.random.fold_in(key, step), leaf)
