"""The loss along a line θ + α u, and the slots of every line search."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.compose.pairs import accepted
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import ArrayLike, Params, PyTree, Updates
from gradtx.training.apply import apply_updates
from gradtx.tree.maps import map_leaves
from gradtx.tree.vectors import inner, scalar_dtype, vector

T = TypeVar("T")


class SearchSlots(NamedTuple):
    """The last step size, the loss and its gradient at the end of that step, and a report."""

    learning_rate: jax.Array
    value: jax.Array
    grad: Updates
    info: PyTree


class Point(NamedTuple):
    """A step size α, with the loss φ(α) and its slope φ'(α)."""

    step: jax.Array
    value: jax.Array
    slope: jax.Array


class Line(NamedTuple):
    """φ(α), the loss at θ + α u.

    The points are those that `apply_updates` will reach, with its rounding.
    """

    params: Params
    updates: Updates
    value_fn: Callable[[Params], ArrayLike]
    dtype: np.dtype
    """Of the scalars: α, φ and φ'."""
    start: Point
    """φ at α = 0, from the caller's loss and gradient."""
    grads: list[jax.Array]
    """The gradient there, array by array, as `jax.grad` returns it: of complex arrays the conjugate
    of the steepest ascent.
    """

    def point(self, step: jax.Array) -> Params:
        """θ + α u."""
        return apply_updates(self.params, self.scaled(step))

    def scaled(self, step: jax.Array) -> Updates:
        """α u, the updates for a step size: zero where α is, unless u is not finite there."""
        return map_leaves(_scale, self.updates, step=step)

    def at(self, step: jax.Array) -> tuple[Callable[..., jax.Array], list[jax.Array]]:
        """The loss as a function of a list of arrays, and the list at θ + α u."""
        point = vector(self.updates, self.point(step))

        def loss(arrays: Sequence[jax.Array]) -> jax.Array:
            return jnp.asarray(self.value_fn(point.fill(arrays))).astype(self.dtype)

        return loss, point.arrays

    def slope(self, grads: Sequence[jax.Array]) -> jax.Array:
        """The derivative along u, from a gradient as `jax.grad` returns it."""
        return _slope_along(self.updates, grads).astype(self.dtype)

    def store(self, grads: Sequence[jax.Array], old: Updates) -> Updates:
        """A gradient for the state, in the dtypes of `old`, which stays where u has no array."""
        like = vector(self.updates, old)
        pairs = zip(grads, like.arrays, strict=True)
        return like.fill([grad.astype(array.dtype) for grad, array in pairs])


EXTRA = ("value", "grad", "value_fn")
"""The extra arguments that `update` needs; the loss receives others, such as a batch, by name."""


def make_line(params: Params, updates: Updates, extra: Mapping[str, Any]) -> Line:
    """The line from the caller's parameters, with the loss there and the steepest ascent."""
    value, grad, function = (extra[name] for name in EXTRA)
    others = {name: one for name, one in extra.items() if name not in EXTRA}
    value_fn = functools.partial(function, **accepted(function, others))
    dtype = scalar_dtype(params)
    pairs = zip(vector(updates, grad).arrays, vector(updates, params).arrays, strict=True)
    # The caller passes the steepest ascent; of complex arrays `jax.grad` returns its conjugate.
    grads = [one.astype(array.dtype).conj() for one, array in pairs]
    slope = _slope_along(updates, grads).astype(dtype)
    start = Point(jnp.zeros((), dtype), jnp.asarray(value, dtype), slope)
    return Line(params, updates, value_fn, dtype, start, grads)


def _slope_along(updates: Updates, grads: Sequence[jax.Array]) -> jax.Array:
    # `inner` takes the conjugate of its first argument.
    return inner([grad.conj() for grad in grads], vector(updates, updates).arrays)


# At module level, so that searches share its kernel.
def _scale(update, *, step):
    return step * update


def until_done(search_round: Callable[[T], T], search: T) -> T:
    """Repeat rounds until the search says that it is done.

    This is a loop of the program where the search is traced, and else a loop of Python. Outside of
    jit a loop of the program would be compiled again at every step, with the loss in it.
    """
    while not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(search)):
        if search.done:  # pyright: ignore[reportAttributeAccessIssue]
            return search
        search = search_round(search)
    return jax.lax.while_loop(
        lambda search: ~search.done,  # pyright: ignore[reportAttributeAccessIssue]
        search_round,
        search,
    )


def cond(condition: jax.Array, yes: Callable[[], T], no: Callable[[], T]) -> T:
    """`jax.lax.cond`, which outside of jit calls one of two functions and compiles neither."""
    if isinstance(condition, Tracer):
        return jax.lax.cond(condition, yes, no)
    return yes() if condition else no()


def cast_like(new: T, old: T) -> T:
    """The scalars of a search, in the dtypes of the state."""
    return jax.tree.map(lambda mine, theirs: mine.astype(jnp.result_type(theirs)), new, old)


def error_above(*excess: jax.Array) -> jax.Array:
    """The largest violation of conditions `excess <= 0`: 0 if all hold, inf where one is nan."""
    most = jnp.stack(excess).max()
    return jnp.where(jnp.isnan(most), jnp.inf, jnp.maximum(most, 0.0))


def known_or_inf(value: jax.Array) -> jax.Array:
    """A loss for the state, where inf means that it is not known: nan would not leave it."""
    return jnp.where(jnp.isnan(value), jnp.inf, value)


def check_count(maker: str, name: str, value: object, least: int) -> None:
    """Raise where a number of steps is not a whole number, or is too small."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise HyperparamError(f"{maker}: {name} = {value!r} must be a whole number >= {least}")
