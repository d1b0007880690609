"""Schedules: pure functions of the step count, as data."""

import functools
import numbers
from collections.abc import Callable
from typing import Any, ClassVar, Concatenate, ParamSpec, overload

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.definition.definition import Definition, Factory
from gradtx.definition.errors import HyperparamError
from gradtx.definition.pytree import register
from gradtx.definition.show import show
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

    @property
    def _name(self) -> str:
        """The name in messages: that of the Python function, or of the builder."""
        if self.factory is FUNCTION:
            return show(self.arguments["function"])
        return self.factory.__name__

    def __call__(self, count: ArrayLike) -> Array:
        """Return the value at `count`, the number of updates so far, in any integer dtype."""
        count = wide_count(count, self._name)
        if self.factory is FUNCTION:
            return self.check_value(self.arguments["function"](count), count)
        return _evaluate(self, count)

    def check_value(self, value: Any, count: Any) -> Any:
        """Return the value of a schedule; raise unless it is one number for every count."""
        if not isinstance(value, numbers.Number | np.ndarray | np.generic | jax.Array):
            raise HyperparamError(
                f"the schedule {self._name} returned {show(value)}, and must return a number"
            )
        shape = getattr(value, "shape", ())
        is_batch = any(map(jnp.shape, jax.tree.leaves(self)))
        if shape not in ((), jnp.shape(count)) and not is_batch:
            raise HyperparamError(
                f"the schedule {self._name} returned an array of shape {shape} for one count, and "
                f"must return one number"
            )
        return value


register(Schedule)


@jax.jit
def _evaluate(schedule: Schedule, count: ArrayLike) -> Array:
    """Evaluate a schedule; schedules that differ only in their numbers share one kernel."""
    return jnp.asarray(schedule.check_value(schedule.call(count), count))


def wide_count(count: Any, name: str) -> Any:
    """A count in JAX's default integer dtype, held inside its range; a float stays a float.

    A narrow or an unsigned count would wrap where a schedule subtracts a start from it.
    """
    dtype = getattr(count, "dtype", np.dtype(type(count)))
    if dtype == np.bool_:
        raise HyperparamError(f"{name}: the count is {show(count)}, a bool, and must be a number")
    target = jnp.iinfo(jnp.result_type(int))
    if isinstance(count, int):
        return min(max(count, int(target.min)), int(target.max))
    is_wide = dtype in (np.int32, target.dtype)
    if is_wide or not jnp.issubdtype(dtype, jnp.integer):
        return count
    if jnp.iinfo(dtype).max > target.max:
        library = jnp if isinstance(count, jax.Array) else np
        lowest = dtype.type(max(jnp.iinfo(dtype).min, target.min))
        count = library.clip(count, lowest, dtype.type(target.max))
    return count.astype(target.dtype)


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
