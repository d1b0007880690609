"""Presets of `orthogonalize`: published sequences of quintics by name, and their worst errors."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from gradtx.definition.errors import HyperparamError
from gradtx.linalg.polar_express import CLASSIC, Triple, polar_express_coefficients

JORDAN: Triple = (3.4445, -4.7750, 2.0315)
SETTLING: Triple = (2.0, -1.5, 0.5)

TABLES: dict[str, tuple[Triple, ...]] = {
    "you": (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ),
    "cans": (
        (8.4703, -25.1081, 18.6293),
        (4.1828, -3.1087, 0.5806),
        (3.9619, -2.9541, 0.5630),
        (3.2866, -2.4647, 0.5074),
        (2.2737, -1.6447, 0.4162),
    ),
}

PRESETS = {"polar_express": 5, "jordan": 5, "you": 5, "cans": 5, "deepseek": 10}
"""The names, and the default number of steps of each."""


Preset = Literal["polar_express", "jordan", "you", "cans", "deepseek", "standard", "dion"]
"""The names, and those of Optax, for a type checker."""

SPELLINGS = {"standard": "jordan", "dion": "you"}
"""Optax's names of presets."""


def coefficients_of(
    method: str | Sequence[Triple] | Triple, steps: int | None = None
) -> tuple[Triple, ...]:
    """The quintics of a preset, or the argument itself as tuples.

    `orthogonalize` explains how a table is cut or continued for another number of steps.
    """
    if steps is not None and (not isinstance(steps, int) or steps < 1):
        raise HyperparamError(f"orthogonalize: steps = {steps!r} is below 1, or not whole")
    if not isinstance(method, str):
        triples = numbers_of(method)
        if isinstance(triples[0], float):
            return (triples,) * (5 if steps is None else steps)
        return _resize(triples, steps)
    method = SPELLINGS.get(method, method)
    if method not in PRESETS:
        known = ", ".join(map(repr, PRESETS))
        raise HyperparamError(
            f"orthogonalize: method = {method!r} has no coefficients; choose one of {known}, or "
            "give triples (a, b, c)"
        )
    count = PRESETS[method] if steps is None else steps
    if method == "polar_express":
        return polar_express_coefficients(count, cushion=0.02, safety=0.02)
    if method == "jordan":
        return (JORDAN,) * count
    if method == "deepseek":
        return (JORDAN,) * (count - 2) + (SETTLING,) * min(count, 2)
    return _resize(TABLES[method], count)


def numbers_of(method: Sequence[Triple] | Triple, where: str = "orthogonalize: method") -> Any:
    """Convert one triple or several to tuples of numbers."""
    try:
        array = np.asarray(method, np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.ndim not in (1, 2) or array.shape[-1] != 3 or not array.size:
        raise HyperparamError(
            f"{where} = {method!r} is not a sequence of triples (a, b, c), nor one triple"
        )
    values: list[Any] = array.tolist()
    return tuple(values) if array.ndim == 1 else tuple(map(tuple, values))


def _resize(triples: tuple[Triple, ...], steps: int | None) -> tuple[Triple, ...]:
    # CLASSIC converges cubically once a table has brought all singular values near 1.
    return triples if steps is None else triples[:steps] + (CLASSIC,) * (steps - len(triples))


def worst_error(
    method: str | Sequence[Triple] | Triple = "polar_express",
    steps: int | None = None,
    *,
    interval: tuple[float, float] = (1e-3, 1.0),
    margin: float = 1.0,
) -> float:
    """The worst error of a singular value after `orthogonalize`.

    max |1 − p_T(⋯ p_1(σ / margin))| over σ in an interval. σ is a singular value of the matrix
    divided by its Frobenius norm; arithmetic is in float64.

    When: to compare presets, numbers of steps, or coefficients of your own. When not: the spectrum
    is known; compose the quintics on it.

    Args:
      method: a preset of `orthogonalize`, or triples (a, b, c).
      steps: T, as in `orthogonalize`.
      interval: the smallest and the largest σ, 0 < low ≤ high.
      margin: as in `orthogonalize`.

    Raises:
      HyperparamError: an unknown preset, or an empty interval.

    >>> from gradtx.linalg import worst_error
    >>> [round(worst_error(method), 3) for method in ("polar_express", "jordan", "you", "cans")]
    [0.141, 0.529, 0.525, 0.12]

    See also: `polar_express_coefficients`.
    """
    low, high = interval
    if not 0 < low <= high:
        raise HyperparamError(f"worst_error: interval = {interval!r} is not 0 < low ≤ high")
    values = np.union1d(np.geomspace(low, high, 100_001), np.linspace(low, high, 100_001)) / margin
    for a, b, c in coefficients_of(method, steps):
        squares = values**2
        values = values * (a + squares * (b + squares * c))
    return float(np.abs(1 - values).max())
