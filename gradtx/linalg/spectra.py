r"""Spectra: functions of the singular values of a momentum, in the place of Muon's polar factor.

polar                 1                       every direction by the same amount
soft_polar            1 − α + α k σ           an affine blend, at the length of the polar factor
spectral_tilt         1 + d e + d(d−1)/2 e²   e = σ² − 1, d = p/2: Taylor's polynomial of σ^p

`spectral_clips.py` has those of signs, `iterate_sums.py` the powers and sums of your own.
"""

import functools
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import Interval, Numeric
from gradtx.linalg.newton_schulz import gram
from gradtx.linalg.spectrum import Relative, Scaled, Spectrum, identity, spectrum
from gradtx.tree import casts
from gradtx.tree.arithmetic import sqrt

Blend = Annotated[Numeric, Interval(-1.0, 1.0, low_open=True)]
"""A number in (-1, 1]."""
Exponent = Annotated[Numeric, Interval(-1.0, 1.0)]
"""A number in [-1, 1]."""


def _polar_exact(sigma: np.ndarray) -> np.ndarray:
    return np.where(sigma > 0, 1.0, 0.0)


@spectrum(_polar_exact)
def polar(scaled: Scaled) -> jax.Array:
    r"""The polar factor U Vᵀ: every singular value becomes 1, as in plain Muon.

    When: the default of `muon` and its kin; `spectrum=None` is the same.
    When not: small singular values are noise; `soft_polar` and `spectral_power` let them weigh
    less.

    >>> import gradtx, jax.numpy as jnp
    >>> gradtx.polar()(jnp.diag(jnp.array([3.0, -0.1])), method="svd").tolist()
    [[1.0, 0.0], [0.0, -1.0]]

    See also: `gradtx.linalg.orthogonalize`.
    """
    return scaled.polar()


@spectrum()
def soft_polar(
    scaled: Scaled, alpha: Blend = 0.2, *, normalize: Relative = "schatten"
) -> jax.Array:
    r"""Soft polar factor: a blend of Muon's factor with the momentum itself, at one length.

    B = (1 − α) O + α k U, then B ‖O‖ / ‖B‖. O is the polar factor of the momentum U, (n, m).
    "schatten": k = ‖O‖ / ‖U‖, and all norms are ‖X‖ = ‖X Xᵀ‖_F^(1/2), so that σ → 1 − α + α σ
    n^(1/4) / ‖σ‖₄. "spectral": k = 1 / σ_max, and B gets the Frobenius norm of O.

    α < 0 moves away from the momentum (contra-Muon): with "spectral", σ → 1 − c σ/σ_max times a
    constant, with c = −α / (1 − α); α = −0.25 is c = 0.2. α may be a schedule, from contra to soft.

    When: α = 0.2 late in training, or −0.25 → 0 early. When not: α < 0 with "schatten" and a
    momentum of low rank: the largest direction may turn around.

    Args:
      alpha: α in (−1, 1]; 0 is the polar factor, 1 the momentum; 0.2.
      normalize: "schatten" or "spectral"; the latter takes five products more.

    Raises:
      HyperparamError: α or `normalize` out of range.

    Products beyond those of O: 2 Gram matrices.

    >>> import gradtx, jax.numpy as jnp
    >>> x = jnp.diag(jnp.array([4.0, 2.0]))
    >>> soft = gradtx.soft_polar(0.2)(x, method="svd")
    >>> round(float(soft[0, 0] / soft[1, 1]), 3)  # 1 for Muon, 2 for the momentum
    1.128

    modded-nanogpt, pull requests 332 (soft), 275 and 291 (contra).
    """
    alpha = scaled.number(alpha, precise=True)
    factor, precise = scaled.polar(), casts.compute_dtype(scaled.x.dtype)
    o, u = factor.astype(precise), scaled.x.astype(precise)
    if normalize == "spectral":
        blend = (1 - alpha) * o + alpha * u
        return blend * _ratio(_frobenius(o), _frobenius(blend))
    four = _schatten(factor)
    ratio = _ratio(four, sqrt(_frobenius(scaled.gram.astype(precise))))
    blend = (1 - alpha) * o + (alpha * ratio) * u
    return blend * _ratio(four, _schatten(blend.astype(scaled.x.dtype)))


def _frobenius(x: jax.Array) -> jax.Array:
    return sqrt(jnp.sum(jnp.real(x * x.conj()), axis=(-2, -1), keepdims=True))


def _schatten(x: jax.Array) -> jax.Array:
    """‖X Xᵀ‖_F^(1/2)."""
    return sqrt(_frobenius(gram(x, casts.compute_dtype(x.dtype))))


def _ratio(above: jax.Array, below: jax.Array) -> jax.Array:
    """above / below; 0 for a zero matrix."""
    is_zero = below == 0
    return jnp.where(is_zero, 0, above / jnp.where(is_zero, 1, below))


def _tilt_exact(sigma: np.ndarray, exponent: float) -> np.ndarray:
    d, e = exponent / 2, sigma**2 - 1
    return np.where(sigma > 0, 1 + d * e + d * (d - 1) / 2 * e**2, 0)


@spectrum(_tilt_exact)
def spectral_tilt(
    scaled: Scaled, exponent: Exponent = 0.25, *, normalize: Relative = "schatten"
) -> jax.Array:
    r"""A tilt of the spectrum: the polar factor times Taylor's polynomial of σ^p.

    σ → 1 + d e + d (d − 1)/2 e², e = σ² − 1, d = p/2; σ relative to the norm. It is a mild tilt and
    not a power: small singular values get 1 − d + d (d − 1)/2, 0.82 for p = 0.25 and 1.195 for
    −0.25.

    When: with a schedule of p from 0.25 to −0.25 (DynMuon). When not: σ^p itself is needed; take
    `spectral_power`.

    Args:
      exponent: p in [−1, 1]; above 0 small singular values weigh less, below 0 more.
      normalize: the norm that σ is relative to: "schatten", ‖X Xᵀ‖_F^(1/2); "spectral", the largest
        singular value; "frobenius".

    Raises:
      HyperparamError: p or `normalize` out of range.

    Products beyond those of the polar factor: 2.

    >>> import gradtx
    >>> gradtx.spectral_tilt(0.25).exact([1e-9, 0.3, 1.0]).round(3).tolist()
    [0.82, 0.841, 1.0]

    arXiv 2605.17109; modded-nanogpt, pull request 304. Its factor ‖M‖^p is left out, so that the
    length does not depend on that of the gradient.
    """
    d = scaled.number(exponent) / 2
    e = scaled.gram - identity(scaled.gram)
    factor = scaled.polar()
    tilt = d * e + (d * (d - 1) / 2) * (e @ e)
    return factor + tilt @ factor


def spectrum_error(spectrum: Spectrum, interval: tuple[float, float] = (1e-3, 1.0)) -> float:
    """The largest error of a spectrum over an interval of relative singular values.

    max |f̂(σ) − f(σ)|: f̂ is what the matrix products compute in float32, or in float64 under x64,
    and f the exact function.

    Args:
      spectrum: any but `soft_polar`, whose error is (1 − α) times that of its polar factor.
      interval: the smallest and the largest σ relative to the norm, 0 < low ≤ high ≤ 1.

    Raises:
      HyperparamError: an empty interval, or a spectrum without a function of one singular value.

    >>> import gradtx
    >>> gradtx.linalg.spectrum_error(gradtx.spectral_power(0.25)) < 4.0e-4
    True

    See also: `worst_error`.
    """
    low, high = interval
    if not 0 < low <= high <= 1:
        raise HyperparamError(f"spectrum_error: interval = {interval!r} is not 0 < low ≤ high ≤ 1")
    sigma = np.union1d(np.geomspace(low, high, 20_001), np.linspace(low, high, 20_001))
    exact = spectrum.exact(sigma)
    values = None if spectrum.numbers is None else spectrum.numbers(0)
    run = jax.jit(functools.partial(_on_numbers, spectrum.form))
    return float(np.abs(np.asarray(run(jnp.asarray(sigma), values), np.float64) - exact).max())


def _on_numbers(form: Any, sigma: jax.Array, values: Any) -> jax.Array:
    """A spectrum on matrices of one entry, which is its singular value."""
    x = sigma[:, None, None]
    with casts.ALIKE:
        scaled = Scaled(x, x * x, jnp.ones_like(x), "polar_express", None)
        return form.evaluate(scaled, values)[:, 0, 0]
