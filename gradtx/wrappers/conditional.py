"""Wrappers that act at some steps only: at finite gradients, or by a function of the step."""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.choosing import keep_if, run_if
from gradtx.compose.transformation import GradientTransformation, TransformationLike, definition
from gradtx.compose.wrapwise import Member, wrapwise
from gradtx.definition.types import Limit, PyTree
from gradtx.engine.clock import next_count
from gradtx.tree.casts import as_array, is_inexact, promote
from gradtx.tree.kernels import map_arrays
from gradtx.tree.maps import map_leaves


class FiniteCounts(NamedTuple):
    """The counters of `apply_if_finite`."""

    notfinite_count: jax.Array
    """The number of latest steps in a row whose gradients were not finite."""
    last_finite: jax.Array
    """Whether the gradients of the last step were finite."""
    total_notfinite: jax.Array
    """The number of all steps so far whose gradients were not finite."""
    applied: jax.Array
    """The number of updates that `inner` made: its clock."""


def _all_finite(array: jax.Array) -> jax.Array:
    return jnp.all(jnp.isfinite(array))


def is_finite(tree: PyTree) -> jax.Array:
    """Whether every entry of every float or complex array of a tree is finite."""
    arrays = [as_array(leaf) for leaf in jax.tree.leaves(tree) if is_inexact(leaf)]
    return jnp.stack(map_arrays(_all_finite, arrays)).all() if arrays else jnp.asarray(True)


def _init_finite(params) -> FiniteCounts:
    # Each counter is an array of its own: one array twice could not be donated.
    in_a_row, total, applied = (jnp.zeros((), jnp.int32) for _ in range(3))
    return FiniteCounts(in_a_row, jnp.asarray(True), total, applied)


def _apply_if_finite(
    updates, own: FiniteCounts, params, step, *, inner: Member, max_consecutive_errors
):
    finite = is_finite(updates)
    in_a_row = jnp.where(finite, 0, next_count(own.notfinite_count))
    usable = finite | operator.gt(*promote(in_a_row, max_consecutive_errors))
    updates, inner = inner.update(updates, params, gate=usable)
    total, applied = next_count(own.total_notfinite, ~finite), next_count(own.applied, usable)
    return keep_if(usable, updates), inner, FiniteCounts(in_a_row, finite, total, applied)


@definition
def apply_if_finite(
    inner: TransformationLike, max_consecutive_errors: Limit
) -> GradientTransformation:
    r"""Skip steps whose gradients hold inf or nan (NaN).

    At a skipped step updates are zero, and `inner` keeps its slots. Such a step does not count:
    schedules and bias corrections continue at the next finite step. Where this wrapper is the whole
    definition, the state's own count does not grow either. After more than
    `max_consecutive_errors` such steps in a row, `inner` receives the gradients as they are, so
    that a lost run becomes visible.

    When: training in low precision, where a batch overflows now and then. When not: gradients that
    stay non-finite once they were; find the cause.

    Args:
      inner: the transformation; put the whole chain here.
      max_consecutive_errors: how many steps in a row may be skipped, ≥ 0; 5 to 100.

    Raises:
      HyperparamError: a negative number.

    State: that of `inner`, and under "apply_if_finite" the counts `notfinite_count`
    (steps in a row up to now), `last_finite`, `total_notfinite` and `applied`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.apply_if_finite(gradtx.sgd(0.5, momentum=0.9), max_consecutive_errors=2)
    >>> w = jnp.array([1.0, 1.0])
    >>> _, state = tx.update(w, tx.init(w))
    >>> updates, state = tx.update(jnp.array([jnp.nan, 1.0]), state)
    >>> updates.tolist(), state.slots["trace"].trace.tolist()
    ([-0.0, -0.0], [1.0, 1.0])
    >>> int(state.slots["apply_if_finite"].total_notfinite)
    1

    See also: `guard`, `zero_nans`, `conditionally_transform`.
    """
    return wrapwise(inner, _init_finite, _apply_if_finite, clock="applied", leads=True)


class Applied(NamedTuple):
    """The counter of the conditional wrappers."""

    applied: jax.Array
    """The number of updates that `inner` made: its clock."""


def _init(params) -> Applied:
    return Applied(jnp.zeros((), jnp.int32))


def _conditional(
    updates,
    own: Applied,
    params,
    step,
    *,
    inner: Member,
    should_transform_fn: Callable[..., Any],
    forward_extra_args: bool,
    otherwise: Callable[..., Any],
    extra,
):
    # The function receives the count, the number of updates before this one, as in Optax.
    gate = should_transform_fn(jnp.asarray(step) - 1, **(extra if forward_extra_args else {}))
    gate = jnp.asarray(gate, bool)

    def run():
        new, member = inner.update(updates, params)
        return new, member.slots

    updates, slots = run_if(gate, run, lambda: (otherwise(updates), inner.slots))
    return updates, inner._replace(slots=slots), Applied(next_count(own.applied, gate))


def _pass_through(updates):
    return updates


def _zeros(updates):
    return map_leaves(jnp.zeros_like, updates)


@definition
def conditionally_transform(
    inner: TransformationLike,
    should_transform_fn: Callable[..., Any],
    forward_extra_args: bool = False,
) -> GradientTransformation:
    r"""Run `inner` at the steps that a function selects.

    At the other steps updates pass through, and `inner` does not run. Its clock counts the steps at
    which it ran. The selection is a branch of the program, so the other steps cost nothing.

    When: something costly or rough is for every k-th step only, or for the steps of one phase. When
    not: updates are to be zero at the other steps; use `conditionally_mask`.

    Args:
      inner: the transformation.
      should_transform_fn: `should_transform_fn(count) -> bool`, with count = 0, 1, 2, ..., the
        number of earlier updates. Static.
      forward_extra_args: also pass the extra arguments of `update` to that function, by name:
        `should_transform_fn(count, **extra)`.

    State: that of `inner`, and under "conditionally_transform" the count `applied`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.conditionally_transform(gradtx.clip(1.0), lambda count: count < 2)
    >>> state, g, outputs = tx.init(jnp.zeros(())), jnp.array(5.0), []
    >>> for _ in range(4):
    ...     u, state = tx.update(g, state)
    ...     outputs.append(u.item())
    >>> outputs, int(state.slots["conditionally_transform"].applied)
    ([1.0, 1.0, 5.0, 5.0], 2)

    See also: `conditionally_mask`.
    """
    return wrapwise(inner, _init, _conditional, clock="applied", otherwise=_pass_through)


@definition
def conditionally_mask(
    inner: TransformationLike,
    should_transform_fn: Callable[..., Any],
    forward_extra_args: bool = False,
) -> GradientTransformation:
    r"""Run `inner` at the steps that a function selects; updates are zero at the others.

    `inner` does not run at the other steps, and its clock counts the steps at which it ran. The
    selection is a branch of the program, so the other steps cost nothing.

    When: parameters are to stay constant at some steps, for example in turns of two players. When
    not: updates are to pass through at the other steps; use `conditionally_transform`.

    Args:
      inner: the transformation.
      should_transform_fn: `should_transform_fn(count) -> bool`, with count = 0, 1, 2, ..., the
        number of earlier updates. Static.
      forward_extra_args: also pass the extra arguments of `update` to that function, by name:
        `should_transform_fn(count, **extra)`.

    State: that of `inner`, and under "conditionally_mask" the count `applied`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.conditionally_mask(gradtx.trace(1.0), lambda count: count % 2 == 1)
    >>> state, g, outputs = tx.init(jnp.zeros(())), jnp.array(1.0), []
    >>> for _ in range(4):
    ...     u, state = tx.update(g, state)
    ...     outputs.append(u.item())
    >>> outputs
    [0.0, 1.0, 0.0, 2.0]

    See also: `conditionally_transform`, `freeze`.
    """
    return wrapwise(inner, _init, _conditional, clock="applied", otherwise=_zeros)
