"""The factor of each parameter's updates, where `multiply_by_path` gives it one, in words."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradtx.definition.leaves import known_number
from gradtx.definition.show import show
from gradtx.engine.factor_rule import FactorRule

if TYPE_CHECKING:
    from gradtx.inspect.trainers import ActiveRule


def factor_texts(rules: "Sequence[ActiveRule]", count: int) -> list[str]:
    """For every leaf the product of its factors, "× 0.75"; empty where that is 1."""
    numbers, others = [np.ones(()) for _ in range(count)], [list[str]() for _ in range(count)]
    for one in rules:
        if isinstance(one.bound.rule, FactorRule):
            factors = one.bound.rule.leaf_factors(one.bound, one.seen, one.active.tolist())
            for n, factor in enumerate(factors):
                if factor is None:
                    continue
                value = known_number(factor.value)
                if isinstance(value, int | float | np.generic | np.ndarray):
                    numbers[n] = numbers[n] * factor.raised(np.asarray(value, float))
                else:
                    others[n].append(_brief(value))
    return [" ".join([*_text(number), *rest]) for number, rest in zip(numbers, others, strict=True)]


def _text(number: np.ndarray) -> list[str]:
    low, high = (float(number.min()), float(number.max())) if number.size else (1.0, 1.0)
    if low == high:
        return [] if low == 1 else [f"× {low:.4g}"]
    return [f"× {low:.4g} to {high:.4g}"]


def _brief(value: Any) -> str:
    """A factor that follows a schedule, or that is not known yet."""
    factory = getattr(value, "factory", None)
    return f"× {show(value) if factory is None else factory.__name__}"
