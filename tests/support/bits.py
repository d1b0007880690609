"""Arrays compared bit for bit."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

TINY = {"w": jnp.array([[1.0, -0.0], [2e-38, 3.0]]), "b": jnp.array([0.5, -0.0])}
"""Parameters of numbers that a careless sum or product would change."""


def bits(tree: Any) -> list[Any]:
    """Every array as its bytes, so that −0 is not 0."""
    return [(np.asarray(leaf).dtype, np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(tree)]
