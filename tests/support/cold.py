"""Traces without a past: those of other tests are forgotten."""

import jax

from gradtx.engine import any_shape
from gradtx.tree import kernels


def forget_traces() -> None:
    """Empty the caches of traces, jax's and the engine's; caches of types stay."""
    jax.clear_caches()
    for cached in (any_shape._trace, kernels.kernel, kernels.bundle):
        cached.cache_clear()
