r"""PSGD's triangular factors: P = QᵀQ with Q = Q_L ⊗ Q_R, fitted so that E|P^(1/2) g|² and
E|P^(−1/2) v|² balance for white v.

A = Q_L G Q_Rᵀ,   B = Q_L^(−T) V Q_R^(−1)
Q_L ← Q_L − μ triu(A Aᵀ − B Bᵀ)/‖A Aᵀ + B Bᵀ‖ Q_L
Q_R ← Q_R − μ triu(Aᵀ A − Bᵀ B)/‖Aᵀ A + Bᵀ B‖ Q_R
"""

import jax
import jax.numpy as jnp

from gradtx.definition.errors import StructureError
from gradtx.definition.types import ArrayLike
from gradtx.linalg.checks import matrices, squares
from gradtx.linalg.kronecker import Factors
from gradtx.tree import casts
from gradtx.tree.arithmetic import sqrt


def norm_lower_bound(a: ArrayLike) -> jax.Array:
    """A lower bound of the spectral norm of a symmetric matrix, by power iteration.

    ‖A v‖, v = A c / ‖A c‖: one step. A is (..., n, n) and c its longest column. The bound is a
    number for each matrix, above ‖A‖₂ / √n and most often close to ‖A‖₂.

    When: a step size that must fit a matrix, at the cost of two products with a vector, as in PSGD.
    When not: you need an upper bound; take the Frobenius norm.

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
    # Divided by the largest entry, so that squares neither over- nor underflow.
    size = jnp.max(jnp.abs(array), axis=(-2, -1), keepdims=True, initial=0)
    array = array / jnp.where(size > 0, size, 1)
    lengths = jnp.sum(jnp.real(array * array.conj()), axis=-2, keepdims=True)
    column = jnp.take_along_axis(array, jnp.argmax(lengths, axis=-1, keepdims=True), axis=-1)
    image = array @ column
    # A zero matrix has an image of length 0: `tiny` gives 0 in place of nan.
    length = jnp.maximum(_length(image), jnp.finfo(size.dtype).tiny)
    return (size * _length(array @ image) / length)[..., 0, 0]


def fit_triangular(
    factors: Factors, x: ArrayLike, noise: ArrayLike, rate: ArrayLike = 0.1
) -> Factors:
    """Fit triangular factors that whiten a matrix: one step of PSGD.

    Q ← Q − μ triu(A Aᵀ − B Bᵀ)/‖A Aᵀ + B Bᵀ‖ Q on each side. A = Q_L X Q_Rᵀ and B = Q_L^(−T) V
    Q_R^(−1); the norm is `norm_lower_bound`. A factor is upper triangular, (..., n, n), or a
    diagonal, (..., n), for an axis that is too long, or None, the identity. Where A and B are both
    zero, factors stay as they are.

    When: the preconditioner of PSGD-Kron; it needs neither roots nor eigenvectors. When not: you
    need the exact root at once; take `inverse_root`.

    Args:
      factors: Q_L and Q_R, real; start with identities, scaled to the inverse of the gradient's
        size.
      x: X, (..., n, m), real: the gradient, or its average.
      noise: V, of the shape of X, standard normal.
      rate: μ in (0, 1); 0.1.

    Raises:
      StructureError: fewer than two axes, factors or noise of other shapes, integers.

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
            f"fit_triangular: noise has shape {noise.shape}, the matrix {array.shape}; they must "
            "be equal"
        )
    left, right = _checked("fit_triangular", factors, array)
    white = _multiply(right, _multiply(left, array).mT).mT
    solved = _solve(left, right, noise)
    return Factors(_fit(left, white, solved, rate), _fit(right, white.mT, solved.mT, rate))


def apply_triangular(factors: Factors, x: ArrayLike) -> jax.Array:
    """Precondition a matrix by triangular factors: Q_Lᵀ Q_L X Q_Rᵀ Q_R.

    When: the direction of PSGD, from factors that `fit_triangular` fitted. When not: the factors
    are symmetric; take `multiply_sides`.

    Args:
      factors: Q_L and Q_R: upper triangular, diagonals, or None.
      x: X, (..., n, m), real.

    Raises:
      StructureError: fewer than two axes, factors of other shapes, integers.

    >>> import jax.numpy as jnp
    >>> from gradtx.linalg import Factors, apply_triangular
    >>> factors = Factors(2 * jnp.ones(1), jnp.array([[1.0, 1.0], [0.0, 1.0]]))
    >>> apply_triangular(factors, jnp.array([[1.0, 0.0]])).tolist()
    [[4.0, 4.0]]

    See also: `fit_triangular`.

    Li 2024, arXiv 2402.04553, section 3.
    """
    array = _real("apply_triangular", x)
    left, right = _checked("apply_triangular", factors, array)
    return _precondition(right, _precondition(left, array).mT).mT.astype(jnp.asarray(x).dtype)


def _precondition(q: jax.Array | None, x: jax.Array) -> jax.Array:
    """Qᵀ Q X."""
    if q is None:
        return x
    return q.mT @ (q @ x) if q.ndim == x.ndim else (q * q)[..., None] * x


def _multiply(q: jax.Array | None, x: jax.Array) -> jax.Array:
    """Q X."""
    if q is None:
        return x
    return q @ x if q.ndim == x.ndim else q[..., None] * x


def _solve(left: jax.Array | None, right: jax.Array | None, x: jax.Array) -> jax.Array:
    """Q_L^(−T) X Q_R^(−1)."""
    for q, on_left in ((left, True), (right, False)):
        if q is None:
            continue
        if q.ndim < x.ndim:
            x = x / (q[..., None] if on_left else q[..., None, :])
        else:
            x = jax.lax.linalg.triangular_solve(
                q, x, left_side=on_left, lower=False, transpose_a=on_left
            )
    return x


def _fit(
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


def _checked(where: str, factors: Factors, x: jax.Array) -> Factors:
    """Check the shapes of the factors, and convert them to the dtype of the matrix."""
    for name, factor, side in zip(Factors._fields, factors, x.shape[-2:]):
        shapes = ((*x.shape[:-2], side, side), (*x.shape[:-2], side))
        if factor is not None and factor.shape not in shapes:
            raise StructureError(
                f"{where}: the {name} factor has shape {factor.shape}; this matrix needs "
                f"{shapes[0]}, or {shapes[1]}"
            )
    return Factors(*(None if factor is None else factor.astype(x.dtype) for factor in factors))


def _real(where: str, x: ArrayLike) -> jax.Array:
    array = matrices(where, x)
    if jnp.iscomplexobj(array):
        raise StructureError(f"{where}: the argument has dtype {array.dtype}; give real numbers")
    return array.astype(casts.compute_dtype(array.dtype))


def _length(x: jax.Array) -> jax.Array:
    return sqrt(jnp.sum(jnp.real(x * x.conj()), axis=(-2, -1), keepdims=True))
