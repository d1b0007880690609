"""Schedules with a state of their own: the protocol, and a plain schedule in its form."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from gradtx.definition.types import ArrayLike


@runtime_checkable
class StatefulSchedule(Protocol):
    """A stateful schedule: a value that follows a state of its own, in place of the step count.

    `inject_hyperparams` takes one as a hyperparameter. At each step the value is s(z_t, extra), and
    the next state z_{t+1} = u(z_t, extra), where `extra` are the extra arguments of `update`.

    When: a learning rate that follows the loss or another number of the loop. When not: the value
    follows the step count (write a function of the count), or it scales the updates by a plateau of
    the loss (`reduce_on_plateau`).

    >>> import gradtx, jax, jax.numpy as jnp
    >>> class HalveOnRise:
    ...     def init(self):
    ...         return {"rate": jnp.array(1.0, "float32"), "loss": jnp.array(jnp.inf, "float32")}
    ...     def update(self, state, *, value, **extra):
    ...         rate = jnp.where(value > state["loss"], state["rate"] / 2, state["rate"])
    ...         return {"rate": rate, "loss": value}
    ...     def __call__(self, state, **extra):
    ...         return state["rate"]
    >>> w = jnp.array(1.0)
    >>> tx = gradtx.inject_hyperparams(gradtx.sgd)(HalveOnRise())
    >>> state, update = tx.init(w), jax.jit(tx.update)
    >>> for value in (2.0, 3.0, 1.0):  # the second loss is larger than the first
    ...     updates, state = update(w, state, value=jnp.array(value))
    ...     print(updates)
    -1.0
    -1.0
    -0.5

    See also: `WrappedSchedule`, `inject_hyperparams`, `reduce_on_plateau`.
    """

    def init(self) -> Any:
        """Make the state before the first step, a tree of arrays."""
        ...

    def update(self, state: Any, **extra_args: Any) -> Any:
        """Return the state of the next step, with the same structure, shapes and dtypes."""
        ...

    def __call__(self, state: Any, **extra_args: Any) -> ArrayLike:
        """Return the value at this step, one number; at `init` there are no extra arguments."""
        ...


class WrappedScheduleState(NamedTuple):
    """The state of a `WrappedSchedule`: the number of steps so far."""

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]


@dataclasses.dataclass(frozen=True)
class WrappedSchedule:
    """A stateful schedule around a plain schedule: its state is a step count.

    The value at step t is s(t), and the count goes from t to t + 1, up to the largest int32.

    When: code that expects a `StatefulSchedule`. When not: `inject_hyperparams` takes the plain
    schedule itself.

    Args:
      schedule_fn: a function from the count 0, 1, 2, ... to a value.

    >>> import gradtx
    >>> schedule = WrappedSchedule(gradtx.linear_schedule(1.0, 0.0, 4))
    >>> state = schedule.init()
    >>> float(schedule(state)), float(schedule(schedule.update(state)))
    (1.0, 0.75)
    """

    schedule_fn: Callable[[ArrayLike], ArrayLike]

    def init(self) -> WrappedScheduleState:
        """Return a count of 0."""
        return WrappedScheduleState(jnp.zeros((), jnp.int32))

    def update(self, state: WrappedScheduleState, **extra_args: Any) -> WrappedScheduleState:
        """Return the next count, which saturates."""
        limit = jnp.iinfo(state.count.dtype).max
        return WrappedScheduleState(jnp.minimum(state.count, limit - 1) + 1)

    def __call__(self, state: WrappedScheduleState, **extra_args: Any) -> ArrayLike:
        """Return the value at the count."""
        return self.schedule_fn(state.count)
