"""One clock: the count of updates, and the values that schedules have at it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradtx.definition.schedule import Schedule


def next_count(count: Any) -> Any:
    """The count after one more update; it saturates at the largest integer and never wraps."""
    dtype = jnp.asarray(count).dtype
    last = np.asarray(np.iinfo(dtype).max - 1, dtype)
    # Primitives: to trace an operator of `jnp` costs four times as much, at every update.
    return lax.add(lax.min(count, last), np.ones((), dtype))


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
            self.values[id(value)] = value(self.count)
        return self.values[id(value)]


def clock_at(count: Any) -> Clock:
    """The clock of the update that follows `count` updates."""
    return Clock(count, next_count(count), {})
