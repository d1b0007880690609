"""What schedules are made of: the time since a moment, the way from one value to the next, and
checks.

    phase(count, a, b)  = (left, done) = ((b − t)/(b − a), (t − a)/(b − a)),  t = count held inside [a, b]
    blend(w, old, new)  = w.old old + w.new new,  where w is a phase, or a SHAPE of one

A phase that has not begun weighs (1, 0) and one that is over (0, 1), so phases that follow
one another are blended one after another without asking which of them is running. Both weights are
kept, since 1 − done loses its digits near the end of a phase, and 1 − left those near its start.

Parameters may be tracers, so nothing here branches on a number; the checks look at Python numbers
only."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from gradtx.definition.errors import HyperparamError
from gradtx.definition.schedule import Schedule
from gradtx.definition.types import Array, ArrayLike


class Weights(NamedTuple):
    """The shares of the value before a phase and of the value after it."""

    old: Array
    new: Array


def number(value: Any) -> Array:
    """A parameter as an array of its own dtype."""
    if isinstance(value, Schedule):
        raise HyperparamError(
            f"{value!r} is a parameter of another schedule, which must be a number; "
            "combine schedules with join_schedules, with_warmup or shift_schedule"
        )
    return jnp.asarray(value)


def real(value: Any) -> Array:
    """A parameter in JAX's default floating dtype: float32, or float64 under x64."""
    return jnp.asarray(number(value), jnp.result_type(float))


def alike(left: Any, right: Any) -> tuple[Array, Array]:
    """Two numbers of one kind: exact integers where both are, else both real."""
    left, right = number(left), number(right)
    whole = jnp.issubdtype(left.dtype, jnp.integer) and jnp.issubdtype(right.dtype, jnp.integer)
    return (left, right) if whole else (real(left), real(right))


def fill(count: ArrayLike, value: Any) -> Array:
    """A value for every count: shaped like the counts when the value is a number."""
    return jnp.broadcast_to(real(value), jnp.broadcast_shapes(jnp.shape(value), jnp.shape(count)))


def since(count: ArrayLike, start: Any) -> Array:
    """count − start, held inside [0, largest integer]: a start below 0 cannot make a large count
    wrap.
    """
    count, start = alike(count, start)
    moved = count - start
    if jnp.issubdtype(moved.dtype, jnp.inexact):
        return jnp.maximum(moved, 0)
    wrapped = (start < 0) & (moved < count)
    return jnp.maximum(jnp.where(wrapped, jnp.iinfo(moved.dtype).max, moved), 0)


def later(count: ArrayLike, steps: Any) -> Array:
    """count + steps, held inside [0, largest integer]."""
    return since(count, -number(steps))


def begun(count: ArrayLike, start: Any) -> Array:
    """Whether count ≥ start."""
    count, start = alike(count, start)
    return count >= start


def phase(count: ArrayLike, start: Any, stop: Any) -> Weights:
    """How much of [start, stop] is left and how much is done; a phase of no length is over when it
    begins.
    """
    start, stop = alike(start, stop)
    elapsed, steps = alike(since(count, start), stop - start)
    elapsed, lasting = jnp.minimum(elapsed, steps), steps > 0
    length = real(jnp.where(lasting, steps, 1))
    over = real(begun(count, start))
    return Weights(
        jnp.where(lasting, real(steps - elapsed) / length, 1 - over),
        jnp.where(lasting, real(elapsed) / length, over),
    )


def blend(weights: Weights, old: Any, new: Any) -> Array:
    """The value part of the way from `old` to `new`."""
    return weights.old * real(old) + weights.new * real(new)


def power(base: Array, exponent: Any) -> Array:
    """base^exponent for base ≥ 0, with 0^0 = 1, and a gradient of 0 instead of nan where base is 0."""
    positive, exponent = base > 0, real(exponent)
    return jnp.where(positive, jnp.where(positive, base, 1) ** exponent, real(exponent == 0))


def _linear(weights: Weights) -> Weights:
    return weights


def _cosine(weights: Weights) -> Weights:
    """½ (1 + cos π done) = sin²(½ π left): equal, and exact at both ends."""
    return Weights(*(jnp.sin(0.5 * jnp.pi * weight) ** 2 for weight in weights))


def _one_minus_sqrt(weights: Weights) -> Weights:
    root = power(weights.new, 0.5)
    return Weights(1 - root, root)


SHAPES: Mapping[str, Callable[[Weights], Weights]] = {
    "linear": _linear,
    "cosine": _cosine,
    "1-sqrt": _one_minus_sqrt,
}
"""The ways from one value to the next, by name: each bends the weights of a phase."""


def raised(weights: Weights, exponent: Any) -> Weights:
    """The share of the old value raised to an exponent; the new value has the rest."""
    old = power(weights.old, exponent)
    return Weights(old, jnp.where(real(exponent) == 1, weights.new, 1 - old))


def route(
    count: ArrayLike, stops: Sequence[Any], values: Sequence[Any], shape: str = "linear"
) -> Array:
    """From values[0] at count 0 through values[i + 1] at stops[i], constant after the last stop."""
    value = fill(count, values[0])
    for start, stop, target in zip((0, *stops), stops, values[1:]):
        value = blend(SHAPES[shape](phase(count, start, stop)), value, target)
    return value


def joined(
    count: ArrayLike, schedules: Sequence[Callable[[Any], Any]], boundaries: Iterable[Any]
) -> Array:
    """The first schedule, and from each boundary on the next one, whose count starts at 0 there."""
    value = fill(count, schedules[0](count))
    for boundary, schedule in zip(boundaries, schedules[1:], strict=True):
        value = jnp.where(begun(count, boundary), real(schedule(since(count, boundary))), value)
    return value


def known(*values: Any) -> bool:
    """Whether all are Python numbers, so that a check may compare them."""
    return all(isinstance(value, int | float) for value in values)


def check_shape(name: str, given: str) -> None:
    """Raise if a way from one value to the next has no such name."""
    if given not in SHAPES:
        raise HyperparamError(
            f"{name} is {given!r}, which is unknown; choose one of {', '.join(map(repr, SHAPES))}"
        )


def check_increasing(name: str, boundaries: Iterable[Any]) -> None:
    """Raise unless the boundaries that are known now are counts ≥ 0, each above the one before."""
    numbers = [boundary for boundary in boundaries if known(boundary)]
    if any(number < 0 for number in numbers):
        raise HyperparamError(f"{name} are {numbers}, but counts start at 0; give boundaries >= 0")
    if any(later <= earlier for earlier, later in itertools.pairwise(numbers)):
        raise HyperparamError(
            f"{name} are {numbers}, which do not increase; write them in order, each above the one before"
        )
