"""Parts of schedules: elapsed steps, weights of a phase, and checks.

    phase(count, a, b)  = (left, done) = ((b − t)/(b − a), (t − a)/(b − a)),
                          t = count held inside [a, b]
    blend(w, old, new)  = w.old old + w.new new,  where w is a phase, or a SHAPE of one
    travel              = blend along a shape, or old^w.old new^w.new for "exponential"

Before a phase the weights are (1, 0), and after it (0, 1). Blending phases in order therefore needs
no test of which phase is running. There are two weights, since 1 − done loses its digits near the
end of a phase, and 1 − left those near its start.

Parameters may be tracers, so nothing here branches on a number; the checks look at Python numbers
only."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from gradtx.definition.errors import HyperparamError
from gradtx.definition.schedule import Schedule, wide_count
from gradtx.definition.types import Array, ArrayLike, Hyperparam


class Weights(NamedTuple):
    """The shares of the value before a phase and of the value after it."""

    old: Array
    new: Array


def number(value: Hyperparam | ArrayLike) -> Array:
    """A parameter as an array of its own dtype, or of JAX's default integer dtype."""
    if isinstance(value, Schedule):
        raise HyperparamError(
            f"{value!r} is a parameter of another schedule, which must be a number; "
            "combine schedules with join_schedules, with_warmup or shift_schedule"
        )
    # A plain function is a `Schedule` by now.
    array = jnp.asarray(value)  # pyright: ignore[reportArgumentType]
    # Unsigned and narrow integers would wrap in differences.
    return wide_count(array, "a schedule") if jnp.issubdtype(array.dtype, jnp.integer) else array


def real(value: Hyperparam | ArrayLike) -> Array:
    """A parameter in JAX's default floating dtype: float32, or float64 under x64."""
    return jnp.asarray(number(value), jnp.result_type(float))


def same_kind(left: Hyperparam | ArrayLike, right: Hyperparam | ArrayLike) -> tuple[Array, Array]:
    """Two numbers of one kind: exact integers where both are, else both real."""
    left, right = number(left), number(right)
    whole = jnp.issubdtype(left.dtype, jnp.integer) and jnp.issubdtype(right.dtype, jnp.integer)
    return (left, right) if whole else (real(left), real(right))


def fill(count: ArrayLike, value: Hyperparam) -> Array:
    """A value for every count, broadcast to the shape of the counts."""
    value = real(value)
    return jnp.broadcast_to(value, jnp.broadcast_shapes(value.shape, jnp.shape(count)))


def steps_since(count: ArrayLike, start: Hyperparam) -> Array:
    """count − start, held inside [0, largest integer].

    A start below 0 does not make a large count wrap.
    """
    count, start = same_kind(count, start)
    moved = count - start
    if jnp.issubdtype(moved.dtype, jnp.inexact):
        return jnp.maximum(moved, 0)
    wrapped = (start < 0) & (moved < count)
    return jnp.maximum(jnp.where(wrapped, jnp.iinfo(moved.dtype).max, moved), 0)


def add_steps(count: ArrayLike, steps: Hyperparam) -> Array:
    """count + steps, held inside [0, largest integer]."""
    return steps_since(count, -number(steps))


def at_least_zero(length: Any) -> Any:
    """A length, or 0 where it is negative; a Python number stays one."""
    return max(length, 0) if isinstance(length, int | float) else jnp.maximum(length, 0)


def has_begun(count: ArrayLike, start: Hyperparam) -> Array:
    """Whether count ≥ start."""
    count, start = same_kind(count, start)
    return count >= start


def phase(count: ArrayLike, start: Hyperparam, stop: Hyperparam) -> Weights:
    """The shares of [start, stop] that are left and done.

    A phase without length is over when it begins.
    """
    start, stop = same_kind(start, stop)
    elapsed, steps = same_kind(steps_since(count, start), stop - start)
    elapsed, lasting = jnp.minimum(elapsed, steps), steps > 0
    length = real(jnp.where(lasting, steps, 1))
    over = real(has_begun(count, start))
    return Weights(
        jnp.where(lasting, real(steps - elapsed) / length, 1 - over),
        jnp.where(lasting, real(elapsed) / length, over),
    )


def blend(weights: Weights, old: Hyperparam, new: Hyperparam) -> Array:
    """The value part of the way from `old` to `new`."""
    return weights.old * real(old) + weights.new * real(new)


def power(base: Array, exponent: Hyperparam) -> Array:
    """base^exponent for base ≥ 0, with 0^0 = 1."""
    positive, exponent = base > 0, real(exponent)
    # The inner `where` makes the gradient 0 instead of nan where base is 0.
    return jnp.where(positive, jnp.where(positive, base, 1) ** exponent, real(exponent == 0))


def _linear(weights: Weights) -> Weights:
    return weights


def _cosine(weights: Weights) -> Weights:
    """½ (1 + cos π done) = sin²(½ π left): equal, and exact at both ends."""
    return Weights(*(jnp.sin(0.5 * jnp.pi * weight) ** 2 for weight in weights))


def _one_minus_sqrt(weights: Weights) -> Weights:
    root = power(weights.new, 0.5)
    return Weights(weights.old / (1 + root), root)  # 1 − root would lose its digits near the end


def _sqrt(weights: Weights) -> Weights:
    root = power(weights.old, 0.5)
    return Weights(root, weights.new / (1 + root))


SHAPES: Mapping[str, Callable[[Weights], Weights]] = {
    "linear": _linear,
    "cosine": _cosine,
    "1-sqrt": _one_minus_sqrt,
    "sqrt": _sqrt,
    "exponential": _linear,
}
"""Shapes of a phase, by name: functions of its weights; an exponential weighs logarithms."""


def raise_weights(weights: Weights, exponent: Hyperparam) -> Weights:
    """Raise the share of the old value to an exponent; the new value has the rest."""
    old = power(weights.old, exponent)
    # With an exponent of 1 the second weight keeps its digits, which 1 − old would lose.
    return Weights(old, jnp.where(real(exponent) == 1, weights.new, 1 - old))


def raise_done(weights: Weights, exponent: Hyperparam) -> Weights:
    """Raise the share of the new value to an exponent; the old value has the rest."""
    new = power(weights.new, exponent)
    return Weights(jnp.where(real(exponent) == 1, weights.old, 1 - new), new)


def travel(
    shape: str,
    weights: Weights,
    old: Hyperparam,
    new: Hyperparam,
    exponent: Hyperparam | None = None,
) -> Array:
    """The value part of the way from `old` to `new`, along a shape."""
    weights = SHAPES[shape](weights)
    weights = weights if exponent is None else raise_weights(weights, exponent)
    return (_geometric if shape == "exponential" else blend)(weights, old, new)


def _geometric(weights: Weights, old: Hyperparam, new: Hyperparam) -> Array:
    """old^w.old new^w.new, for two values of one sign."""
    old, new = real(old), real(new)
    inside = power(jnp.abs(old), weights.old) * power(jnp.abs(new), weights.new)
    # At both ends the exact values, which a power would round.
    left = jnp.where(weights.old > 0, jnp.sign(old) * inside, new)
    return jnp.where(weights.new > 0, left, old)


def route(
    count: ArrayLike,
    stops: Sequence[Hyperparam],
    values: Sequence[Hyperparam],
    shape: str = "linear",
) -> Array:
    """From values[0] at count 0 through values[i + 1] at stops[i], constant after the last stop."""
    value = fill(count, values[0])
    for start, stop, target in zip((0, *stops), stops, values[1:]):
        value = travel(shape, phase(count, start, stop), value, target)
    return value


def join(
    count: ArrayLike,
    schedules: Sequence[Callable[[ArrayLike], Hyperparam]],
    boundaries: Iterable[Hyperparam],
) -> Array:
    """The first schedule, and from each boundary on the next one, whose count starts at 0 there."""
    value = fill(count, schedules[0](count))
    for boundary, schedule in zip(boundaries, schedules[1:], strict=True):
        value = jnp.where(
            has_begun(count, boundary), real(schedule(steps_since(count, boundary))), value
        )
    return value


def are_numbers(*values: object) -> bool:
    """Whether all values are Python numbers, so that a check may compare them."""
    return all(isinstance(value, int | float) for value in values)


def check_shape(name: str, shape: str) -> None:
    """Raise if a shape of a phase has no such name."""
    if shape not in SHAPES:
        raise HyperparamError(
            f"{name} is {shape!r}, which is unknown; choose one of {', '.join(map(repr, SHAPES))}"
        )


def check_exponential(name: str, shape: str, *ends: object) -> None:
    """Raise if an exponential phase has an end that is a Python number and not above 0."""
    low = next((end for end in ends if isinstance(end, int | float) and end <= 0), None)
    if shape == "exponential" and low is not None:
        raise HyperparamError(
            f"{name}: an exponential phase cannot start or end at {low}; give values above 0, or "
            f"another shape"
        )


def check_counts(name: str, boundaries: Iterable[object]) -> Sequence[float]:
    """Raise unless the boundaries that are Python numbers are ≥ 0; return those."""
    numbers = [one for one in boundaries if isinstance(one, int | float)]
    if any(number < 0 for number in numbers):
        raise HyperparamError(f"{name} are {numbers}, but counts start at 0; give boundaries >= 0")
    return numbers


def check_increasing(name: str, boundaries: Iterable[object]) -> None:
    """Raise unless the boundaries that are Python numbers are ≥ 0 and increase."""
    numbers = check_counts(name, boundaries)
    if any(later <= earlier for earlier, later in itertools.pairwise(numbers)):
        raise HyperparamError(
            f"{name} are {numbers}, which do not increase; "
            "write them in order, each above the one before"
        )
