r"""The weights of a maximum-entropy kernel, computed once on the host in float64.

The tail k = 2, ..., n−1 has the largest entropy under

    Σ c_k = 1,  Σ (−1)^k c_k = 0,  Σ k c_k = L,  Σ log(1 + k) c_k = Q.

So c_k = mass · softmax_k(x (−1)^k + y k + z log(1 + k)) with mass = 1 − c_0 − c_1, and (x, y, z) is
the minimum of a convex function: log Σ exp(θ·f_k) − θ·target.
"""

import functools
from typing import NamedTuple

import numpy as np

from gradtx.definition.errors import HyperparamError

STEPS, TOLERANCE = 60, 1e-12
"""Newton's method takes 6 to 10 steps; at the end the conditions hold to about 1e-14."""


class Moments(NamedTuple):
    """The conditions on a kernel."""

    age: float
    """L, the mean age in steps."""
    log_age: float
    """Q, the mean of log(1 + age)."""
    newest: tuple[float, float]
    """c_0 and c_1."""


class Solution(NamedTuple):
    """The weights of a kernel, and the multipliers of its conditions."""

    coefficients: np.ndarray
    multipliers: np.ndarray
    """(x, y, z)."""


@functools.lru_cache(maxsize=64)
def solve(taps: int, moments: Moments) -> Solution:
    """Compute the kernel of the largest entropy by Newton's method on the dual.

    Raises:
      HyperparamError: no kernel meets the conditions.
    """
    ages = np.arange(2, taps)
    first, second = moments.newest
    mass = 1.0 - first - second
    features = np.stack([(-1.0) ** ages, ages, np.log1p(ages)])
    targets = np.array(
        [second - first, moments.age - second, moments.log_age - second * np.log(2.0)]
    )
    if mass <= 0:
        raise _no_kernel(taps, moments)
    targets = targets / mass
    low, high = features.min(axis=1), features.max(axis=1)
    scale = np.where(high > low, high - low, 1.0)
    multipliers = _newton((features - low[:, None]) / scale[:, None], (targets - low) / scale)
    if multipliers is None:
        raise _no_kernel(taps, moments)
    multipliers = multipliers / scale
    tail = mass * _softmax(multipliers @ features)
    return Solution(np.concatenate([[first, second], tail]), multipliers)


def _softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def _dual(theta: np.ndarray, features: np.ndarray, targets: np.ndarray) -> float:
    logits = theta @ features
    return float(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - theta @ targets)


def _newton(features: np.ndarray, targets: np.ndarray) -> np.ndarray | None:
    """Minimize the dual with backtracking; None where it has no minimum."""
    theta = np.zeros(len(targets))
    for _ in range(STEPS):
        weights = _softmax(theta @ features)
        mean = features @ weights
        gradient = mean - targets
        if np.abs(gradient).max() < TOLERANCE:
            return theta
        centred = features - mean[:, None]
        hessian = (centred * weights) @ centred.T
        theta = _backtrack(theta, _newton_step(hessian, gradient), gradient, features, targets)
        if theta is None:
            return None
    return None


def _newton_step(hessian: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    ridge = 1e-14 * np.trace(hessian) * np.eye(len(gradient))
    return -np.linalg.solve(hessian + ridge + 1e-300 * np.eye(len(gradient)), gradient)


def _backtrack(
    theta: np.ndarray,
    direction: np.ndarray,
    gradient: np.ndarray,
    features: np.ndarray,
    targets: np.ndarray,
) -> np.ndarray | None:
    """Halve the step until the dual falls; None where it cannot."""
    before, slope = _dual(theta, features, targets), float(gradient @ direction)
    if not np.isfinite(slope):
        return None
    size = 1.0
    while size > 1e-10:
        new = theta + size * direction
        # Near the minimum the change of the dual is below its rounding.
        if _dual(new, features, targets) <= before + 1e-4 * size * slope + 1e-15 * abs(before):
            return new
        size /= 2
    return None


def _no_kernel(taps: int, moments: Moments) -> HyperparamError:
    return HyperparamError(
        f"max_entropy: no kernel of {taps} gradients has the mean age {moments.age:g}, the mean "
        f"log(1 + age) {moments.log_age:g} and the newest weights {moments.newest}: the mean of "
        f"log(1 + age) is at most log(1 + mean age), {np.log1p(max(moments.age, 0)):.4g}, and the "
        f"two newest weights add up to less than 1"
    )
