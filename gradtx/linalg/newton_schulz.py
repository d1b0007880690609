r"""Odd polynomials of the singular values by matrix products alone, in two forms that agree but for rounding.

X is n × m with n ≤ m and singular values in [0, 1];   p(x) = a x + b x³ + c x⁵
plain   A = X Xᵀ,   X ← a X + (b A + c A²) X
Gram    R = X Xᵀ, Q = I;   Z = b R + c R²,   Q ← Q (a + Z),   R ← (a + Z) R (a + Z);   X ← Q X after a few steps

Flops: plain (4 m/n + 2) n³ a step, Gram (4 m/n + 8 k − 6) n³ for k steps between two touches of X. Both cost the same at m = 1.5 n, however
many steps there are and wherever they are cut.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from gradtx.linalg.polar_express import Triple

BREAK_EVEN = 1.5
"""Columns per row from which on the Gram form takes fewer flops."""

FIRST, EXACT, ROUNDED = 2, 3, 2
"""Steps on one Gram matrix: at first, when X is at its worst; later, with products in float32; later, with rounded ones."""


def adjoint(x: jax.Array) -> jax.Array:
    return x.mT.conj() if jnp.iscomplexobj(x) else x.mT


def plain(x: jax.Array, coefficients: Sequence[Triple]) -> jax.Array:
    """Σ p(σ) u vᵀ, each step with two products that have X as a factor."""
    for a, b, c in coefficients:
        x = a * x + _even(x @ adjoint(x), b, c) @ x
    return x


def gram(x: jax.Array, coefficients: Sequence[Triple]) -> jax.Array:
    """Σ p(σ) u vᵀ, a few steps at a time on the Gram matrix.

    Rounding makes small eigenvalues of R negative, and every step multiplies them by about a²: three steps are too many where products are
    rounded to 16 or 19 bits, as accelerators do with float32 unless `jax.default_matmul_precision` says otherwise.
    """
    if x.dtype.itemsize < 4:
        return _gram(x, coefficients, ROUNDED)
    if jnp.finfo(x.dtype).bits > 32:
        return _gram(x, coefficients, EXACT)
    return jax.lax.platform_dependent(x, cpu=lambda x: _gram(x, coefficients, EXACT), default=lambda x: _gram(x, coefficients, ROUNDED))


def _gram(x: jax.Array, coefficients: Sequence[Triple], size: int) -> jax.Array:
    start = 0
    for stop in cuts(len(coefficients), size):
        x = _factor(x @ adjoint(x), tuple(coefficients[start:stop])) @ x
        start = stop
    return x


def cuts(steps: int, size: int) -> list[int]:
    """The steps after which X is touched."""
    return [*range(FIRST, steps, size), steps]


@functools.partial(jax.jit, static_argnums=1)
def _factor(r: jax.Array, coefficients: tuple[Triple, ...]) -> jax.Array:
    """Q with Q X = p(X), from R = X Xᵀ; jitted, so that matrices with as many rows share its trace."""
    q = jnp.broadcast_to(jnp.eye(r.shape[-1], dtype=r.dtype), r.shape)
    for step, (a, b, c) in enumerate(coefficients):
        z = _even(r, b, c)
        q = a * q + (q @ z if step else z)
        if step < len(coefficients) - 1:
            half = a * r + r @ z
            r = a * half + z @ half
    return q


def _even(gram: jax.Array, b: float, c: float) -> jax.Array:
    """b A + c A²; no product where c is 0."""
    return b * gram + c * (gram @ gram) if c else b * gram
