r"""Orthogonalization: the nearest matrix with orthonormal rows or columns. Every singular value
becomes 1, or nearly.

O = U Vᵀ   of   X = U Σ Vᵀ
or U p(Σ/‖X‖_F) Vᵀ with an odd polynomial p that is near 1 on [10⁻³, 1]
"""

import functools
from collections.abc import Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from gradtx.definition.call_checks import check_dtype
from gradtx.definition.errors import HyperparamError
from gradtx.definition.spelling import suggest
from gradtx.definition.types import ArrayLike, DTypeLike
from gradtx.linalg import newton_schulz
from gradtx.linalg.checks import matrices
from gradtx.linalg.decompositions import qr, svd
from gradtx.linalg.newton_schulz import adjoint, is_wide
from gradtx.linalg.polar_express import Triple
from gradtx.linalg.presets import PRESETS, SPELLINGS, coefficients_of, numbers_of
from gradtx.tree import casts
from gradtx.tree.arithmetic import sqrt

EXACT = ("svd", "qr")
FORMS = ("auto", "plain", "gram")
Normalize = Literal["frobenius", "schatten", "aol", "spectral"]
NORMALIZE = get_args(Normalize)
SQUARINGS = 5
"""Squarings of the Gram matrix, for a bound of the largest singular value. It is too large by at
most n^(1/128), 5 % with 512 rows, and never too small.
"""


def orthogonalize(
    x: ArrayLike,
    method: str | Sequence[Triple] | Triple = "polar_express",
    steps: int | None = None,
    *,
    form: str = "auto",
    compute_dtype: DTypeLike | None = None,
    eps: ArrayLike = 1e-7,
    margin: float = 1.0,
    normalize: str = "frobenius",
) -> jax.Array:
    """Orthogonalize a matrix: bring its singular values to 1.

    O = U p(Σ / (margin ‖X‖_F + ε)) Vᵀ of X = U Σ Vᵀ. X is (..., n, m), a batch of matrices; p
    composes T odd quintics p_t(x) = a x + b x³ + c x⁵, by matrix products alone. A zero matrix
    gives zero, a direction of singular value 0 stays 0, and nan stays in its matrix.

    The worst |1 − p(σ)| over [10⁻³, 1], the range of relative singular values that the presets are
    designed for (`worst_error` computes it)::

        preset            steps   worst
        "polar_express"   5       0.141
        "jordan"          5       0.529
        "you"             5       0.525
        "cans"            5       0.120
        "deepseek"        10      0.001

    When: the direction of Muon and its kin. "polar_express" is the best of five steps with rounded
    products; "you" is nearer to 1 for well-conditioned matrices; "deepseek" is precise at twice the
    cost. Use "cans" only with products in float32: its values grow without bound once rounding
    pushes one above its interval. When not: you need the exact factor; take "svd", which is slow on
    accelerators.

    With "svd" directions of singular values below max(n, m) times the rounding unit become 0. It
    has no derivative where singular values are equal or 0; the polynomials have one. "qr" returns
    another matrix: its vectors along the shorter axis are orthonormal too, but by the method of
    Gram and Schmidt.

    Args:
      x: X, real or complex, at least two axes.
      method: a preset, "svd", "qr", or triples (a, b, c) of your own, as from
        `polar_express_coefficients`; one triple is repeated. Optax's "standard" and "dion" are
        "jordan" and "you".
      steps: T ≥ 1. "polar_express" is computed for any number, "jordan" repeats, "deepseek" ends
        with its last two; a table is cut, or continues with (15/8, −5/4, 3/8).
      form: the order of the products. "gram" works on the smaller Gram matrix, "plain" on X. "auto"
        takes the cheaper: "gram" from 1.5 columns per row (or rows per column) on, and always
        "plain" in 16 bits, where "gram" overshoots.
      compute_dtype: dtype of the products; None is X's own, float32 at least; bfloat16 costs less
        on accelerators. The norm is float32 at least.
      eps: ε ≥ 0, keeps matrices near zero small; 10⁻⁷.
      margin: ≥ 1, divides X further; 1.02 where the coefficients have no safety of their own and
        products are rounded.
      normalize: the divisor that brings the singular values into [0, 1]. "frobenius": ‖X‖_F.
        "schatten": ‖X Xᵀ‖_F^(1/2), which is less, so that the polynomials start higher. "aol": row
        i of the wide X by (Σ_j |X Xᵀ|_ij)^(1/2), which is not a norm; the factor is then that of
        the scaled matrix. "spectral": a bound of the largest singular value, ‖(X Xᵀ)³²‖_F^(1/64),
        above it by at most 5 % up to 512 rows; it takes five products of the shorter side.

    Raises:
      HyperparamError: an unknown method or form, steps below 1, margin below 1, "cans" in 16 bits.
      StructureError: fewer than two axes, or integers.

    >>> import jax.numpy as jnp
    >>> from gradtx.linalg import orthogonalize
    >>> x = jnp.array([[3.0, 0.0, 0.0], [0.0, -0.1, 0.0]])  # singular values 3 and 0.1
    >>> orthogonalize(x, "svd").tolist()
    [[1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]
    >>> [[round(value, 2) for value in row] for row in orthogonalize(x).tolist()]
    [[0.89, 0.0, 0.0], [0.0, -0.88, 0.0]]
    >>> [[round(value, 2) for value in row] for row in orthogonalize(x, steps=8).tolist()]
    [[1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]

    See also: `worst_error`, `inverse_root`.

    Jordan and others 2024, Muon (kellerjordan.github.io/posts/muon); Amsel, Persson, Musco and
    Gower 2025, arXiv 2505.16932; Grishina, Smirnov and Rakhuba 2025, arXiv 2506.10935; Higham 2008,
    Functions of Matrices, chapter 8."""
    array = matrices("orthogonalize", x)
    for name, value, known in (("form", form, FORMS), ("normalize", normalize, NORMALIZE)):
        if value not in known:
            raise HyperparamError(
                f"orthogonalize: {name} = {value!r} is unknown; choose one of "
                f"{', '.join(map(repr, known))}"
            )
    if not margin >= 1:
        raise HyperparamError(
            f"orthogonalize: margin = {margin!r} is below 1: singular values above the interval of "
            "the polynomials grow"
        )
    dtype = product_dtype(array, compute_dtype)
    if isinstance(method, str) and method in EXACT:
        precise = array.astype(casts.compute_dtype(dtype))
        return exact_factor(precise, method, steps).astype(array.dtype)
    triples = coefficients_in(method, steps, dtype)
    # Normalized before the cast to `dtype`, so that 16 bits hold numbers near 1.
    precise = array.astype(casts.widest(dtype, array.dtype, jnp.float32))
    with casts.ALIKE if dtype.kind != "c" else casts.mixed_promotion():
        start, first = _normalize(precise, dtype, normalize, eps, margin)[:2]
    return newton_schulz.compose(start, first, triples, form).astype(array.dtype)


def product_dtype(array: jax.Array, compute_dtype: DTypeLike | None) -> jnp.dtype:
    """The dtype of the products."""
    if compute_dtype is None:
        return casts.compute_dtype(array.dtype)
    check_dtype("orthogonalize: compute_dtype", compute_dtype)
    dtype = jnp.dtype(compute_dtype)
    return casts.widest(dtype, jnp.complex64) if jnp.iscomplexobj(array) else dtype


def check_method(where: str, method: Any) -> None:
    """Raise unless a method is the name of one, or triples of numbers."""
    if not isinstance(method, str):
        numbers_of(method, where)
    elif method not in {*PRESETS, *SPELLINGS, *EXACT}:
        known = (*PRESETS, *EXACT)
        raise HyperparamError(
            f"{where} = {method!r} is unknown; choose one of {', '.join(map(repr, known))}, or "
            f"give triples (a, b, c){suggest(method, known)}"
        )


def coefficients_in(
    method: str | Sequence[Triple] | Triple, steps: int | None, dtype: jnp.dtype
) -> tuple[Triple, ...]:
    """The polynomials of a method, for products in a dtype."""
    check_method("orthogonalize: method", method)
    if isinstance(method, str) and method == "cans" and dtype.itemsize < 4:
        raise HyperparamError(
            f'orthogonalize: "cans" is not stable in {dtype}; compute in float32, or take '
            '"polar_express"'
        )
    return coefficients_of(method, steps)


def normalized(
    x: jax.Array, dtype: jnp.dtype, normalize: str, eps: ArrayLike, margin: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return X / (margin ‖X‖ + ε), its Gram matrix, and the divisor."""
    start, first, factor, scale = _normalize(x, dtype, normalize, eps, margin)
    return start, first, scale / factor


def _normalize(
    x: jax.Array, dtype: jnp.dtype, normalize: str, eps: ArrayLike, margin: float
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Return X / (margin ‖X‖ + ε) and its Gram matrix; and the factor of X / scale, the scale."""
    # Dividing by the largest entry first keeps the squares of X from overflowing. The result does
    # not depend on that entry, so its derivative is left out.
    peak = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=(-2, -1), keepdims=True, initial=0))
    # Without the barrier XLA recomputes X, from everything it depends on, at every product.
    x, peak = jax.lax.optimization_barrier((x, peak))
    scale = jnp.where(peak > 0, peak, 1)
    x = x / scale
    r = newton_schulz.gram(x.astype(dtype), casts.compute_dtype(dtype))
    factor, r = _scale_gram(r, eps / scale, margin, normalize)
    x = x * (factor if is_wide(x) else factor.mT)
    return x.astype(dtype), r.astype(dtype), factor, scale


# Jitted: all matrices with the same number of rows share one trace.
@functools.partial(jax.jit, static_argnames="normalize")
def _scale_gram(
    r: jax.Array, eps: jax.Array, margin: ArrayLike, normalize: str
) -> tuple[jax.Array, jax.Array]:
    """Return the factor for the wide X, and the Gram matrix of the product."""
    size = margin * _norm(r, normalize) + eps
    factor = (1 / jnp.where(size == 0, 1, size)).astype(r.dtype)
    return factor, r * factor * factor.mT


def _norm(r: jax.Array, normalize: str) -> jax.Array:
    """A bound of the largest singular value, (..., 1, 1); with "aol" one for every row of the wide
    X, (..., n, 1).
    """
    if normalize == "frobenius":
        return _root(jnp.trace(r, axis1=-2, axis2=-1).real[..., None, None])
    if normalize == "schatten":
        return _root(_length(r))
    if normalize == "aol":
        return _root(jnp.sum(jnp.abs(r), axis=-1, keepdims=True))
    bound, exponent = jnp.where(_length(r) == 0, 0, 1).astype(r.real.dtype), 0.5
    for squaring in range(SQUARINGS + 1):
        # Divided by its norm before every squaring: R³² alone would over- or underflow.
        size = _length(r)
        size = jnp.where(size == 0, 1, size)
        bound, exponent = bound * size**exponent, exponent / 2
        if squaring < SQUARINGS:
            r = (r / size) @ (r / size)
    return bound


def _length(x: jax.Array) -> jax.Array:
    return _root(jnp.sum(jnp.real(x * x.conj()), axis=(-2, -1), keepdims=True))


def _root(x: jax.Array) -> jax.Array:
    """√x, whose derivative at 0 is 0."""
    return jnp.where(x == 0, 0, sqrt(jnp.where(x == 0, 1, x)))


def exact_factor(x: jax.Array, method: str, steps: int | None = None) -> jax.Array:
    """The factor by LAPACK's decomposition: "svd" or "qr"."""
    if steps is not None:
        raise HyperparamError(
            f'orthogonalize: steps = {steps!r} has no meaning for "{method}", which takes none; '
            "leave it out"
        )
    if not is_wide(x):
        return adjoint(exact_factor(adjoint(x), method, steps))
    unit = max(x.shape[-2:]) * jnp.finfo(x.dtype).eps
    if method == "svd":
        u, s, v = svd(x)
        # ~(s <= ...), not s > ...: nan counts as nonzero, so that it shows in the result.
        nonzero = ~(s <= unit * s.max(axis=-1, keepdims=True, initial=0))
        return (u * nonzero[..., None, :].astype(u.dtype)) @ v
    q, r = qr(adjoint(x))
    diagonal = jnp.diagonal(r, axis1=-2, axis2=-1)
    sizes = jnp.abs(diagonal)
    nonzero = ~(sizes <= unit * sizes.max(axis=-1, keepdims=True, initial=0))
    # LAPACK's signs are arbitrary: a positive diagonal of R makes the factor continuous in X.
    phases = jnp.where(nonzero, diagonal / jnp.where(nonzero, sizes, 1).astype(r.dtype), 0)
    return adjoint(q * phases[..., None, :])
