"""One clock: the count of updates, and the values that schedules have at it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.definition.errors import TRACED
from gradtx.definition.schedule import Schedule

NOTE = (
    "a schedule receives the count as a traced array: compute with jax.numpy, and choose with "
    "jnp.where(count < 100, 0.1, 0.01) in the place of if"
)
"""The note on the error of a schedule that asks for the number of its count."""


def next_count(count: Any, when: Any = None) -> Any:
    """The count after one more event, or the same where `when` is False: there was none.

    It saturates at the largest integer: a count that wrapped would be negative, and gates, means
    and schedules would take it for a start. Every counter of a state is counted by this function.
    """
    dtype = jnp.asarray(count).dtype
    limit = np.iinfo(dtype).max
    # Primitives: to trace an operator of `jnp` costs four times as much, at every update.
    if when is None:
        return lax.add(lax.min(count, np.asarray(limit - 1, dtype)), np.ones((), dtype))
    below = lax.lt(count, np.asarray(limit, dtype))
    return lax.add(count, lax.convert_element_type(when & below, dtype))


def whole(count: Any) -> Any:
    """The nearest whole number of steps.

    A share of a run that a program computes, as 0.7 of 360 in float32, may lie just beside it: an
    event at every k-th step after 252.00001 would never be due.
    """
    return count if isinstance(count, int) else jnp.round(count)


class Clock(NamedTuple):
    """The time of one update, the same for every rule."""

    count: Any
    """Updates made before this one: 0, 1, 2, ... Schedules read it."""
    step: Any
    """The number of this update: 1, 2, 3, ... Rules receive it."""
    values: dict[int, Any]
    """The value of every schedule that was read at this count, by the schedule's identity."""

    def resolve(self, hyperparams: Mapping[str, Any]) -> dict[str, Any]:
        """Hyperparameters at this count; a schedule that several rules share is evaluated once."""
        return {name: self._value(value) for name, value in hyperparams.items()}

    def _value(self, value: Any) -> Any:
        if not isinstance(value, Schedule):
            return value
        if id(value) not in self.values:
            try:
                self.values[id(value)] = value(self.count)
            except TRACED as error:
                error.add_note(NOTE)
                raise
        return self.values[id(value)]


def clock_at(count: Any) -> Clock:
    """The clock of the update that follows `count` updates."""
    return Clock(count, next_count(count), {})
