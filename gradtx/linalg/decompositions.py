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


@jax.custom_jvp
def eigenvectors(a: jax.Array) -> jax.Array:
    """The eigenvectors of `eigh`, with a derivative where eigenvalues are equal.

    Within the space of equal eigenvalues any basis is one of eigenvectors: it counts as fixed.
    """
    return eigh(a)[1]


@eigenvectors.defjvp
def _eigenvectors_jvp(
    matrices: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """dV = V (F ∘ (Vᴴ dA V)), F_ij = 1 / (λ_j − λ_i)."""
    (a,), (tangent,) = matrices, tangents
    values, vectors = eigh(a)
    gaps, is_equal = _gaps(a, values)
    factors = jnp.where(is_equal, 0, 1 / jnp.where(is_equal, 1, gaps))
    inside = vectors.mT.conj() @ tangent @ vectors
    return vectors, vectors @ (factors * inside)


@jax.custom_jvp
def with_eigenvalues(
    a: jax.Array, values: jax.Array, vectors: jax.Array, new: jax.Array, slopes: jax.Array
) -> jax.Array:
    """V f(Λ) Vᴴ for A = V Λ Vᴴ, given f(λ) and f'(λ) of every eigenvalue.

    Its derivative is along A and along the new eigenvalues as functions of anything else, also
    where eigenvalues are equal.
    """
    # Accelerators would round float32 to bfloat16, and small eigenvalues would be lost.
    return jnp.matmul(vectors * new[..., None, :], vectors.mT.conj(), precision="highest")


@with_eigenvalues.defjvp
def _with_eigenvalues_jvp(
    args: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array]:
    """V (K ∘ (Vᴴ dA V) + diag(df)) Vᴴ, K_ij = (f_i − f_j) / (λ_i − λ_j), or f'_i (Daleckii and
    Krein).
    """
    a, values, vectors, new, slopes = args
    gaps, is_equal = _gaps(a, values)
    rises = (new[..., None, :] - new[..., :, None]) / jnp.where(is_equal, 1, gaps)
    factors = jnp.where(is_equal, (slopes[..., None, :] + slopes[..., :, None]) / 2, rises)
    inside = factors * (vectors.mT.conj() @ tangents[0] @ vectors)
    eye = jnp.eye(values.shape[-1], dtype=a.dtype)
    inside = inside + tangents[3][..., None, :] * eye
    return with_eigenvalues(*args), vectors @ inside @ vectors.mT.conj()


def _gaps(a: jax.Array, values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """λ_j − λ_i in row i, column j; and whether rounding alone makes it."""
    gaps = values[..., None, :] - values[..., :, None]
    size = jnp.max(jnp.abs(values), axis=-1, initial=0)[..., None, None]
    return gaps, jnp.abs(gaps) <= _rounding(a) * size


def _rounding(x: jax.Array) -> float:
    """The size of rounding in a decomposition, relative to the largest number of the matrix."""
    return max(x.shape[-2:]) * float(jnp.finfo(x.dtype).eps)


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


@jax.custom_jvp
def qr(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Q and R, as many columns and rows as the shorter axis is long.

    The derivative is of matrices at least as tall as wide. A column that depends on those before it
    counts as a column of length 1 there: Q is arbitrary, and so has no derivative.
    """
    return _each(jnp.linalg.qr, x)


@qr.defjvp
def _qr_jvp(matrices: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[Any, Any]:
    """With C = dX R⁻¹ and S the skew part that QᴴC has below its diagonal: dQ = C − Q (QᴴC − S)."""
    (x,), (tangent,) = matrices, tangents
    q, r = qr(x)
    diagonal = jnp.abs(jnp.diagonal(r, axis1=-2, axis2=-1))
    is_known = diagonal > _rounding(x) * jnp.max(diagonal, axis=-1, keepdims=True, initial=0)
    eye = jnp.eye(r.shape[-1], dtype=r.dtype)
    solvable = jnp.where(eye * ~is_known[..., None, :] != 0, 1, r)
    change = jax.lax.linalg.triangular_solve(solvable, tangent, left_side=False)
    inside = q.mT.conj() @ change
    below = jnp.tril(inside, -1)
    skew = below - below.mT.conj() + eye * (inside - inside.real)
    return (q, r), (change - q @ (inside - skew), (inside - skew) @ r)


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
