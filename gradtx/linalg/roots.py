r"""Inverse p-th roots of symmetric positive semi-definite matrices, and bases of their
eigenvectors.

eigh      A = Q Λ Qᵀ,   A^(−1/p) = Q (max(Λ, 0) + ρ)^(−1/p) Qᵀ
newton    z = (1 + p) / (2 ‖A‖_F),   H = z^(1/p) I,   N = z A;
          T = ((p + 1) I − N)/p,   H ← H T,   N ← Tᵖ N   until N is I
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.definition.errors import HyperparamError, StructureError
from gradtx.definition.types import ArrayLike
from gradtx.linalg.checks import squares
from gradtx.linalg.decompositions import eigh, qr
from gradtx.linalg.newton_schulz import adjoint
from gradtx.tree import casts

METHODS = ("eigh", "newton")
POWER_STEPS = 32
"""Of the power iteration for the largest eigenvalue, of which the ridge is a small part: an error
of some percent does no harm.
"""
WORSE = 1.2
"""Growth of the residual that ends Newton's iteration: rounding has the upper hand."""


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
    """The inverse p-th root of a symmetric positive semi-definite matrix: (A + ρ I)^(−1/p), with a
    ridge ρ that tames what is singular.

    A is (..., n, n), each matrix for itself. Arithmetic is float32 at least, products are of full
    precision on every device, and negative eigenvalues, which only rounding makes, count as 0.
    Without a ridge, "eigh" leaves out directions whose eigenvalue is below n rounding
    units of the largest: the root of the pseudo-inverse. A zero matrix without an absolute ridge
    gives zero; nan stays in its matrix.

    When: Shampoo and its kin, p = 4 for the two factors of a matrix, 2 for one. "newton" is all
    products, good for accelerators; "eigh" is precise. When not: only A^(−1/p) times a vector is
    wanted; solve instead.

    Args:
      a: A, symmetric; only its symmetric part counts.
      p: any number above 0; for "newton" a whole one.
      method: "eigh", or "newton", the coupled Newton iteration, which needs a positive definite A
        or a ridge.
      ridge: ρ ≥ 0, relative 1e-6 in float32; below the rounding unit it only amplifies noise.
      relative: whether ρ is in units of the largest eigenvalue ("newton" knows it to a few
        percent), or absolute.
      steps: of Newton's iteration, a fixed number, for programs without a loop that depends on
        data; None iterates until `tolerance`.
      max_steps: at most so many, where `steps` is None; a condition number of κ takes about ln(κ
        √n) + 5.
      tolerance: of max |N − I|; None is ten rounding units. Newton ends, too, when rounding lets it
        get no further.

    Raises:
      HyperparamError: an unknown method, a p that it cannot have.
      StructureError: not square matrices, or integers.

    >>> import jax.numpy as jnp
    >>> from gradtx.linalg import inverse_root
    >>> a = jnp.array([[5.0, 4.0], [4.0, 5.0]])  # eigenvalues 9 and 1
    >>> half = inverse_root(a, 2, ridge=0.0)
    >>> jnp.abs(half @ a @ half).round(3).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    >>> inverse_root(jnp.diag(jnp.array([16.0, 0.0])), 4, ridge=0.0).tolist()  # the null space is left out
    [[0.5, 0.0], [0.0, 0.0]]

    See also: `eigenbasis`, `kronecker_factors`.

    Gupta, Koren and Singer 2018, arXiv 1802.09568, section 3; Guo and Higham 2006, A Schur-Newton
    method for the matrix p-th root."""
    array = squares("inverse_root", a)
    if method not in METHODS:
        raise HyperparamError(
            f"inverse_root: method = {method!r} is unknown; choose one of {', '.join(map(repr, METHODS))}"
        )
    if not p > 0 or (method == "newton" and p != int(p)):
        raise HyperparamError(
            f"inverse_root: p = {p!r} with method = {method!r}; it must be above 0, and whole for 'newton'"
        )
    wide = array.astype(casts.compute_dtype(array.dtype))
    size, wide = _in_units_of_its_largest((wide + adjoint(wide)) / 2, 0 if relative else ridge)
    shift = (
        jnp.broadcast_to(jnp.asarray(ridge, size.dtype), size.shape)
        if relative
        else jnp.asarray(ridge / size)
    )
    if method == "eigh":
        root = _by_eigh(wide, p, shift, relative)
    else:
        unit = tolerance if tolerance is not None else 10 * float(jnp.finfo(wide.dtype).eps)
        root = _by_newton(wide, int(p), shift, relative, _Stop(steps, max_steps, unit))
    return (root * (size ** (-1 / p))[..., None, None]).astype(array.dtype)


def _in_units_of_its_largest(a: jax.Array, least: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """The largest entry, and the matrix divided by it: nothing overflows."""
    size = jnp.maximum(jnp.max(jnp.abs(a), axis=(-2, -1), initial=0), least)
    size = jnp.where(size > 0, size, 1)
    return size, a / size[..., None, None]


def _by_eigh(a: jax.Array, p: float, ridge: jax.Array, relative: bool) -> jax.Array:
    values, vectors = eigh(a)
    values = jnp.maximum(values, 0)
    largest = jnp.max(values, axis=-1, keepdims=True, initial=0)
    ridge = ridge[..., None]
    shifted = values + (ridge * largest if relative else ridge)
    cutoff = jnp.where(ridge > 0, 0, a.shape[-1] * jnp.finfo(values.dtype).eps * largest)
    kept = ~(shifted <= cutoff)
    powers = jnp.where(kept, jnp.where(kept, shifted, 1) ** (-1 / p), 0)
    return _product(vectors * powers[..., None, :], adjoint(vectors))


class _Stop(NamedTuple):
    steps: int | None
    max_steps: int
    tolerance: float


class _Newton(NamedTuple):
    """Where the iteration is; `going` is False once the residual is small, grows, or is nan."""

    step: jax.Array
    root: jax.Array
    rest: jax.Array
    residual: jax.Array
    going: jax.Array


def _by_newton(a: jax.Array, p: int, ridge: jax.Array, relative: bool, stop: _Stop) -> jax.Array:
    eye = jnp.eye(a.shape[-1], dtype=a.dtype)

    def start(a: jax.Array, ridge: jax.Array) -> _Newton:
        shifted = a + (ridge * _largest_eigenvalue(a) if relative else ridge) * eye
        norm = jnp.sqrt(jnp.sum(jnp.real(shifted * shifted.conj())))
        scale = (1 + p) / (2 * jnp.where(norm > 0, norm, 1))
        root = jnp.where(norm == 0, 0, scale ** (1 / p)) * eye
        return _Newton(
            jnp.zeros((), jnp.int32),
            root,
            scale * shifted,
            jnp.full((), jnp.inf, norm.dtype),
            norm != 0,
        )

    def advance(at: _Newton) -> _Newton:
        factor = ((p + 1) * eye - at.rest) / p
        rest = _product(_power(factor, p), at.rest)
        residual = jnp.max(jnp.abs(rest - eye), initial=0)
        better = ~(residual > WORSE * at.residual)
        new = _Newton(
            at.step + 1, _product(at.root, factor), rest, residual, residual > stop.tolerance
        )
        return jax.tree.map(
            lambda new, old: jnp.where(better, new, old),
            new,
            at._replace(step=new.step, going=jnp.zeros((), bool)),
        )

    def one(a: jax.Array, ridge: jax.Array) -> jax.Array:
        at = start(a, ridge)
        if stop.steps is not None:
            return jax.lax.fori_loop(0, stop.steps, lambda _, at: advance(at), at).root
        return jax.lax.while_loop(
            lambda at: at.going & (at.step < stop.max_steps), advance, at
        ).root

    return jnp.vectorize(one, signature="(n,n),()->(n,n)")(a, ridge)


def _largest_eigenvalue(a: jax.Array) -> jax.Array:
    """Of one positive semi-definite matrix, by power iteration from its longest column."""
    lengths = jnp.sum(jnp.real(a * a.conj()), axis=0)

    def advance(_: int, vector: jax.Array) -> jax.Array:
        image = _product(a, vector)
        length = jnp.sqrt(jnp.sum(jnp.real(image * image.conj())))
        return image / jnp.where(length > 0, length, 1)

    vector = jax.lax.fori_loop(0, POWER_STEPS, advance, a[:, jnp.argmax(lengths)])
    image = _product(a, vector)
    return jnp.sqrt(jnp.sum(jnp.real(image * image.conj())))


def eigenbasis(a: ArrayLike) -> jax.Array:
    """The eigenvectors of a symmetric matrix as columns, that of the largest eigenvalue first: Q
    with A = Q Λ Qᵀ.

    A is (..., n, n), each matrix for itself; arithmetic is float32 at least.

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
    wide = array.astype(casts.compute_dtype(array.dtype))
    _, vectors = eigh((wide + adjoint(wide)) / 2)
    return vectors[..., ::-1].astype(array.dtype)


def refresh_eigenbasis(a: ArrayLike, q: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """One step of power iteration for all eigenvectors at once, and the order that it brought the
    columns into: Q ← qr(A Q).

    Before the product, the columns of Q are ordered by diag(Qᵀ A Q), the largest first; what is
    kept along that axis, such as the second moments of SOAP, is to be taken in the same order. The
    diagonal of the triangular factor is made positive, so that columns do not turn
    around: an eigenbasis in order stays as it is, and so does any basis where A is zero.

    A and Q are (..., n, n), each pair for itself; arithmetic is float32 at least.

    When: SOAP's basis every few steps, from `eigenbasis` on. When not: A changed much; many steps
    are needed then.

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
            f"refresh_eigenbasis: the matrix has shape {array.shape}, its basis {basis.shape}; they must be equal"
        )
    dtype = casts.compute_dtype(jnp.promote_types(array.dtype, basis.dtype))
    array, old = array.astype(dtype), basis.astype(dtype)
    image = _product(array, old)
    order = jnp.argsort(jnp.real(jnp.sum(old.conj() * image, axis=-2)), axis=-1, descending=True)
    new, triangle = qr(jnp.take_along_axis(image, order[..., None, :], axis=-1))
    diagonal = jnp.diagonal(triangle, axis1=-2, axis2=-1)
    turned = (
        new
        * jnp.where(diagonal == 0, 1, diagonal / jnp.where(diagonal == 0, 1, jnp.abs(diagonal)))[
            ..., None, :
        ]
    )
    known = jnp.any(array != 0, axis=(-2, -1), keepdims=True)
    return jnp.where(known, turned, old).astype(basis.dtype), order


def _product(left: jax.Array, right: jax.Array) -> jax.Array:
    return jnp.matmul(left, right, precision="highest")


def _power(a: jax.Array, exponent: int) -> jax.Array:
    """A multiplied by itself, by squaring."""
    result = None
    while True:
        if exponent & 1:
            result = a if result is None else _product(result, a)
        exponent >>= 1
        if not exponent:
            assert result is not None
            return result
        a = _product(a, a)
