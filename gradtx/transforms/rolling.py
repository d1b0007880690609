r"""Rolling statistics: mean and deviation of the last numbers of a series, and its spikes.

m, s: mean and unbiased deviation of the last W numbers
s ← max(s, |m|/1000)
spike: x > m + z s              with two sides: |x − m| > z s

A number that is not finite never enters: it would make m and s NaN until it leaves the window.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.definition.errors import HyperparamError
from gradtx.engine.clock import next_count
from gradtx.tree.arithmetic import sqrt

FLOOR = 1e-3
"""The least deviation, in means: where numbers are equal, rounding alone would be a spike."""


class Statistics(NamedTuple):
    """The mean and the deviation of the numbers in a window."""

    mean: jax.Array
    deviation: jax.Array


def check_window(name: str, window: Any) -> None:
    """Raise unless a window holds two numbers at least."""
    if window < 2:
        raise HyperparamError(
            f"{name}: window = {window!r} is too short for a deviation, which needs two numbers: "
            f"give a whole number from 2 on, such as 128"
        )


def init_window(window: int) -> jax.Array:
    """Return a window before its first number: a ring, which number n enters at n mod W."""
    return jnp.zeros(window, jnp.result_type(float))


def statistics(history: jax.Array, count: jax.Array) -> Statistics:
    """Return the statistics of a window after `count` numbers; zeros before the first."""
    known = jnp.arange(history.shape[0], dtype=count.dtype) < count
    numbers = jnp.where(known, history, 0.0)
    # In units of the largest number: squares of large norms overflow.
    unit = jnp.max(jnp.abs(numbers))
    unit = jnp.where(unit > 0, unit, 1.0)
    total = jnp.clip(count, 1, history.shape[0]).astype(history.dtype)
    mean = jnp.sum(numbers / unit) / total
    distances = jnp.where(known, history / unit - mean, 0.0)
    variance = jnp.sum(distances**2) / jnp.maximum(total - 1, 1)
    return Statistics(unit * mean, unit * jnp.maximum(sqrt(variance), FLOOR * jnp.abs(mean)))


def is_spike(number: jax.Array, found: Statistics, zscore: jax.Array, two_sided: bool) -> jax.Array:
    """Return whether a number is far from the mean; False for NaN, and while there is no scale."""
    distance = number - found.mean
    distance = jnp.abs(distance) if two_sided else distance
    # In this order a NaN makes no spike, so that no statistic could skip every step.
    limit = jnp.asarray(zscore).astype(number.dtype) * found.deviation
    return (found.deviation > 0) & (distance > limit)


def is_active(count: jax.Array, window: int, warmup_steps: jax.Array) -> jax.Array:
    """Return whether enough numbers are known: `warmup_steps`, or the whole window."""
    needed = jnp.minimum(jnp.asarray(warmup_steps).astype(jnp.result_type(float)), window)
    return count.astype(needed.dtype) >= needed


def record(
    history: jax.Array, count: jax.Array, number: jax.Array, enters: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return the window with one more number where it enters, and the count of its numbers.

    From 2 W on the count goes back to W: the window is full, and the place is the same.
    """
    size = history.shape[0]
    # Entry by entry, not by a shift of all: XLA then writes the window in place.
    is_place = (jnp.arange(size, dtype=count.dtype) == count % size) & enters
    moved = next_count(count, enters)
    return jnp.where(is_place, number, history), jnp.where(moved == 2 * size, size, moved)
