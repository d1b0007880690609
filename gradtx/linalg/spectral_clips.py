r"""Spectra by sign algebra: clips of singular values, and a contraction.

spectral_cap          min(σ, β)            ½ (β + σ − |β − σ|)
spectral_clip         min(max(σ, a), b)    ½ (a + b + |a − σ| − |b − σ|)
spectral_contraction  σ / √(σ² + τ⁻²)      the polar factor of [X, I/τ], its first block

|c − Σ| = msign(c I − X Oᵀ) (c O − X),   O = msign(X)
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import Positive
from gradtx.linalg import newton_schulz
from gradtx.linalg.newton_schulz import adjoint, gram
from gradtx.linalg.polar_express import Triple, polar_express_coefficients
from gradtx.linalg.presets import worst_error
from gradtx.linalg.spectrum import Relative, Scaled, Steps, identity, spectrum
from gradtx.tree.arithmetic import sqrt


def _sign_triples(steps: int) -> tuple[Triple, ...]:
    return polar_express_coefficients(steps, cushion=0.02, safety=0.02)


@functools.lru_cache(maxsize=64)
def _largest(steps: int) -> float:
    """The largest singular value that a sign may have, with 2 % for rounding."""
    return 1.02 * (1 + worst_error(_sign_triples(steps)))


def _sign(x: jax.Array, bound: jax.Array, steps: int) -> jax.Array:
    """msign(X) of a matrix whose singular values are at most `bound`."""
    x = x / bound
    return newton_schulz.compose(x, gram(x), _sign_triples(steps), "plain")


def _distance(scaled: Scaled, factor: jax.Array, symmetric: jax.Array, at: jax.Array, steps: int):
    """Σ |c − σ| u vᵀ for a number c, by the sign of the symmetric matrix c − X Oᴴ."""
    # |c − σ| is at most c or 1 − c, and more where O is inexact: polynomials grow above 1.
    bound = jnp.maximum(1.02 * at, _largest(steps) - at)
    sign = _sign(at * identity(symmetric) - symmetric, bound, steps)
    return sign @ (at * factor - scaled.x)


def _polar_parts(scaled: Scaled, steps: int) -> tuple[jax.Array, jax.Array]:
    """The polar factor O of X, and the symmetric X Oᴴ."""
    factor = newton_schulz.compose(scaled.x, scaled.gram, _sign_triples(steps), "plain")
    return factor, scaled.x @ adjoint(factor)


def _unit(scaled: Scaled, normalize: str | None) -> jax.Array | float:
    """The size of 1 in the scaled matrix: 1 where numbers are relative to the norm."""
    return 1.0 if normalize is not None else scaled.unit


def _cap_exact(sigma: np.ndarray, beta: float) -> np.ndarray:
    return np.minimum(sigma, beta)


@spectrum(_cap_exact, has_own=True)
def spectral_cap(
    scaled: Scaled, beta: Positive, *, steps: Steps = 8, normalize: Relative | None = "schatten"
) -> jax.Array:
    r"""Hard cap of singular values: min(σ, β).

    ½ [β O + X − |β − Σ|], where |β − Σ| = msign(β I − X Oᵀ) (β O − X) and O = msign(X).

    When: bounds on a gradient (`normalize=None`, β in its own units) or on weights; an update whose
    large directions are even and whose small ones stay small. When not: a smooth function will do;
    `spectral_contraction` takes one sign in the place of two.

    Args:
      beta: β > 0, relative to the norm; with None in the units of the matrix.
      steps: Polar Express steps for each sign; 8. With 5 the error is 0.05 to 0.12.
      normalize: the norm that β is relative to, and that the result is divided by; None: none.

    Raises:
      HyperparamError: β, `steps` or `normalize` out of range.

    Products: 6 T + 2, with T steps.

    >>> import gradtx, jax.numpy as jnp
    >>> cap = gradtx.spectral_cap(1.0, normalize=None)
    >>> jnp.diag(cap(jnp.diag(jnp.array([9.0, 1.5, 0.5])))).round(2).tolist()
    [1.0, 1.0, 0.5]

    NVIDIA Emerging-Optimizers, spectral clipping; arXiv 2605.11838 for gradients.
    """
    unit = _unit(scaled, normalize)
    beta = scaled.number(beta) / unit
    factor, symmetric = _polar_parts(scaled, steps)
    distance = _distance(scaled, factor, symmetric, beta, steps)
    return unit * ((beta * factor + scaled.x - distance) / 2)


def _clip_exact(sigma: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.where(sigma > 0, np.clip(sigma, low, high), 0)


def _check_clip(low: Any, high: Any, steps: int, normalize: str | None) -> None:
    if all(isinstance(one, int | float | np.generic) for one in (low, high)) and low > high:
        raise HyperparamError(
            f"spectral_clip: low = {low!r} is above high = {high!r}; give low ≤ high"
        )


@spectrum(_clip_exact, check=_check_clip, has_own=True)
def spectral_clip(
    scaled: Scaled,
    low: Positive,
    high: Positive,
    *,
    steps: Steps = 8,
    normalize: Relative | None = "schatten",
) -> jax.Array:
    r"""Clip of singular values to an interval: min(max(σ, a), b).

    ½ [(a + b) O + |a − Σ| − |b − Σ|], with |c − Σ| as in `spectral_cap`. A direction that the
    matrix does not have stays 0.

    When: the condition of an update is bounded by b/a, in the place of 1 for Muon. When not: only
    large singular values matter; `spectral_cap` takes one sign less.

    Args:
      low: a > 0, relative to the norm; with None in the units of the matrix.
      high: b ≥ a.
      steps: Polar Express steps for each sign; 8.
      normalize: the norm that a and b are relative to, and that the result is divided by; None:
        none.

    Raises:
      HyperparamError: a > b, a number out of its range.

    Products: 9 T + 3, with T steps.

    >>> import gradtx, jax.numpy as jnp
    >>> clip = gradtx.spectral_clip(1.0, 2.0, normalize=None)
    >>> jnp.diag(clip(jnp.diag(jnp.array([9.0, 1.5, 0.5])))).round(2).tolist()
    [2.0, 1.5, 1.0]

    NVIDIA Emerging-Optimizers, spectral clipping.
    """
    unit = _unit(scaled, normalize)
    low, high = scaled.number(low) / unit, scaled.number(high) / unit
    factor, symmetric = _polar_parts(scaled, steps)
    below = _distance(scaled, factor, symmetric, low, steps)
    above = _distance(scaled, factor, symmetric, high, steps)
    return unit * (((low + high) * factor + below - above) / 2)


def _contraction_exact(sigma: np.ndarray, tau: float) -> np.ndarray:
    return sigma / np.sqrt(sigma**2 + tau**-2)


@spectrum(_contraction_exact, has_own=True)
def spectral_contraction(
    scaled: Scaled, tau: Positive, *, steps: Steps = 8, normalize: Relative | None = "schatten"
) -> jax.Array:
    r"""Contraction of singular values: σ / √(σ² + τ⁻²), a smooth polar factor.

    It is the first block of the polar factor of [X, I/τ], whose singular values are at least 1/τ:
    one sign, which converges for every X. Large singular values become 1, small ones τ σ.

    When: SoftMuon's direction; with the factor c = 1/τ it is the soft clip c σ / √(σ² + c²) of
    SPECTRA. When not: τ above 1,000: take `polar`.

    Args:
      tau: τ > 0, relative to one over the norm; with None in one over the units of the matrix.
      steps: Polar Express steps; 8 reach τ = 1,000.
      normalize: the norm that σ is relative to; None: none. The result is in (0, 1) with any.

    Raises:
      HyperparamError: τ, `steps` or `normalize` out of range.

    Products: 3 T, with T steps, on (n, m + n).

    >>> import gradtx, jax.numpy as jnp
    >>> soft = gradtx.spectral_contraction(2.0, normalize=None)
    >>> print(jnp.diag(soft(jnp.diag(jnp.array([9.0, 0.5])))).round(3))
    [0.998 0.707]

    arXiv 2605.31371 (SoftMuon); arXiv 2603.14315 (SPECTRA).
    """
    floor = 1 / (scaled.number(tau) * _unit(scaled, normalize))
    columns = scaled.x.shape[-1]
    block = floor * identity(scaled.gram)
    size = sqrt(1 + floor * floor)
    both = jnp.concatenate([scaled.x, block], axis=-1) / size
    start = (scaled.gram + floor * block) / (size * size)
    return newton_schulz.compose(both, start, _sign_triples(steps), "plain")[..., :columns]
