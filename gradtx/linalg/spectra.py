r"""Spectra: functions of the singular values of a momentum, in the place of Muon's polar factor.

polar                 1                       every direction by the same amount
soft_polar            1 − α + α k σ           an affine blend, at the length of the polar factor
spectral_tilt         1 + d e + d(d−1)/2 e²   e = σ² − 1, d = p/2: Taylor's polynomial of σ^p
spectral_cap          min(σ, β)               by the sign of β − σ
spectral_clip         min(max(σ, a), b)       by the signs of a − σ and b − σ
spectral_contraction  σ / √(σ² + τ⁻²)         the polar factor of [X, I/τ], its first block
spectral_power        σ^p                     a sum over the iterates of Newton and Schulz
spectral_series       Σ c_i x_i(σ)            the same with coefficients of your own
"""

import functools
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import Check, Fraction, Interval, Numeric, Positive
from gradtx.linalg import newton_schulz
from gradtx.linalg.iterate_sums import LOWER, POWERS, iterates
from gradtx.linalg.newton_schulz import adjoint, gram
from gradtx.linalg.polar_express import Triple, polar_express_coefficients
from gradtx.linalg.presets import SETTLING, worst_error
from gradtx.linalg.spectrum import NORMS, Norm, Scaled, Spectrum, spectrum
from gradtx.tree import casts
from gradtx.tree.arithmetic import sqrt

Blend = Annotated[Numeric, Interval(-1.0, 1.0, low_open=True)]
"""A number in (-1, 1]."""
Exponent = Annotated[Numeric, Interval(-1.0, 1.0)]
"""A number in [-1, 1]."""


def _check_normalize(where: str, value: Any) -> None:
    if value is not None and value not in NORMS:
        raise HyperparamError(
            f"{where} = {value!r} is unknown; choose one of {', '.join(map(repr, NORMS))}"
        )


def _check_steps(where: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise HyperparamError(f"{where} = {value!r} is below 1, or not whole")


Steps = Annotated[int, Check(_check_steps)]
Relative = Annotated[Norm, Check(_check_normalize)]


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
    1.149

    modded-nanogpt, pull requests 332 (soft), 275 and 291 (contra).
    """
    factor, precise = scaled.polar(), casts.compute_dtype(scaled.x.dtype)
    o, u = factor.astype(precise), scaled.x.astype(precise)
    if normalize == "spectral":
        blend = (1 - alpha) * o + alpha * u
        return blend * _ratio(_frobenius(o), _frobenius(blend))
    four = _schatten(factor)
    ratio = _ratio(four, sqrt(_frobenius(scaled.gram.astype(precise))))
    blend = (1 - alpha) * o + (alpha * ratio) * u
    return blend * _ratio(four, _schatten(blend.astype(scaled.x.dtype)))


def _identity(like: jax.Array) -> jax.Array:
    """Identity matrices in the shape of others."""
    return jnp.broadcast_to(jnp.eye(like.shape[-1], dtype=like.dtype), like.shape)


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
    d = scaled.number(exponent / 2)
    e = scaled.gram - _identity(scaled.gram)
    factor = scaled.polar()
    tilt = d * e + (d * (d - 1) / 2) * (e @ e)
    return factor + tilt @ factor


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
    sign = _sign(at * _identity(symmetric) - symmetric, bound, steps)
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
    beta = scaled.number(beta / unit)
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
    low, high = scaled.number(low / unit), scaled.number(high / unit)
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
    floor = scaled.number(1 / (tau * _unit(scaled, normalize)))
    columns = scaled.x.shape[-1]
    block = floor * _identity(scaled.gram)
    size = sqrt(1 + floor * floor)
    both = jnp.concatenate([scaled.x, block], axis=-1) / size
    start = (scaled.gram + floor * block) / (size * size)
    return newton_schulz.compose(both, start, _sign_triples(steps), "plain")[..., :columns]


def _check_coefficients(where: str, value: Any) -> None:
    array = np.asarray(value, np.float64)
    if array.ndim != 1 or array.size < 2 or not np.isfinite(array).all():
        raise HyperparamError(
            f"{where} = {value!r} is not a sequence of at least two numbers: give c_0, ..., c_T"
        )


Series = Annotated[Sequence[float], Check(_check_coefficients)]


def _series_exact(sigma: np.ndarray, coefficients: Sequence[float]) -> np.ndarray:
    return iterates(sigma, len(coefficients) - 1) @ np.asarray(coefficients)


def _sum_iterates(scaled: Scaled, coefficients: Sequence[Any]) -> jax.Array:
    """Σ c_i X_i over the iterates of Newton and Schulz."""
    x, precise = scaled.x, casts.compute_dtype(scaled.x.dtype)
    total = coefficients[0] * x.astype(precise)
    for step, coefficient in enumerate(coefficients[1:]):
        x = newton_schulz.compose(x, gram(x) if step else scaled.gram, (SETTLING,), "plain")
        total = total + coefficient * x.astype(precise)
    return total


@spectrum(_series_exact, has_own=True)
def spectral_series(
    scaled: Scaled, coefficients: Series, *, normalize: Relative = "schatten"
) -> jax.Array:
    r"""A sum over Newton-Schulz iterates, with coefficients of your own.

    Σ c_i X_i, X_0 = X / ‖X‖, X_{i+1} = 2 X_i − 1.5 X_i X_iᵀ X_i + 0.5 (X_i X_iᵀ)² X_i.

    When: a function of singular values that `spectral_coefficients` fits. When not: a power; take
    `spectral_power`.

    Args:
      coefficients: c_0, ..., c_T; static.
      normalize: the norm that σ is relative to, as in `spectral_power`.

    Raises:
      HyperparamError: fewer than two coefficients, an unknown `normalize`.

    Products: 3 T, with T + 1 coefficients.

    >>> import gradtx, jax.numpy as jnp
    >>> mean = gradtx.spectral_series((0.5, 0.5))  # the mean of σ and 2 σ − 1.5 σ³ + 0.5 σ⁵
    >>> mean.exact([0.5, 1.0]).round(3).tolist()
    [0.664, 1.0]
    """
    return _sum_iterates(scaled, coefficients)


def _check_power(where: str, value: Any) -> None:
    if isinstance(value, int | float) and value < 0:
        raise HyperparamError(
            f"{where} = {value!r} is not defined at 0, where a matrix lacks a direction: take "
            "spectral_tilt, or soft_polar with alpha below 0"
        )
    if value not in POWERS:
        known = ", ".join(map(repr, POWERS))
        raise HyperparamError(
            f"{where} = {value!r} has no table; choose one of {known}, or take "
            "spectral_series(spectral_coefficients(lambda s: s**p)[0])"
        )


Power = Annotated[float, Check(_check_power)]


def _power_exact(sigma: np.ndarray, p: float, blend: float) -> np.ndarray:
    return (1 - blend) * (sigma > 0) + blend * sigma**p


@spectrum(_power_exact, has_own=True)
def spectral_power(
    scaled: Scaled, p: Power, blend: Fraction = 1.0, *, normalize: Relative = "schatten"
) -> jax.Array:
    r"""Power of singular values, σ^p, as a sum over Newton-Schulz iterates.

    Σ c_i X_i over twelve steps of 2 x − 1.5 x³ + 0.5 x⁵, with coefficients by a linear program for
    σ in [10⁻³, 1]; below, it falls to 0 with σ. With a blend b: 1 − b + b σ^p.

    ======  ==============
    p       largest error
    ======  ==============
    0.1     1.9e-4
    0.125   2.3e-4
    0.25    4.0e-4
    0.5     5.6e-4
    ======  ==============

    When: directions of small singular values are noise (HTMuon, p = 0.125); a blend from 0 to 0.8
    late in training (Muon to soft Muon). When not: twelve steps cost too much; `soft_polar` adds
    two products to Muon's five steps.

    Args:
      p: 0.1, 0.125, 0.25 or 0.5; static.
      blend: b in [0, 1]; 0 is the polar factor, 1 the power.
      normalize: the norm that σ is relative to: "schatten", ‖X Xᵀ‖_F^(1/2); "spectral", the largest
        singular value within 5 %, for five products more; "frobenius".

    Raises:
      HyperparamError: p without a table or below 0, b or `normalize` out of range.

    Products: 36.

    >>> import gradtx, jax.numpy as jnp
    >>> root = gradtx.spectral_power(0.5, normalize="spectral")
    >>> print(jnp.diag(root(jnp.diag(jnp.array([1.0, 0.25, 0.01])))).round(2))
    [1.  0.5 0.1]

    arXiv 2603.10067 (HTMuon); modded-nanogpt, pull request 291.
    """
    *coefficients, last = (blend * one for one in POWERS[p])
    return _sum_iterates(scaled, [*coefficients, last + (1 - blend)])


def spectrum_error(spectrum: Spectrum, interval: tuple[float, float] = (LOWER, 1.0)) -> float:
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
