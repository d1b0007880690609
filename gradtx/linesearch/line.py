"""The loss along a line θ + α u, and what every line search keeps of it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from gradtx.definition.errors import HyperparamError
from gradtx.training.apply import apply_updates
from gradtx.tree.arithmetic import sum_promoted
from gradtx.tree.casts import compute_dtype
from gradtx.tree.kernels import map_arrays
from gradtx.tree.maps import map_leaves
from gradtx.tree.vectors import scalar_dtype, vector


class Searched(NamedTuple):
    """What a line search keeps: the step size it took, and the loss and its gradient where that
    led.
    """

    learning_rate: jax.Array
    value: jax.Array
    grad: Any
    info: Any


class Point(NamedTuple):
    """A step size α, with the loss φ(α) and its slope φ'(α)."""

    step: Any
    value: Any
    slope: Any


class Line(NamedTuple):
    """φ(α), the loss at θ + α u. The points are those that `apply_updates` will reach, roundings
    included.
    """

    params: Any
    updates: Any
    value_fn: Callable[[Any], Any]
    dtype: Any
    """Of the scalars: α, φ and φ'."""
    start: Point
    """φ at α = 0, as the caller told."""
    grads: list[jax.Array]
    """The gradient there, array by array, as `jax.grad` gives it: of complex arrays the conjugate
    of the steepest ascent.
    """

    def along(self, step: jax.Array) -> Any:
        """θ + α u."""
        return apply_updates(self.params, self.scaled(step))

    def scaled(self, step: jax.Array) -> Any:
        """α u, the updates for a step size: zero where α is, unless u is not finite there."""
        return map_leaves(_scale, self.updates, step=step)

    def at(self, step: jax.Array) -> tuple[Callable[[Sequence[Any]], jax.Array], list[jax.Array]]:
        """The loss as a function of a list of arrays, and the list at θ + α u."""
        point = vector(self.updates, self.along(step))
        return lambda arrays: jnp.asarray(self.value_fn(point.fill(arrays))).astype(
            self.dtype
        ), point.arrays

    def slope(self, grads: Sequence[jax.Array]) -> jax.Array:
        """The derivative along u, of a gradient as `jax.grad` gives it."""
        changes = vector(self.updates, self.updates).arrays
        return sum_promoted(map_arrays(_slope, changes, grads) if changes else []).astype(
            self.dtype
        )

    def stored(self, grads: Sequence[jax.Array], old: Any) -> Any:
        """A gradient as the state keeps it, in the dtypes of the one before, which stays where
        there is no update.
        """
        like = vector(self.updates, old)
        return like.fill(
            [grad.astype(kept.dtype) for grad, kept in zip(grads, like.arrays, strict=True)]
        )


def line(params: Any, updates: Any, value: Any, grad: Any, value_fn: Callable[[Any], Any]) -> Line:
    """The line from where the caller stands, with the loss there and the steepest ascent."""
    dtype = scalar_dtype(params)
    arrays, given = vector(updates, params).arrays, vector(updates, grad).arrays
    grads = [one.astype(array.dtype).conj() for one, array in zip(given, arrays, strict=True)]
    found = Line(
        params,
        updates,
        value_fn,
        dtype,
        Point(jnp.zeros((), dtype), jnp.asarray(value, dtype), None),
        grads,
    )
    return found._replace(start=found.start._replace(slope=found.slope(grads)))


def _slope(update: jax.Array, grad: jax.Array) -> jax.Array:
    return jnp.sum((update.astype(dtype := compute_dtype(update.dtype)) * grad.astype(dtype)).real)


def _scale(update: jax.Array, *, step: jax.Array) -> jax.Array:
    return step * update


def until_done(turn: Callable[[Any], Any], search: Any) -> Any:
    """Rounds until the search says that it is done: a loop of the program where it is traced, else
    one of Python's.

    Outside of jit a loop of the program would be compiled anew at every step, with the loss in it.
    """
    while not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(search)):
        if search.done:
            return search
        search = turn(search)
    return jax.lax.while_loop(lambda search: ~search.done, turn, search)


def either(condition: jax.Array, yes: Callable[[], Any], no: Callable[[], Any]) -> Any:
    """One of two results, and only that one computed; outside of jit nothing is compiled for it."""
    if isinstance(condition, Tracer):
        return jax.lax.cond(condition, yes, no)
    return yes() if condition else no()


def as_before(slots: Searched, learning_rate: jax.Array, value: jax.Array, info: Any) -> list[Any]:
    """The scalars of a search in the dtypes that the state has them in."""
    kept = [slots.learning_rate, slots.value, slots.info]
    return jax.tree.map(lambda new, old: new.astype(old.dtype), [learning_rate, value, info], kept)


def error_above(*excess: jax.Array) -> jax.Array:
    """By how much conditions `excess <= 0` that must all hold are missed: 0 if they hold, inf where
    one is no number.
    """
    most = jnp.stack(excess).max()
    return jnp.where(jnp.isnan(most), jnp.inf, jnp.maximum(most, 0.0))


def check_count(maker: str, name: str, value: Any, least: int) -> None:
    """Raise where a number of steps is no whole number, or too small."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise HyperparamError(f"{maker}: {name} = {value!r} must be a whole number >= {least}")
