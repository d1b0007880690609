r"""Schedules: pure functions of the step count, as data; and their arithmetic.

sum, product, ...    η = s_1(count) + s_2(count), where a number is constant
"""

import functools
import numbers
import os
from collections.abc import Callable
from typing import Any, ClassVar, Concatenate, NamedTuple, ParamSpec, overload

import jax
import jax.numpy as jnp
import numpy as np

from gradtx._lazy import upper
from gradtx.definition.definition import (
    Definition,
    Factory,
    building,
    uncalled_builder,
)
from gradtx.definition.errors import HyperparamError
from gradtx.definition.pytree import register
from gradtx.definition.show import show
from gradtx.definition.signature import builder_of
from gradtx.definition.types import Array, ArrayLike, Hyperparam, Numeric

P = ParamSpec("P")


class ScheduleFactory(Factory):
    """A builder of schedules, which may know the length of the schedule from its arguments."""

    length: Callable[..., Any] | None = None


class Schedule(Definition):
    """A schedule: a value for every step count 0, 1, 2, ...

    Call it with the number of updates so far. Its parameters are the leaves of a pytree. A schedule
    therefore prints as its call, compares by value, and may be batched, traced or differentiated
    like any other tree.

    Schedules add, subtract, multiply and divide: with each other, with numbers, with traced scalars
    and with plain functions of the count. The result is a schedule.

    >>> import gradtx
    >>> decay = gradtx.linear_schedule(1.0, 0.0, transition_steps=4)
    >>> rate = 0.5 * decay + 0.1
    >>> rate
    0.5 * linear_schedule(init_value=1.0, end_value=0.0, transition_steps=4) + 0.1
    >>> round(float(rate(2)), 2), rate.length
    (0.35, 4)
    """

    __slots__ = ()
    public_names: ClassVar[tuple[str, ...]] = ("__call__", "arguments", "length", "name", "plot")
    plural: ClassVar[str] = "schedules"
    # Without it NumPy would take a schedule for an array of objects: np.float32(0.5) * schedule.
    __array_ufunc__: ClassVar[None] = None

    def verify(self) -> None:
        if self.factory.check is not None:
            args, kwargs = self.factory.arguments(self.arguments)
            self.factory.check(*args, **kwargs)

    @property
    def name(self) -> str:
        """The name in messages and plots: of the Python function, of the builder, or the sum."""
        if self.factory is FUNCTION:
            return show(self.arguments["function"])
        return self.factory.__name__ if self.expression is None else self.expression

    @property
    def expression(self) -> str | None:
        """The text of a sum, a product or another operation; None: the schedule is a call."""
        operation = _show_operation(self)
        return None if operation is None else operation[0]

    def __call__(self, count: ArrayLike) -> Array:
        """Return the value at `count`, the number of updates so far, in any integer dtype."""
        count = wide_count(count, self.name)
        if self.factory is FUNCTION:
            return self.check_value(self.arguments["function"](count), count)
        return _evaluate(self, count)

    def check_value(self, value: Any, count: Any) -> Any:
        """Return the value of a schedule; raise unless it is one number for every count."""
        if not isinstance(value, numbers.Number | np.ndarray | np.generic | jax.Array):
            raise HyperparamError(
                f"the schedule {self.name} returned {show(value)}, and must return a number"
            )
        shape = getattr(value, "shape", ())
        is_batch = any(map(jnp.shape, jax.tree.leaves(self)))
        if shape not in ((), jnp.shape(count)) and not is_batch:
            raise HyperparamError(
                f"the schedule {self.name} returned an array of shape {shape} for one count, and "
                f"must return one number"
            )
        return value

    @property
    def length(self) -> Any:
        """The number of updates after which the value is constant.

        None: it has no end, as `exponential_decay`, or the end is unknown.
        """
        length = getattr(self.factory, "length", None)
        return None if length is None else length(**self.arguments)

    def plot(self, steps: int | None = None, path: str | os.PathLike[str] | None = None) -> Any:
        """Plot the schedule over its steps; it needs matplotlib.

        Args:
          steps: the last count of the plot; None: the `length` of the schedule.
          path: a file for the plot, `schedule.png` for example; None: no file.

        Returns:
          The `matplotlib.figure.Figure`, which a notebook displays.

        Raises:
          GradtxError: there are no steps to plot, or matplotlib is not installed.
        """
        return upper("gradtx.inspect.plot_schedules").plot_schedules(self, steps=steps, path=path)

    def __add__(self, other: Numeric) -> "Schedule":
        return _operate("+", self, other)

    def __radd__(self, other: Numeric) -> "Schedule":
        return _operate("+", other, self)

    def __sub__(self, other: Numeric) -> "Schedule":
        return _operate("-", self, other)

    def __rsub__(self, other: Numeric) -> "Schedule":
        return _operate("-", other, self)

    def __mul__(self, other: Numeric) -> "Schedule":
        return _operate("*", self, other)

    def __rmul__(self, other: Numeric) -> "Schedule":
        return _operate("*", other, self)

    def __truediv__(self, other: Numeric) -> "Schedule":
        return _operate("/", self, other)

    def __rtruediv__(self, other: Numeric) -> "Schedule":
        return _operate("/", other, self)

    def __neg__(self) -> "Schedule":
        return negate_schedule(self)

    def __repr__(self) -> str:
        return super().__repr__() if self.expression is None else self.expression


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
    *, check: Callable[..., None] | None = None, length: Callable[..., Any] | None = None
) -> Callable[[Callable[Concatenate[Any, P], Any]], Callable[P, Schedule]]: ...
def schedule(function: Any = None, /, *, check: Any = None, length: Any = None) -> Any:
    """Turn `function(count, *parameters)` into a builder of schedules.

    The parameters annotated as hyperparameters become the leaves of the schedule; the others are
    static. `check` receives the same parameters, and may raise if they contradict each other.
    `length` receives them by name, and returns the number of updates after which the value is
    constant, or None; it is `schedule.length`.

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
        functools.partial(_make_schedule, check=check, length=length)
        if function is None
        else _make_schedule(function, check, length)
    )


def _make_schedule(
    function: Callable[..., Any],
    check: Callable[..., None] | None,
    length: Callable[..., Any] | None,
) -> Callable[..., Schedule]:
    factory = ScheduleFactory(function, Schedule, skip=1, check=check)
    factory.length = length
    return builder_of(factory, function)


@schedule
def function_schedule(count: Array, function: Callable[[ArrayLike], ArrayLike]) -> ArrayLike:
    """Wrap a Python function `count -> value` as a schedule; the function is static."""
    return function(count)


FUNCTION: Factory = function_schedule.factory  # pyright: ignore[reportFunctionMemberAccess]
Definition.wrap_function = staticmethod(function_schedule)


def length_of(value: Any) -> Any:
    """The length of a hyperparameter: 0 for a number, which is constant; None: without an end."""
    return value.length if isinstance(value, Schedule) else 0


def longest(*values: Any) -> Any:
    """The largest length of several hyperparameters; None where one has no end."""
    lengths = [length_of(value) for value in values]
    if any(length is None for length in lengths):
        return None
    if all(isinstance(length, int | float) for length in lengths):
        return max(lengths)
    return functools.reduce(jnp.maximum, lengths)


def _both(left: Any, right: Any) -> Any:
    return longest(left, right)


@schedule(length=_both)
def add_schedules(count: Array, left: Hyperparam, right: Hyperparam) -> Array:
    """Add two schedules: `left + right`."""
    return _term(left, count) + _term(right, count)


@schedule(length=_both)
def subtract_schedules(count: Array, left: Hyperparam, right: Hyperparam) -> Array:
    """Subtract a schedule from another: `left - right`."""
    return _term(left, count) - _term(right, count)


@schedule(length=_both)
def multiply_schedules(count: Array, left: Hyperparam, right: Hyperparam) -> Array:
    """Multiply two schedules: `left * right`."""
    return _term(left, count) * _term(right, count)


def _check_divisor(left: Any, right: Any) -> None:
    if isinstance(right, numbers.Real | np.generic) and float(right) == 0:
        raise HyperparamError(f"{show(left)} / {show(right)} divides a schedule by 0")


@schedule(check=_check_divisor, length=_both)
def divide_schedules(count: Array, left: Hyperparam, right: Hyperparam) -> Array:
    """Divide a schedule by another: `left / right`."""
    return _term(left, count) / _term(right, count)


@schedule(length=length_of)
def negate_schedule(count: Array, value: Hyperparam) -> Array:
    """Negate a schedule: `-schedule`."""
    return -_term(value, count)


def _term(value: Any, count: Array) -> Array:
    """The value of an operand in JAX's default floating dtype, for every count."""
    value = jnp.asarray(value_at(value, count), jnp.result_type(float))
    return jnp.broadcast_to(value, jnp.broadcast_shapes(value.shape, jnp.shape(count)))


class Operator(NamedTuple):
    """An operator of schedules: its builder, and how tightly it binds."""

    build: Callable[..., Schedule]
    rank: int


OPERATORS: dict[str, Operator] = {
    "+": Operator(add_schedules, 1),
    "-": Operator(subtract_schedules, 1),
    "*": Operator(multiply_schedules, 2),
    "/": Operator(divide_schedules, 2),
}
SYMBOLS: dict[str, str] = {one.build.__name__: symbol for symbol, one in OPERATORS.items()}
NEGATIVE, CALL = 3, 4
"""How tightly a minus sign and a call bind."""


def _operate(symbol: str, left: Any, right: Any) -> Schedule:
    for operand in (left, right):
        if (fault := operand_fault(operand)) is not None:
            sides = f"{_short(left)} {symbol} {_short(right)}"
            raise HyperparamError(f"{sides}: {fault}")
    return OPERATORS[symbol].build(left, right)


def operand_fault(value: Any) -> str | None:
    """What is wrong with an operand; None: nothing."""
    if isinstance(value, Schedule):
        return None
    shape = getattr(value, "shape", ())
    if shape and building() is None:  # the builders of a batch of definitions receive batches
        return (
            f"{show(value)} is an array of shape {tuple(shape)}, and must be one number; evaluate "
            f"the schedule at a count first, schedule(count), or for a batch of schedules take "
            f"gradtx.replace and gradtx.vmap_axes"
        )
    is_number = isinstance(value, numbers.Real | np.generic | np.ndarray | jax.Array)
    is_function = callable(value) and not isinstance(value, type | Definition)
    if isinstance(value, bool | np.bool_) or not (is_number or is_function):
        return f"{show(value)} is not a number, a schedule or a function of the count"
    return uncalled_builder(value)


def _short(value: Any) -> str:
    return f"{value.factory.__name__}(...)" if isinstance(value, Definition) else show(value)


def _show_operation(schedule: Schedule) -> tuple[str, int] | None:
    """The expression of an operation and how tightly it binds; None: it is a call."""
    name, arguments = schedule.factory.name, schedule.arguments
    if name == negate_schedule.__name__:
        return f"-{_show_operand(arguments['value'], NEGATIVE)}", NEGATIVE
    if name not in SYMBOLS:
        return None
    rank = OPERATORS[SYMBOLS[name]].rank
    left = _show_operand(arguments["left"], rank)
    right = _show_operand(arguments["right"], rank + 1)  # a - (b - c) needs its parentheses
    return f"{left} {SYMBOLS[name]} {right}", rank


def _show_operand(value: Any, rank: int) -> str:
    """An operand, in parentheses where it binds less tightly than `rank`."""
    shown = _show_operation(value) if isinstance(value, Schedule) else None
    text, own = (show(value), CALL) if shown is None else shown
    return text if own >= rank else f"({text})"
