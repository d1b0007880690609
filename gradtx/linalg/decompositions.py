"""Decompositions of every matrix of a batch; on a CPU one after another.

LAPACK's kernels in jaxlib spread a batch over the pool of threads that they run in, and wait for
it. As many kernels at once as there are threads wait for each other without end. LAPACK's own
threads still work in parallel.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def eigh(a: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Eigenvalues, the smallest first, and eigenvectors of matrices that are their own adjoints."""
    return _each(lambda one: jnp.linalg.eigh(one, symmetrize_input=False), a)


def svd(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """U, Σ and Vᵀ, as many of each as the shorter axis is long.

    They are nan for a matrix with an entry that is not finite.
    """
    # LAPACK may not end on inf or nan, so it receives zeros in their place.
    finite = jnp.all(jnp.isfinite(x), axis=(-2, -1), keepdims=True)
    left, values, right = _each(
        lambda one: jnp.linalg.svd(one, full_matrices=False), jnp.where(finite, x, 0)
    )
    return (
        jnp.where(finite, left, jnp.nan),
        jnp.where(finite[..., 0], values, jnp.nan),
        jnp.where(finite, right, jnp.nan),
    )


def qr(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Q and R, as many columns and rows as the shorter axis is long."""
    return _each(jnp.linalg.qr, x)


def _each(decompose: Callable[[jax.Array], Any], x: jax.Array) -> Any:
    if x.size == x.shape[-1] * x.shape[-2]:
        return tuple(decompose(x))
    return jax.lax.platform_dependent(
        x,
        cpu=functools.partial(_one_by_one, decompose),
        default=lambda batch: tuple(decompose(batch)),
    )


def _one_by_one(decompose: Callable[[jax.Array], Any], x: jax.Array) -> Any:
    parts = jax.lax.map(lambda one: tuple(decompose(one)), x.reshape(-1, *x.shape[-2:]))
    return jax.tree.map(lambda part: part.reshape(*x.shape[:-2], *part.shape[1:]), parts)
