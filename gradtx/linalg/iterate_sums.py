r"""Sums over the iterates of Newton and Schulz: coefficients of a spectrum, by a linear program.

x_0 = σ,   x_{i+1} = 2 x_i − 1.5 x_i³ + 0.5 x_i⁵
f(σ) ≈ Σ c_i x_i,   c = argmin of max |Σ c_i x_i − f(σ)| over σ in [ℓ, 1],   c ≥ 0
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import jax
import numpy as np

from gradtx.definition.errors import GradtxError, HyperparamError
from gradtx.definition.types import Check, Fraction
from gradtx.linalg import newton_schulz
from gradtx.linalg.newton_schulz import gram
from gradtx.linalg.polar_express import polynomial
from gradtx.linalg.presets import SETTLING
from gradtx.linalg.spectrum import Relative, Scaled, spectrum
from gradtx.tree import casts

STEPS, LOWER, POINTS = 12, 1e-3, 2000
POWERS: dict[float, tuple[float, ...]] = {
    0.1: (
        *(0.109644, 0.071225, 0.050421, 0.057251, 0.042278, 0.050286, 0.036),
        *(0.044517, 0.030619, 0.039282, 0.026157, 0.0, 0.442503),
    ),
    0.125: (
        *(0.136733, 0.085827, 0.059083, 0.066654, 0.047538, 0.056827, 0.03878),
        *(0.048914, 0.031484, 0.042134, 0.025245, 0.0, 0.361003),
    ),
    0.25: (
        *(0.270227, 0.140987, 0.083943, 0.092455, 0.05426, 0.068571, 0.034603),
        *(0.0522, 0.020673, 0.040928, 0.009061, 0.0, 0.132487),
    ),
    0.5: (
        *(0.527263, 0.172487, 0.074076, 0.08237, 0.027052, 0.049503, 0.00512),
        *(0.031705, 0.0, 0.015284, 0.0, 0.0, 0.015696),
    ),
}
"""Coefficients of σ^p on [10⁻³, 1] after twelve steps: `spectral_coefficients`, to six decimals."""


def iterates(sigma: np.ndarray, steps: int) -> np.ndarray:
    """The iterates x_0, ..., x_T of singular values, along a new last axis."""
    columns: list[Any] = [np.asarray(sigma, np.float64)]
    for _ in range(steps):
        columns.append(polynomial(SETTLING, columns[-1]))
    return np.stack(columns, axis=-1)


def spectral_coefficients(
    function: Callable[[np.ndarray], Any], lower: float = LOWER, steps: int = STEPS
) -> tuple[tuple[float, ...], float]:
    """Compute the coefficients of a spectrum as a sum over Newton-Schulz iterates.

    f(σ) ≈ Σ c_i x_i with x_0 = σ and x_{i+1} = 2 x_i − 1.5 x_i³ + 0.5 x_i⁵. The linear program
    minimises the largest error on 2,000 points of [ℓ, 1], evenly in log σ, subject to c_i ≥ 0:
    coefficients of both signs are large, and products in 16 bits cannot carry them.

    When: once, offline, for `spectral_series`. When not: f decreases, or exceeds its concave hull:
    the returned error is then large; an affine blend is `soft_polar`, and a clip `spectral_clip`.

    Args:
      function: f, of a NumPy array of singular values in [0, 1]; f(0) must be finite.
      lower: ℓ in (0, 1), the smallest singular value that matters, relative to the largest.
      steps: T ≥ 1; 12 reach 10⁻³ as the smallest.

    Returns:
      The coefficients c_0, ..., c_T, and the largest error |Σ c_i x_i − f(σ)| on [ℓ, 1].

    Raises:
      HyperparamError: f is not finite at 0 or on [ℓ, 1], a number out of its range.
      GradtxError: SciPy is not installed.

    >>> from gradtx.linalg import spectral_coefficients
    >>> coefficients, error = spectral_coefficients(lambda sigma: sigma**0.5)
    >>> len(coefficients), round(error, 5)
    (13, 0.00055)
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise HyperparamError(f"spectral_coefficients: steps = {steps!r} is below 1, or not whole")
    if not 0 < lower < 1:
        raise HyperparamError(f"spectral_coefficients: lower = {lower!r} is outside (0, 1)")
    sigma = np.geomspace(lower, 1.0, POINTS)
    _check_function(function, sigma)
    basis, target = iterates(sigma, steps), np.broadcast_to(function(sigma), sigma.shape)
    coefficients = _solve(basis, np.asarray(target, np.float64))
    return coefficients, series_error(coefficients, function, lower)


def series_error(
    coefficients: Sequence[float], function: Callable[[np.ndarray], Any], lower: float = LOWER
) -> float:
    """The largest |Σ c_i x_i − f(σ)| over σ in [ℓ, 1]."""
    # Ten times as many points as the program had: the error between its points counts too.
    sigma = np.geomspace(lower, 1.0, 10 * POINTS)
    sums = iterates(sigma, len(coefficients) - 1) @ np.asarray(coefficients)
    return float(np.abs(sums - function(sigma)).max())


def _check_function(function: Callable[[np.ndarray], Any], sigma: np.ndarray) -> None:
    with np.errstate(all="ignore"):
        at_zero = np.asarray(function(np.zeros(1)), np.float64).ravel()[0]
        values = np.asarray(function(sigma), np.float64)
    if not np.isfinite(at_zero):
        raise HyperparamError(
            f"spectral_coefficients: f(0) = {at_zero}, and a spectrum must be defined at 0, where "
            "a matrix lacks a direction: give f a floor, lambda s: np.maximum(s, 0.01) ** p"
        )
    if not np.isfinite(values).all():
        where = float(sigma[~np.isfinite(np.broadcast_to(values, sigma.shape))][0])
        raise HyperparamError(
            f"spectral_coefficients: f({where:g}) is not finite; f must be defined on [lower, 1]"
        )


def _solve(basis: np.ndarray, target: np.ndarray) -> tuple[float, ...]:
    """Minimise e subject to |basis c − target| ≤ e and c ≥ 0."""
    try:
        from scipy.optimize import linprog
    except ImportError:
        raise GradtxError(
            "spectral_coefficients solves a linear program with SciPy, which is not installed: "
            "pip install scipy"
        ) from None
    ones, count = np.ones((basis.shape[0], 1)), basis.shape[1]
    matrix = np.block([[basis, -ones], [-basis, -ones]])
    cost = np.r_[np.zeros(count), 1.0]
    bounds = [(0, None)] * (count + 1)
    solution = linprog(cost, matrix, np.r_[target, -target], bounds=bounds, method="highs")
    return tuple(solution.x[:-1].tolist())


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
    >>> [round(float(one), 2) for one in jnp.diag(root(jnp.diag(jnp.array([1.0, 0.25, 0.01]))))]
    [1.0, 0.5, 0.1]

    arXiv 2603.10067 (HTMuon); modded-nanogpt, pull request 291.
    """
    blend = scaled.number(blend, precise=True)
    *coefficients, last = (blend * one for one in POWERS[p])
    return _sum_iterates(scaled, [*coefficients, last + (1 - blend)])
