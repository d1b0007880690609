r"""Triangular factors fitted to whiten: P = QᵀQ with Q = Q_L ⊗ Q_R, such that E|P^(1/2) g|² and
E|P^(−1/2) v|² balance for white v.

A = Q_L G Q_Rᵀ,   B = Q_L^(−T) V Q_R^(−1)
Q_L ← Q_L − μ triu(A Aᵀ − B Bᵀ)/‖A Aᵀ + B Bᵀ‖ Q_L,   Q_R ← Q_R − μ triu(Aᵀ A − Bᵀ B)/‖Aᵀ A + Bᵀ B‖ Q_R
"""

import jax
import jax.numpy as jnp

from gradtx.definition.errors import StructureError
from gradtx.definition.types import ArrayLike
from gradtx.linalg.checks import matrices, squares
from gradtx.linalg.kronecker import Factors
from gradtx.tree import casts


def norm_lower_bound(a: ArrayLike) -> jax.Array:
    """A lower bound of the spectral norm of a symmetric matrix, from one step of power iteration:
    ‖A v‖, v = A c / ‖A c‖.

    A is (..., n, n) and c its longest column; the bound is a number for each matrix, above ‖A‖₂ /
    √n and most often close to it.

    When: a step size that must suit a matrix, at the cost of two products with a vector, as in
    PSGD. When not: an upper bound is needed; take the Frobenius norm.

    Args:
      a: A, symmetric.

    Raises:
      StructureError: not square matrices, or integers.

    >>> import jax.numpy as jnp
    >>> from gradtx.linalg import norm_lower_bound
    >>> float(norm_lower_bound(jnp.diag(jnp.array([1.0, -3.0, 2.0]))))
    3.0

    See also: `fit_triangular`.

    Li 2024, arXiv 2402.04553; the code of the same author.
    """
    array = squares("norm_lower_bound", a)
    array = array.astype(casts.compute_dtype(array.dtype))
    size = jnp.max(jnp.abs(array), axis=(-2, -1), keepdims=True, initial=0)
    array = array / jnp.where(size > 0, size, 1)
    lengths = jnp.sum(jnp.real(array * array.conj()), axis=-2, keepdims=True)
    column = jnp.take_along_axis(array, jnp.argmax(lengths, axis=-1, keepdims=True), axis=-1)
    image = array @ column
    return (
        size * _length(array @ image) / jnp.maximum(_length(image), jnp.finfo(size.dtype).tiny)
    )[..., 0, 0]


def fit_triangular(
    factors: Factors, x: ArrayLike, noise: ArrayLike, rate: ArrayLike = 0.1
) -> Factors:
    """One step of PSGD's fit of triangular factors that whiten a matrix: Q ← Q − μ triu(A Aᵀ − B
    Bᵀ)/‖A Aᵀ + B Bᵀ‖ Q on each side.

    A = Q_L X Q_Rᵀ and B = Q_L^(−T) V Q_R^(−1); the norm is `norm_lower_bound`. A factor is upper
    triangular, (..., n, n), or a diagonal alone, (..., n), for an axis that is too long, or None,
    the identity. Where A and B are both zero, factors stay as they are.

    When: the preconditioner of PSGD-Kron; it needs neither roots nor eigenvectors. When not: the
    exact root is wanted at once; take `inverse_root`.

    Args:
      factors: Q_L and Q_R, real; identities at first, scaled to the inverse of the gradient's size.
      x: X, (..., n, m), real: the gradient, or its average.
      noise: V, of the shape of X, standard normal.
      rate: μ in (0, 1); 0.1.

    Raises:
      StructureError: no matrix, factors or noise of other shapes, integers.

    >>> import jax.numpy as jnp
    >>> from gradtx.linalg import Factors, apply_triangular, fit_triangular
    >>> q, x = Factors(jnp.ones((1, 1)), None), jnp.array([[4.0]])
    >>> for _ in range(100):
    ...     q = fit_triangular(q, x, jnp.ones((1, 1)))
    >>> round(float(apply_triangular(q, x)[0, 0]), 3)
    1.0

    See also: `apply_triangular`, `norm_lower_bound`.

    Li 2024, arXiv 2402.04553, section 3.
    """
    array, noise = _real("fit_triangular", x), _real("fit_triangular", noise)
    if noise.shape != array.shape:
        raise StructureError(
            f"fit_triangular: noise has shape {noise.shape}, the matrix {array.shape}; they must be equal"
        )
    left, right = _known("fit_triangular", factors, array)
    white = _right(right, _left(left, array))
    solved = _solved(left, right, noise)
    return Factors(_fitted(left, white, solved, rate), _fitted(right, white.mT, solved.mT, rate))


def apply_triangular(factors: Factors, x: ArrayLike) -> jax.Array:
    """A matrix preconditioned by triangular factors: Q_Lᵀ Q_L X Q_Rᵀ Q_R.

    When: the direction of PSGD, from factors that `fit_triangular` fitted. When not: the factors
    are symmetric; take `multiply_sides`.

    Args:
      factors: Q_L and Q_R: upper triangular, diagonals alone, or None.
      x: X, (..., n, m), real.

    Raises:
      StructureError: no matrix, factors of other shapes, integers.

    >>> import jax.numpy as jnp
    >>> from gradtx.linalg import Factors, apply_triangular
    >>> apply_triangular(Factors(2 * jnp.ones(1), jnp.array([[1.0, 1.0], [0.0, 1.0]])), jnp.array([[1.0, 0.0]])).tolist()
    [[4.0, 4.0]]

    See also: `fit_triangular`.

    Li 2024, arXiv 2402.04553, section 3.
    """
    array = _real("apply_triangular", x)
    left, right = _known("apply_triangular", factors, array)
    return _side(right, _side(left, array).mT).mT.astype(jnp.asarray(x).dtype)


def _side(q: jax.Array | None, x: jax.Array) -> jax.Array:
    """Qᵀ Q X."""
    if q is None:
        return x
    return q.mT @ (q @ x) if q.ndim == x.ndim else (q * q)[..., None] * x


def _left(q: jax.Array | None, x: jax.Array) -> jax.Array:
    """Q X."""
    if q is None:
        return x
    return q @ x if q.ndim == x.ndim else q[..., None] * x


def _right(q: jax.Array | None, x: jax.Array) -> jax.Array:
    """X Qᵀ."""
    return _left(q, x.mT).mT


def _solved(left: jax.Array | None, right: jax.Array | None, x: jax.Array) -> jax.Array:
    """Q_L^(−T) X Q_R^(−1)."""
    for q, turned in ((left, False), (right, True)):
        if q is None:
            continue
        if q.ndim < x.ndim:
            x = x / (q[..., None, :] if turned else q[..., None])
        else:
            x = jax.lax.linalg.triangular_solve(
                q, x, left_side=not turned, lower=False, transpose_a=not turned
            )
    return x


def _fitted(
    q: jax.Array | None, white: jax.Array, solved: jax.Array, rate: ArrayLike
) -> jax.Array | None:
    """The factor of the rows, after a step."""
    if q is None:
        return None
    if q.ndim < white.ndim:
        first, second = (jnp.sum(side * side, axis=-1) for side in (white, solved))
        norm = jnp.max(jnp.abs(first + second), axis=-1, keepdims=True, initial=0)
        return q - rate * (first - second) / jnp.where(norm == 0, 1, norm) * q
    first, second = (side @ side.mT for side in (white, solved))
    norm = norm_lower_bound(first + second)[..., None, None]
    return q - rate * jnp.triu(first - second) / jnp.where(norm == 0, 1, norm) @ q


def _known(where: str, factors: Factors, x: jax.Array) -> Factors:
    """The factors in the dtype of the matrix, once their shapes are those of its sides."""
    for name, factor, side in zip(Factors._fields, factors, x.shape[-2:]):
        shapes = ((*x.shape[:-2], side, side), (*x.shape[:-2], side))
        if factor is not None and factor.shape not in shapes:
            raise StructureError(
                f"{where}: the {name} factor has shape {factor.shape}; this matrix needs {shapes[0]}, or {shapes[1]}"
            )
    return Factors(*(None if factor is None else factor.astype(x.dtype) for factor in factors))


def _real(where: str, x: ArrayLike) -> jax.Array:
    array = matrices(where, x)
    if jnp.iscomplexobj(array):
        raise StructureError(f"{where}: the argument has dtype {array.dtype}; give real numbers")
    return array.astype(casts.compute_dtype(array.dtype))


def _length(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(jnp.real(x * x.conj()), axis=(-2, -1), keepdims=True))
