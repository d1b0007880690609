r"""Polar Express: quintics whose composition brings singular values in [ℓ, 1] as near to 1 as
quintics can.

p_t = argmin over odd quintics of max |1 − p(x)| on [ℓ_t, u_t]      ℓ_1 = ℓ, u_1 = 1
ℓ_{t+1} = p_t(ℓ_t),   u_{t+1} = 2 − ℓ_{t+1}
"""

import functools
import math

import numpy as np

from gradtx.definition.errors import HyperparamError

Triple = tuple[float, float, float]

CLASSIC: Triple = (15 / 8, -10 / 8, 3 / 8)
"""The quintic of third order at 1: the limit of the best one as its interval shrinks to a point."""


def polynomial(triple: Triple, x: float) -> float:
    """p(x) = a x + b x³ + c x⁵."""
    a, b, c = triple
    return a * x + b * x**3 + c * x**5


def rescale(triple: Triple, inside: float = 1.0, outside: float = 1.0) -> Triple:
    """The coefficients of `outside` · p(`inside` · x)."""
    a, b, c = triple
    return (outside * a * inside, outside * b * inside**3, outside * c * inside**5)


def best_quintic(low: float, high: float) -> Triple:
    """The odd quintic nearest to 1 on [low, high], by Remez' exchange.

    Its errors alternate at four points.
    """
    # On so short an interval the system of equations is singular to rounding.
    if low > (1 - 5e-6) * high:
        return rescale(CLASSIC, inside=1 / high)
    inner = ((3 * low + high) / 4, (low + 3 * high) / 4)
    a, b, c, error = math.nan, math.nan, math.nan, math.inf
    for _ in range(100):
        points = np.array([low, *inner, high])
        signs = np.array([1.0, -1.0, 1.0, -1.0])
        a, b, c, new_error = np.linalg.solve(
            np.stack([points, points**3, points**5, signs], axis=1), np.ones(4)
        ).tolist()
        # The extrema of p are the roots of a + 3 b x² + 5 c x⁴.
        root = math.sqrt(9 * b * b - 20 * a * c)
        inner = (math.sqrt((-3 * b - root) / (10 * c)), math.sqrt((-3 * b + root) / (10 * c)))
        if abs(new_error - error) <= 1e-15:
            break
        error = new_error
    return (a, b, c)


@functools.lru_cache(maxsize=64)
def polar_express_coefficients(
    steps: int = 5,
    lower: float = 1e-3,
    *,
    cushion: float = 0.02407327424182761,
    safety: float = 0.0,
) -> tuple[Triple, ...]:
    """Compute the Polar Express coefficients (a, b, c) for an orthogonal factor.

    p_t minimises max |1 − p(x)| over [ℓ_t, u_t]. Here ℓ_{t+1} = p_t(ℓ_t) and u_{t+1} = 2 − ℓ_{t+1},
    from ℓ_1 = `lower` and u_1 = 1. The fit is over [max(ℓ_t, cushion · u_t), u_t], and the quintic
    is then scaled so that p_t(ℓ_t) + p_t(u_t) = 2.

    When: as `method` of `orthogonalize`, for another number of steps or another smallest singular
    value than its presets have.
    When not: the matrices are well conditioned; the preset "you" is nearer to 1 there.

    Args:
      steps: the number of quintics, 1 or more; 5 is common.
      lower: ℓ in (0, 1), the smallest singular value, relative to the Frobenius norm, that should
        come near 1.
      cushion: in [0, 1); keeps the first quintics from being steep without need;
        0.02407327424182761 is the paper's, 0.02 others'.
      safety: s ≥ 0; x is divided by 1 + s in every step but the last, so that rounding cannot push
        a value out of the interval; 0 in float32, 0.01 to 0.02 where products are rounded to
        bfloat16.

    Raises:
      HyperparamError: a number out of its range.

    >>> from gradtx.linalg import polar_express_coefficients, worst_error
    >>> triples = polar_express_coefficients(steps=2, lower=0.1)
    >>> [[round(number, 3) for number in triple] for triple in triples]
    [[5.604, -13.884, 9.733], [2.131, -1.512, 0.402]]
    >>> [round(worst_error(polar_express_coefficients(steps)), 3) for steps in (1, 3, 5, 7)]
    [0.992, 0.866, 0.124, 0.0]

    See also: `orthogonalize`, `worst_error`.

    Amsel, Persson, Musco and Gower 2025, arXiv 2505.16932, section 3 and appendix.
    """
    _check(steps, lower, cushion, safety)
    low, high, triples = lower, 1.0, []
    for step in range(steps):
        triple = best_quintic(max(low, cushion * high), high)
        if cushion * high > low:
            # The fit ignored [low, cushion · high]: its errors at both ends are made equal again.
            ends = polynomial(triple, low) + polynomial(triple, high)
            triple = rescale(triple, outside=2 / ends)
        if step < steps - 1:
            triple = rescale(triple, inside=1 / (1 + safety))
        triples.append(triple)
        low = polynomial(triple, low)
        high = 2 - low
    return tuple(triples)


def _check(steps: int, lower: float, cushion: float, safety: float) -> None:
    for is_valid, message in (
        (steps >= 1, f"steps = {steps!r} is below 1"),
        (0 < lower < 1, f"lower = {lower!r} is outside (0, 1)"),
        (0 <= cushion < 1, f"cushion = {cushion!r} is outside [0, 1)"),
        (safety >= 0, f"safety = {safety!r} is negative"),
    ):
        if not is_valid:
            raise HyperparamError(f"polar_express_coefficients: {message}")
