r"""Newton-Schulz iteration: odd polynomials of the singular values by matrix products alone, a few
steps at a time on one Gram matrix.

X is n × m with n ≤ m and singular values in [0, 1];   p(x) = a x + b x³ + c x⁵
R = X Xᵀ, Q = 0, l = 1
Z = b R + c R²,   Q ← a Q + l Z + Q Z,   l ← a l,   R ← (a + Z) R (a + Z)      k times
X ← l X + Q X

With k = 1 this is the plain form, X ← a X + (b R + c R²) X; with more the Gram form. Q does not
hold the identity, so that the multiple of X is not rounded. A tall X is multiplied from the right,
and nothing is transposed.

Flops: (4 m/n + 8 k − 6) n³ for k steps between two products with X. One step or many cost the same
at m = 1.5 n for every k.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from gradtx.linalg.polar_express import Triple

BREAK_EVEN = 1.5
"""Columns per row above which many steps on one Gram matrix take fewer flops than one."""

FIRST, EXACT, ROUNDED = 2, 3, 2
"""Steps on one Gram matrix: the first time, when X is at its worst; later, with products in
float32; later, with rounded products.
"""


def adjoint(x: jax.Array) -> jax.Array:
    """The conjugate transpose."""
    return x.mT.conj() if jnp.iscomplexobj(x) else x.mT


def is_wide(x: jax.Array) -> bool:
    """Whether a matrix has at least as many columns as rows."""
    return x.shape[-2] <= x.shape[-1]


def gram(x: jax.Array, dtype: jnp.dtype | None = None) -> jax.Array:
    """X Xᵀ or Xᵀ X, the smaller one."""
    side = x if is_wide(x) else adjoint(x)
    return jnp.matmul(side, adjoint(side), preferred_element_type=dtype)


def is_gram(form: str, x: jax.Array) -> bool:
    """Whether a Gram matrix serves more than one step."""
    # 16 bits are too few: the Gram form overshoots there.
    short, long = sorted(x.shape[-2:])
    return form == "gram" or (
        form == "auto" and x.dtype.itemsize >= 4 and long > BREAK_EVEN * short
    )


def cuts(steps: int, first: int, later: int) -> tuple[int, ...]:
    """The steps after which X is multiplied."""
    return (*range(first, steps, later), steps)


def compose(x: jax.Array, first: jax.Array, coefficients: Sequence[Triple], form: str) -> jax.Array:
    """Σ p(σ) u vᵀ of X and its Gram matrix.

    Rounding makes small eigenvalues of R negative, and every step multiplies them by about a².
    Three steps are too many where products are rounded to 16 or 19 bits. Accelerators round float32
    so, unless `jax.default_matmul_precision` forbids it.
    """
    steps = len(coefficients)
    plain, exact, rounded = (
        cuts(steps, 1, 1),
        cuts(steps, FIRST, EXACT),
        cuts(steps, FIRST, ROUNDED),
    )
    if not is_gram(form, x) or steps == 1:
        return _compose(x, first, coefficients, plain)
    if x.dtype.itemsize < 4 or exact == rounded:
        return _compose(x, first, coefficients, rounded)
    if jnp.finfo(x.dtype).bits > 32:
        return _compose(x, first, coefficients, exact)
    return jax.lax.platform_dependent(
        x,
        first,
        cpu=functools.partial(_compose, coefficients=coefficients, stops=exact),
        default=functools.partial(_compose, coefficients=coefficients, stops=rounded),
    )


def _compose(
    x: jax.Array, first: jax.Array, coefficients: Sequence[Triple], stops: Sequence[int]
) -> jax.Array:
    start = 0
    for stop in stops:
        r = gram(x) if start else first
        q = _factor(r, tuple(coefficients[start:stop]))
        x = _lead(coefficients[start:stop]) * x + (q @ x if is_wide(x) else x @ q)
        start = stop
    return x


def _lead(coefficients: Sequence[Triple]) -> float:
    """l of l X + Q X = p(X)."""
    return math.prod(a for a, _, _ in coefficients)


@functools.partial(jax.jit, static_argnums=1)
def _factor(r: jax.Array, coefficients: tuple[Triple, ...]) -> jax.Array:
    """Q of l X + Q X = p(X), from R = X Xᵀ."""
    # Jitted: all matrices with the same number of rows share one trace.
    a, b, c = coefficients[0]
    q = z = _even(r, b, c)
    for step in range(1, len(coefficients)):
        half = a * r + r @ z  # (a + Z) R (a + Z), without adding a to the diagonal of Z
        r = a * half + z @ half
        a, b, c = coefficients[step]
        z = _even(r, b, c)
        q = a * q + _lead(coefficients[:step]) * z + q @ z
    return q


def _even(gram: jax.Array, b: float, c: float) -> jax.Array:
    """b R + c R²; a cubic, with c = 0, needs no product."""
    return b * gram + c * (gram @ gram) if c else b * gram
