"""Decompositions of every matrix of a batch, on a CPU one after another.

LAPACK's kernels in jaxlib spread a batch over the pool of threads that they themselves run in, and
wait for it: as many of them at once as there are threads wait for each other without end. A batch
is in parallel anyhow as far as LAPACK's own threads go."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def eigh(a: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Eigenvalues, the smallest first, and eigenvectors of matrices that are their own adjoints."""
    return _each(_eigh, a)


def svd(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """U, Σ and Vᵀ, as many of each as the shorter axis is long; nan where an entry is not finite,
    since LAPACK may not end there.
    """
    finite = jnp.all(jnp.isfinite(x), axis=(-2, -1), keepdims=True)
    left, values, right = _each(_svd, jnp.where(finite, x, 0))
    return (
        jnp.where(finite, left, jnp.nan),
        jnp.where(finite[..., 0], values, jnp.nan),
        jnp.where(finite, right, jnp.nan),
    )


def qr(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Q and R, as many columns and rows as the shorter axis is long."""
    return _each(_qr, x)


def _eigh(a: jax.Array) -> tuple[jax.Array, jax.Array]:
    values, vectors = jnp.linalg.eigh(a, symmetrize_input=False)
    return values, vectors


def _svd(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    left, values, right = jnp.linalg.svd(x, full_matrices=False)
    return left, values, right


def _qr(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    q, r = jnp.linalg.qr(x)
    return q, r


def _each(decompose: Callable[[jax.Array], Any], x: jax.Array) -> Any:
    if x.size == x.shape[-1] * x.shape[-2]:
        return decompose(x)
    return jax.lax.platform_dependent(
        x, cpu=functools.partial(_in_turn, decompose), default=decompose
    )


def _in_turn(decompose: Callable[[jax.Array], Any], x: jax.Array) -> Any:
    found = jax.lax.map(decompose, x.reshape(-1, *x.shape[-2:]))
    return jax.tree.map(lambda array: array.reshape(*x.shape[:-2], *array.shape[1:]), found)
