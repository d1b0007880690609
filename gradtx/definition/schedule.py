"""Schedules: pure functions of the step count, as data."""

import functools
from collections.abc import Callable
from typing import Any, ClassVar, Concatenate, ParamSpec, overload

import jax
import jax.numpy as jnp

from gradtx.definition.definition import Definition, Factory
from gradtx.definition.pytree import register
from gradtx.definition.signature import LazySignature
from gradtx.definition.types import Array, ArrayLike

P = ParamSpec("P")


class Schedule(Definition):
    """A schedule: a value for every step count 0, 1, 2, ...

    Call it with the number of updates so far. Its parameters are the leaves of a pytree. A schedule
    therefore prints as its call, compares by value, and may be batched, traced or differentiated
    like any other tree.
    """

    __slots__ = ()
    public_names: ClassVar[tuple[str, ...]] = ("__call__", "arguments")
    plural: ClassVar[str] = "schedules"

    def verify(self) -> None:
        if self.factory.check is not None:
            args, kwargs = self.factory.arguments(self.arguments)
            self.factory.check(*args, **kwargs)

    def __call__(self, count: ArrayLike) -> Array:
        """Return the value at `count`."""
        if self.factory is FUNCTION:
            return self.arguments["function"](count)
        return _evaluate(self, count)


register(Schedule)


@jax.jit
def _evaluate(schedule: Schedule, count: ArrayLike) -> Array:
    """Evaluate a schedule; schedules that differ only in their numbers share one kernel."""
    return jnp.asarray(schedule.call(count))


def value_at(value: Any, count: ArrayLike) -> Any:
    """Evaluate a hyperparameter at `count`; numbers and arrays are returned unchanged."""
    return value(count) if isinstance(value, Schedule) else value


@overload
def schedule(function: Callable[Concatenate[Any, P], Any], /) -> Callable[P, Schedule]: ...
@overload
def schedule(
    *, check: Callable[..., None]
) -> Callable[[Callable[Concatenate[Any, P], Any]], Callable[P, Schedule]]: ...
def schedule(function: Any = None, /, *, check: Any = None) -> Any:
    """Turn `function(count, *parameters)` into a builder of schedules.

    The parameters annotated as hyperparameters become the leaves of the schedule; the others are
    static. `check` receives the same parameters, and may raise if they contradict each other.

    >>> from gradtx.definition.types import Hyperparam
    >>> @schedule
    ... def halving(count, init_value: Hyperparam):
    ...     return init_value * 0.5**count
    >>> halving(init_value=8.0)
    halving(init_value=8.0)
    >>> float(halving(8.0)(3))
    1.0
    """
    return (
        functools.partial(_make_schedule, check=check)
        if function is None
        else _make_schedule(function, check)
    )


def _make_schedule(
    function: Callable[..., Any], check: Callable[..., None] | None
) -> Callable[..., Schedule]:
    factory = Factory(function, Schedule, skip=1, check=check)

    @functools.wraps(function)
    def make(*args: Any, **kwargs: Any) -> Schedule:
        return factory(*args, **kwargs)

    make.factory = factory  # pyright: ignore[reportAttributeAccessIssue]
    make.__signature__ = LazySignature(  # pyright: ignore[reportAttributeAccessIssue]
        factory.shown_signature
    )
    return make


@schedule
def function_schedule(count: Array, function: Callable[[ArrayLike], ArrayLike]) -> ArrayLike:
    """Wrap a Python function `count -> value` as a schedule; the function is static."""
    return function(count)


FUNCTION: Factory = function_schedule.factory  # pyright: ignore[reportFunctionMemberAccess]
Definition.wrap_function = staticmethod(function_schedule)
