r"""Inverse p-th roots and eigenvectors of symmetric positive semi-definite matrices.

eigh      A = Q Λ Qᵀ,   A^(−1/p) = Q (max(Λ, 0) + ρ)^(−1/p) Qᵀ
newton    z = (1 + p) / (2 ‖A‖_F),   H = z^(1/p) I,   N = z A;
          T = ((p + 1) I − N)/p,   H ← H T,   N ← Tᵖ N   until N is I
"""

import jax
import jax.numpy as jnp

from gradtx.definition.errors import HyperparamError, StructureError
from gradtx.definition.types import ArrayLike
from gradtx.linalg.checks import squares
from gradtx.linalg.decompositions import eigenvectors, eigh, qr, with_eigenvalues
from gradtx.linalg.newton_root import Stop, largest_eigenvalue, newton_root, product
from gradtx.linalg.newton_schulz import adjoint
from gradtx.tree import casts

METHODS = ("eigh", "newton")


def inverse_root(
    a: ArrayLike,
    p: float,
    *,
    method: str = "eigh",
    ridge: ArrayLike = 1e-6,
    relative: bool = True,
    steps: int | None = None,
    max_steps: int = 100,
    tolerance: float | None = None,
) -> jax.Array:
    """The inverse p-th root of a symmetric positive semi-definite matrix.

    (A + ρ I)^(−1/p); the ridge ρ bounds the root of a singular matrix. A is (..., n, n), a batch of
    matrices. Arithmetic is float32 at least, products have full precision on every device, and
    negative eigenvalues, which come from rounding alone, count as 0. Without a ridge, "eigh" leaves
    out directions whose eigenvalue is below n rounding units of the largest: the root of the
    pseudo-inverse. A zero matrix without an absolute ridge gives zero; nan stays in its matrix.

    When: Shampoo and its kin, p = 4 for the two factors of a matrix, 2 for one. "newton" uses
    products alone, which suits accelerators; "eigh" is precise. When not: you need only A^(−1/p)
    times a vector; solve instead.

    Args:
      a: A, symmetric; only its symmetric part counts.
      p: any number above 0; for "newton" a whole one.
      method: "eigh", or "newton", the coupled Newton iteration, which needs a positive definite A
        or a ridge.
      ridge: ρ ≥ 0, relative 1e-6 in float32; below the rounding unit it only amplifies noise.
      relative: True: ρ is in units of the largest eigenvalue ("newton" computes it to a few
        percent). False: ρ is absolute.
      steps: a fixed number of Newton's steps, for programs without a loop that depends on data;
        None iterates until `tolerance`.
      max_steps: the largest number of steps where `steps` is None; a condition number of κ takes
        about ln(κ √n) + 5.
      tolerance: tolerance of max |N − I|; None is ten rounding units. Newton also ends once
        rounding dominates.

    Raises:
      HyperparamError: an unknown method, or a p that it does not support.
      StructureError: not square matrices, or integers.

    >>> import jax.numpy as jnp
    >>> from gradtx.linalg import inverse_root
    >>> a = jnp.array([[5.0, 4.0], [4.0, 5.0]])  # eigenvalues 9 and 1
    >>> half = inverse_root(a, 2, ridge=0.0)
    >>> jnp.abs(half @ a @ half).round(3).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    >>> # The null space is left out.
    >>> inverse_root(jnp.diag(jnp.array([16.0, 0.0])), 4, ridge=0.0).tolist()
    [[0.5, 0.0], [0.0, 0.0]]

    See also: `eigenbasis`, `kronecker_factors`.

    Gupta, Koren and Singer 2018, arXiv 1802.09568, section 3; Guo and Higham 2006, A Schur-Newton
    method for the matrix p-th root."""
    array = squares("inverse_root", a)
    if method not in METHODS:
        raise HyperparamError(
            f"inverse_root: method = {method!r} is unknown; choose one of "
            f"{', '.join(map(repr, METHODS))}"
        )
    if not p > 0 or (method == "newton" and p != int(p)):
        raise HyperparamError(
            f"inverse_root: p = {p!r} with method = {method!r}; it must be above 0, and whole for "
            "'newton'"
        )
    precise = array.astype(casts.compute_dtype(array.dtype))
    # Divided by the largest entry, or the ridge, so that no product overflows.
    size, precise = _divide_by_size((precise + adjoint(precise)) / 2, 0 if relative else ridge)
    shift = (
        jnp.broadcast_to(jnp.asarray(ridge, size.dtype), size.shape)
        if relative
        else jnp.asarray(ridge / size)
    )
    if method == "eigh":
        root = _by_eigh(precise, p, shift, relative)
    else:
        if tolerance is None:
            tolerance = 10 * float(jnp.finfo(precise.dtype).eps)
        root = _by_newton(precise, int(p), shift, relative, Stop(steps, max_steps, tolerance))
    return (root * (size ** (-1 / p))[..., None, None]).astype(array.dtype)


def _divide_by_size(a: jax.Array, least: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Return the largest entry, `least` at least, and the matrix divided by it."""
    size = jnp.maximum(jnp.max(jnp.abs(a), axis=(-2, -1), initial=0), least)
    size = jnp.where(size > 0, size, 1)
    return size, a / size[..., None, None]


def _by_eigh(a: jax.Array, p: float, ridge: jax.Array, relative: bool) -> jax.Array:
    # The derivative along A is that of `with_eigenvalues`; eigenvectors of equal eigenvalues have
    # none of their own.
    values, vectors = eigh(jax.lax.stop_gradient(a))
    values = jnp.maximum(values, 0)
    largest = jnp.max(values, axis=-1, keepdims=True, initial=0)
    if relative:
        along = jnp.real(jnp.sum(vectors[..., -1:].conj() * (a @ vectors[..., -1:]), axis=-2))
        largest = largest + (along - jax.lax.stop_gradient(along))  # with the derivative along A
    ridge = ridge[..., None]
    shifted = values + (ridge * largest if relative else ridge)
    cutoff = jnp.where(ridge > 0, 0, a.shape[-1] * jnp.finfo(values.dtype).eps * largest)
    # ~(... <= ...), not >: nan counts as nonzero, so that it shows in the result.
    nonzero = ~(shifted <= cutoff)
    powers = jnp.where(nonzero, jnp.where(nonzero, shifted, 1) ** (-1 / p), 0)
    slopes = -powers / (p * jnp.where(nonzero, shifted, 1))
    return with_eigenvalues(a, values, vectors, powers, slopes)


def _by_newton(a: jax.Array, p: int, ridge: jax.Array, relative: bool, stop: Stop) -> jax.Array:
    eye = jnp.eye(a.shape[-1], dtype=a.dtype)

    def one(a: jax.Array, ridge: jax.Array) -> jax.Array:
        shifted = a + (ridge * largest_eigenvalue(a) if relative else ridge) * eye
        return newton_root(shifted, p, stop).root

    return jnp.vectorize(one, signature="(n,n),()->(n,n)")(a, ridge)


def eigenbasis(a: ArrayLike) -> jax.Array:
    """The eigenvectors of a symmetric matrix, as columns: Q with A = Q Λ Qᵀ.

    The eigenvector of the largest eigenvalue comes first. A is (..., n, n), a batch of matrices;
    arithmetic is float32 at least.

    When: the first basis of SOAP. When not: at every step; `refresh_eigenbasis` costs less.

    Args:
      a: A, symmetric; only its symmetric part counts.

    Raises:
      StructureError: not square matrices, or integers.

    >>> import jax.numpy as jnp
    >>> from gradtx.linalg import eigenbasis
    >>> jnp.abs(eigenbasis(jnp.diag(jnp.array([1.0, 3.0, 2.0])))).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]

    See also: `refresh_eigenbasis`.
    """
    array = squares("eigenbasis", a)
    precise = array.astype(casts.compute_dtype(array.dtype))
    vectors = eigenvectors((precise + adjoint(precise)) / 2)
    return vectors[..., ::-1].astype(array.dtype)


def refresh_eigenbasis(a: ArrayLike, q: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Refresh eigenvectors by one step of power iteration: Q ← qr(A Q).

    Before the product, the columns of Q are ordered by diag(Qᵀ A Q), the largest first. Put numbers
    along that axis, the second moments of SOAP for instance, in the same order. The diagonal of the
    triangular factor is made positive, so that columns do not change their sign. An eigenbasis in
    order stays as it is, and so does any basis where A is zero.

    A and Q are (..., n, n), a batch of pairs; arithmetic is float32 at least.

    When: SOAP's basis every few steps, from `eigenbasis` on. When not: A changed much; it then
    takes many steps.

    Args:
      a: A, symmetric positive semi-definite.
      q: Q, orthogonal.

    Returns: Q, of the same dtype, and the order, integers (..., n).

    Raises:
      StructureError: not square matrices, not of one shape, or integers.

    >>> import jax.numpy as jnp
    >>> from gradtx.linalg import refresh_eigenbasis
    >>> q, order = refresh_eigenbasis(jnp.diag(jnp.array([1.0, 3.0, 2.0])), jnp.eye(3))
    >>> order.tolist(), jnp.abs(q).tolist()
    ([1, 2, 0], [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])

    See also: `eigenbasis`.

    Vyas and others 2024, SOAP, arXiv 2409.11321, algorithm 4.
    """
    array, basis = squares("refresh_eigenbasis", a), squares("refresh_eigenbasis", q)
    if array.shape != basis.shape:
        raise StructureError(
            f"refresh_eigenbasis: the matrix has shape {array.shape}, its basis {basis.shape}; "
            "they must be equal"
        )
    dtype = casts.widest(array.dtype, basis.dtype, jnp.float32)
    array, old = array.astype(dtype), basis.astype(dtype)
    image = product(array, old)
    order = jnp.argsort(jnp.real(jnp.sum(old.conj() * image, axis=-2)), axis=-1, descending=True)
    new, triangle = qr(jnp.take_along_axis(image, order[..., None, :], axis=-1))
    diagonal = jnp.diagonal(triangle, axis1=-2, axis2=-1)
    is_zero = diagonal == 0
    signs = jnp.where(is_zero, 1, diagonal / jnp.where(is_zero, 1, jnp.abs(diagonal)))
    # QR of a zero matrix is arbitrary: such a basis stays.
    is_known = jnp.any(array != 0, axis=(-2, -1), keepdims=True)
    return jnp.where(is_known, new * signs[..., None, :], old).astype(basis.dtype), order
