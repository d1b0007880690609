"""Trees compared number by number."""

import functools
from typing import Any

import jax
import numpy as np


def close(left: Any, right: Any, rtol: float = 1e-12) -> None:
    """Raise where two trees differ by more than the rounding of float64."""
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=rtol, atol=1e-15), left, right)
