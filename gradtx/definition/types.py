"""Types of the interface: the state, hyperparameters, and the ranges of hyperparameters."""

import math
import numbers
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np

from gradtx.definition.errors import HyperparamError
from gradtx.definition.state import State as State  # noqa: PLC0414  (a type of the interface)

Array = jax.Array
ArrayLike = jax.typing.ArrayLike
DTypeLike = jax.typing.DTypeLike
PyTree = Any
Params = Any
Updates = Any
Slots = Any
"""What a rule stores: a NamedTuple, a dict or a dataclass of arrays; None: it stores nothing."""


class Default(NamedTuple):
    """The default of a shared flag, in the annotation of its TypedDict."""

    value: Any


class Interval(NamedTuple):
    """The range of a hyperparameter, which only Python numbers are checked against."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False
    any_shape: bool = False
    """Whether a whole array is one value; otherwise a hyperparameter is one number."""
    counts: str = ""
    """What a whole number counts, such as "updates"; otherwise the number may be a fraction."""

    def __contains__(self, value: object) -> bool:
        number = float(value)  # pyright: ignore[reportArgumentType]
        above = number > self.low if self.low_open else number >= self.low
        below = number < self.high if self.high_open else number <= self.high
        return above and below

    def __str__(self) -> str:
        left, right = "(" if self.low_open else "[", ")" if self.high_open else "]"
        return f"{left}{self.low:g}, {self.high:g}{right}"

    def check(self, value: object, where: str, cure: str = "") -> None:
        """Raise if `value` is a Python or NumPy number outside of the range."""
        # The value of a JAX array may be unknown until the program runs.
        if not isinstance(value, numbers.Real | np.generic):
            return
        if value not in self:
            raise HyperparamError(f"{where} = {value!r} is outside its range {self}{cure}")
        if self.counts and math.isfinite(float(value)) and float(value) % 1:
            raise HyperparamError(
                f"{where} = {value!r} is not a number of {self.counts}; give a whole number"
            )


class Check(NamedTuple):
    """A check of an option, in its annotation: `function(where, value)` raises."""

    function: Callable[[str, Any], None]


Schedule = Callable[..., Any]
"""Any function from the number of updates so far to a value."""

Numeric = float | Array | np.ndarray | np.number | Schedule

Hyperparam = Annotated[Numeric, Interval(low_open=True, high_open=True)]
"""Any finite real number, or a schedule."""
NonNegative = Annotated[Numeric, Interval(0.0, math.inf, high_open=True)]
"""A finite number >= 0: learning rates, epsilons, weight decays."""
Limit = Annotated[Numeric, Interval(0.0, math.inf)]
"""A number >= 0 that bounds another one: norms, step sizes, counts; infinity bounds nothing."""
ArrayHyperparam = Annotated[Numeric, Interval(any_shape=True)]
"""A number, an array of any shape, or a schedule."""
Positive = Annotated[Numeric, Interval(0.0, math.inf, low_open=True)]
"""A number > 0: thresholds that divide, step counts that divide."""
Period = Annotated[Numeric, Interval(1.0, counts="updates")]
"""A whole number >= 1 of updates, from one event to the next."""
Start = Annotated[Numeric, Interval(0.0, counts="updates")]
"""A whole number >= 0 of updates, after which something begins; infinity: never."""
Decay = Annotated[Numeric, Interval(0.0, 1.0, high_open=True)]
"""A number in [0, 1): decay rates of exponential averages that are bias-corrected."""
Fraction = Annotated[Numeric, Interval(0.0, 1.0)]
"""A number in [0, 1]: momentum, mixing weights."""

SQUARES, PRECISE = "squares", "precise"
"""Marks of a slot for storage formats.

Squares are never negative, and a rule divides by their root. In precise numbers, parameters or step
sizes, small differences matter."""
Squares = Annotated[jax.Array, SQUARES]
Precise = Annotated[jax.Array, PRECISE]
