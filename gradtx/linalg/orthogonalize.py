r"""The nearest matrix with orthonormal rows or columns: every singular value becomes 1, or nearly.

O = U Vᵀ   of   X = U Σ Vᵀ,   or U p(Σ/‖X‖_F) Vᵀ with an odd polynomial p that is near 1 on [10⁻³, 1]
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import ArrayLike, DTypeLike
from gradtx.linalg import newton_schulz
from gradtx.linalg.checks import matrices
from gradtx.linalg.decompositions import qr, svd
from gradtx.linalg.newton_schulz import adjoint, is_wide
from gradtx.linalg.polar_express import Triple
from gradtx.linalg.presets import PRESETS, SPELLINGS, coefficients_of
from gradtx.tree import casts

EXACT = ("svd", "qr")
FORMS = ("auto", "plain", "gram")
NORMALIZE = ("frobenius", "schatten", "aol", "spectral")
SQUARINGS = 5
"""Of the Gram matrix, for a bound of the largest singular value: by n^(1/128) too large at most, 5
% with 512 rows, and never too small.
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
    """The orthogonal factor of a matrix, its singular values brought to 1: O = U p(Σ / (margin
    ‖X‖_F + ε)) Vᵀ of X = U Σ Vᵀ.

    X is (..., n, m), each matrix for itself; p composes T odd quintics p_t(x) = a x + b x³ + c x⁵,
    by matrix products alone. A zero matrix gives zero, a direction of singular value 0 stays 0, and
    nan stays in its matrix.

    The worst |1 − p(σ)| over [10⁻³, 1], the relative singular values that a preset is made for
    (`worst_error` computes it)::

        preset            steps   worst
        "polar_express"   5       0.141
        "jordan"          5       0.529
        "you"             5       0.525
        "cans"            5       0.120
        "deepseek"        10      0.001

    When: the direction of Muon and its kin. "polar_express" is the best of five steps that bears
    rounded products; "you" is nearer to 1 for well-conditioned matrices; "deepseek" is precise at
    twice the cost; "cans" only with products in float32, since its values grow without bound once
    rounding pushes one above its interval. When not: the exact factor is wanted; take "svd", which
    is slow on accelerators.

    With "svd" directions of singular values below max(n, m) times the rounding unit become 0; it
    has no derivative where singular values are equal or 0, which the polynomials have. "qr" is
    another matrix: its vectors along the shorter axis are orthonormal too, but by the method of
    Gram and Schmidt.

    Args:
      x: X, real or complex, at least two axes.
      method: a preset, "svd", "qr", or triples (a, b, c) of your own, as from
        `polar_express_coefficients`; one triple is repeated. Optax's "standard" and "dion" are
        "jordan" and "you".
      steps: T ≥ 1. "polar_express" is made for any number, "jordan" repeats, "deepseek" ends with
        its last two; a table is cut, or goes on with (15/8, −5/4, 3/8).
      form: how the products are arranged. "gram" works on the smaller Gram matrix, "plain" on X;
        "auto" takes the cheaper, that is "gram" from 1.5 columns per row (or rows per column) on,
        and always "plain" in 16 bits, where "gram" overshoots.
      compute_dtype: of the products; None is X's own, float32 at least; bfloat16 costs less on
        accelerators. The norm is float32 at least.
      eps: ε ≥ 0, keeps matrices near zero small; 10⁻⁷.
      margin: ≥ 1, divides X further; 1.02 where the coefficients have no safety of their own and
        products are rounded.
      normalize: what brings the singular values into [0, 1]. "frobenius": ‖X‖_F. "schatten": ‖X
        Xᵀ‖_F^(1/2), which is less, so that the polynomials start higher. "aol": row i of the wide X
        by (Σ_j |X Xᵀ|_ij)^(1/2), no norm at all; the factor is then that of the scaled matrix.
        "spectral": a bound of the largest singular value, ‖(X Xᵀ)³²‖_F^(1/64), which is above it by
        5 % at most up to 512 rows; five products of the shorter side.

    Raises:
      HyperparamError: an unknown method or form, steps below 1, margin below 1, "cans" in 16 bits.
      StructureError: no matrix, or integers.

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
                f"orthogonalize: {name} = {value!r} is unknown; choose one of {', '.join(map(repr, known))}"
            )
    if not margin >= 1:
        raise HyperparamError(
            f"orthogonalize: margin = {margin!r} is below 1: singular values above the interval of the polynomials grow"
        )
    dtype = _dtype(array, compute_dtype)
    if isinstance(method, str) and method in EXACT:
        return _exact(array.astype(jnp.promote_types(dtype, jnp.float32)), method, steps).astype(
            array.dtype
        )
    triples = _coefficients(method, steps, dtype)
    start, first = _normalized(
        array.astype(jnp.promote_types(dtype, casts.compute_dtype(array.dtype))),
        dtype,
        normalize,
        eps,
        margin,
    )
    return newton_schulz.compose(start, first, triples, form).astype(array.dtype)


def _dtype(array: jax.Array, asked: DTypeLike | None) -> jnp.dtype:
    """The dtype of the products."""
    if asked is None:
        return casts.compute_dtype(array.dtype)
    if not casts.is_inexact_dtype(jnp.dtype(asked)):
        raise HyperparamError(
            f"orthogonalize: compute_dtype = {jnp.dtype(asked)} is not a floating-point dtype"
        )
    return jnp.promote_types(asked, jnp.complex64) if jnp.iscomplexobj(array) else jnp.dtype(asked)


def _coefficients(
    method: str | Sequence[Triple] | Triple, steps: int | None, dtype: jnp.dtype
) -> tuple[Triple, ...]:
    if isinstance(method, str) and method not in {*PRESETS, *SPELLINGS}:
        known = ", ".join(map(repr, (*PRESETS, *EXACT)))
        raise HyperparamError(
            f"orthogonalize: method = {method!r} is unknown; choose one of {known}, or give triples (a, b, c)"
        )
    if isinstance(method, str) and method == "cans" and dtype.itemsize < 4:
        raise HyperparamError(
            f'orthogonalize: "cans" is not stable in {dtype}; compute in float32, or take "polar_express"'
        )
    return coefficients_of(method, steps)


def _normalized(
    x: jax.Array, dtype: jnp.dtype, how: str, eps: ArrayLike, margin: float
) -> tuple[jax.Array, jax.Array]:
    """X / (margin ‖X‖ + ε) and its Gram matrix, without overflow where squares of X have one."""
    peak = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=(-2, -1), keepdims=True, initial=0))
    x, peak = jax.lax.optimization_barrier(
        (x, peak)
    )  # or a compiler makes X anew, from all that it came from, wherever it is multiplied
    scale = jnp.where(peak > 0, peak, 1)
    x = x / scale
    factor, r = _scaled(
        newton_schulz.gram(x.astype(dtype), jnp.promote_types(dtype, jnp.float32)),
        eps / scale,
        margin,
        how,
    )
    x = x * (factor if is_wide(x) else factor.mT)
    return x.astype(dtype), r.astype(dtype)


@functools.partial(jax.jit, static_argnames="how")
def _scaled(
    r: jax.Array, eps: jax.Array, margin: ArrayLike, how: str
) -> tuple[jax.Array, jax.Array]:
    """What the wide X is multiplied by, and its Gram matrix after that; jitted, so that matrices
    with as many rows share its trace.
    """
    size = margin * _norm(r, how) + eps
    factor = (1 / jnp.where(size == 0, 1, size)).astype(r.dtype)
    return factor, r * factor * factor.mT


def _norm(r: jax.Array, how: str) -> jax.Array:
    """A bound of the largest singular value, (..., 1, 1), or one for every row of the wide X, (...,
    n, 1).
    """
    if how == "frobenius":
        return _root(jnp.trace(r, axis1=-2, axis2=-1).real[..., None, None])
    if how == "schatten":
        return _root(_length(r))
    if how == "aol":
        return _root(jnp.sum(jnp.abs(r), axis=-1, keepdims=True))
    bound, share = jnp.where(_length(r) == 0, 0, 1).astype(r.real.dtype), 0.5
    for squaring in range(SQUARINGS + 1):
        size = _length(r)
        size = jnp.where(size == 0, 1, size)
        bound, share = bound * size**share, share / 2
        if squaring < SQUARINGS:
            r = (r / size) @ (r / size)
    return bound


def _length(x: jax.Array) -> jax.Array:
    return _root(jnp.sum(jnp.real(x * x.conj()), axis=(-2, -1), keepdims=True))


def _root(x: jax.Array) -> jax.Array:
    """√x, whose derivative at 0 is 0."""
    return jnp.where(x == 0, 0, jnp.sqrt(jnp.where(x == 0, 1, x)))


def _exact(x: jax.Array, method: str, steps: int | None) -> jax.Array:
    if steps is not None:
        raise HyperparamError(
            f'orthogonalize: steps = {steps!r} says nothing to "{method}", which takes none; leave it out'
        )
    if not is_wide(x):
        return adjoint(_exact(adjoint(x), method, steps))
    unit = max(x.shape[-2:]) * jnp.finfo(x.dtype).eps
    if method == "svd":
        u, s, v = svd(x)
        kept = ~(s <= unit * s.max(axis=-1, keepdims=True, initial=0))
        return (u * kept[..., None, :]) @ v
    q, r = qr(adjoint(x))
    diagonal = jnp.diagonal(r, axis1=-2, axis2=-1)
    sizes = jnp.abs(diagonal)
    kept = ~(sizes <= unit * sizes.max(axis=-1, keepdims=True, initial=0))
    phases = jnp.where(kept, diagonal / jnp.where(kept, sizes, 1), 0)
    return adjoint(q * phases[..., None, :])
