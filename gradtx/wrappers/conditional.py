"""Transformations that act at some steps only: while gradients are finite, or where a function of
the step says so.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.choosing import attach, detach, keep_if, run_if
from gradtx.compose.transformation import GradientTransformation, TransformationLike, definition
from gradtx.compose.treewise import treewise
from gradtx.compose.wrapwise import Member, wrapwise
from gradtx.definition.types import NonNegative
from gradtx.engine.rules import Child
from gradtx.tree.casts import as_array, is_inexact
from gradtx.tree.kernels import map_arrays
from gradtx.tree.maps import choose, map_leaves


class FiniteCounts(NamedTuple):
    """What `apply_if_finite` counts."""

    notfinite_count: Any
    """Steps in a row, up to the last one, whose gradients were not finite."""
    last_finite: Any
    """Whether those of the last step were."""
    total_notfinite: Any
    """All steps so far whose gradients were not."""
    applied: Any
    """Steps at which `inner` acted: what its clock says."""


def _all_finite(array: jax.Array) -> jax.Array:
    return jnp.all(jnp.isfinite(array))


def is_finite(tree: Any) -> jax.Array:
    """Whether every entry of every float or complex array of a tree is finite."""
    arrays = [as_array(leaf) for leaf in jax.tree.leaves(tree) if is_inexact(leaf)]
    return jnp.stack(map_arrays(_all_finite, arrays)).all() if arrays else jnp.asarray(True)


def _init_finite(params: Any, *, inner: GradientTransformation) -> dict[str, Any]:
    row, all_of_them, applied = (jnp.zeros((), jnp.int32) for _ in range(3))
    return attach(
        inner.init_slots(params),
        "apply_if_finite",
        FiniteCounts(row, jnp.asarray(True), all_of_them, applied),
    )


def _update_finite(
    updates: Any,
    slots: Any,
    params: Any,
    step: Any,
    *,
    inner: GradientTransformation,
    max_consecutive_errors: Any,
    extra: Any,
    gate: Any,
) -> Any:
    old, counts = detach(slots, "apply_if_finite")
    finite = is_finite(updates)
    in_a_row = jnp.where(finite, 0, counts.notfinite_count + 1)
    usable = finite | (in_a_row > max_consecutive_errors)
    now = FiniteCounts(in_a_row, finite, counts.total_notfinite + ~finite, counts.applied + usable)
    asked = usable if gate is None else gate & usable
    updates, new = inner.update_slots(updates, old, params, counts.applied + 1, extra, asked)
    return keep_if(asked, updates), attach(new, "apply_if_finite", choose(gate, now, counts))


def _inside_finite(slots: Any, count: Any, *, inner: GradientTransformation) -> list[Child]:
    kept, counts = detach(slots, "apply_if_finite")
    return [Child(inner, kept, counts.applied)]


@definition
def apply_if_finite(
    inner: TransformationLike, max_consecutive_errors: NonNegative
) -> GradientTransformation:
    r"""Leave out the steps whose gradients hold inf or nan: updates of zero, and the slots of
    `inner` as they were.

    A step left out does not count: schedules and bias corrections go on where they were, and so
    does the state's own count where this is the whole definition. After more than
    `max_consecutive_errors` such steps in a row `inner` acts on what there is, so that a run that
    is lost shows it.

    When: training in low precision, where a batch now and then overflows. When not: gradients are
    never finite again once they were not; find the cause.

    Args:
      inner: the transformation; put the whole chain here.
      max_consecutive_errors: how many steps in a row may be left out, ≥ 0; 5 to 100.

    Raises:
      HyperparamError: a negative number.

    State: that of `inner`, and beside it under "apply_if_finite" the counts `notfinite_count`
    (steps in a row up to now), `last_finite`, `total_notfinite` and `applied`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.apply_if_finite(gradtx.sgd(0.5, momentum=0.9), max_consecutive_errors=2)
    >>> w = jnp.array([1.0, 1.0])
    >>> _, state = tx.update(w, tx.init(w))
    >>> updates, state = tx.update(jnp.array([jnp.nan, 1.0]), state)
    >>> updates.tolist(), state.slots["trace"].trace.tolist(), int(state.slots["apply_if_finite"].total_notfinite)
    ([-0.0, -0.0], [1.0, 1.0], 1)

    See also: `guard`, `zero_nans`, `conditionally_transform`.
    """
    return treewise(
        _init_finite,
        _update_finite,
        max_consecutive_errors=max_consecutive_errors,
        inner=inner,
        children=_inside_finite,
        own_clock=True,
    )


class Applied(NamedTuple):
    """What the conditional wrappers count."""

    applied: Any
    """Steps at which `inner` acted: what its clock says."""


def _init_conditional(params: Any) -> Applied:
    return Applied(jnp.zeros((), jnp.int32))


def _conditional(
    updates: Any,
    own: Applied,
    params: Any,
    step: Any,
    *,
    inner: Member,
    should_transform_fn: Callable[..., Any],
    forward_extra_args: bool,
    otherwise: Callable[[Any], Any],
    extra: Any,
) -> Any:
    acts = should_transform_fn(jnp.asarray(step) - 1, **(extra if forward_extra_args else {}))
    acts = jnp.asarray(acts, bool)

    def act() -> Any:
        made, member = inner.update(updates, params)
        return made, member.slots

    updates, slots = run_if(acts, act, lambda: (otherwise(updates), inner.slots))
    return updates, inner._replace(slots=slots), Applied(own.applied + acts)


def _as_they_are(updates: Any) -> Any:
    return updates


def _zeros(updates: Any) -> Any:
    return map_leaves(jnp.zeros_like, updates)


@definition
def conditionally_transform(
    inner: TransformationLike,
    should_transform_fn: Callable[..., Any],
    forward_extra_args: bool = False,
) -> GradientTransformation:
    r"""`inner` at the steps that a function chooses; at the others updates pass through, and
    `inner` does not run.

    Its clock counts the steps at which it acted. What is left out costs nothing: the choice is a
    branch of the program.

    When: something costly or rough is for every k-th step only, or for those of a phase. When not:
    updates are to be zero at the other steps; take `conditionally_mask`.

    Args:
      inner: the transformation.
      should_transform_fn: `should_transform_fn(count) -> bool`, count = 0, 1, 2, ...: updates made
        so far. Static.
      forward_extra_args: call it with the extra arguments of `update` by name, too:
        `should_transform_fn(count, **extra)`.

    State: that of `inner`, and beside it under "conditionally_transform" the count `applied`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.conditionally_transform(gradtx.clip(1.0), lambda count: count < 2)
    >>> state, g, seen = tx.init(jnp.zeros(())), jnp.array(5.0), []
    >>> for _ in range(4):
    ...     u, state = tx.update(g, state)
    ...     seen.append(u.item())
    >>> seen, int(state.slots["conditionally_transform"].applied)
    ([1.0, 1.0, 5.0, 5.0], 2)

    See also: `conditionally_mask`.
    """
    return wrapwise(
        inner,
        _init_conditional,
        _conditional,
        clock="applied",
        should_transform_fn=should_transform_fn,
        forward_extra_args=forward_extra_args,
        otherwise=_as_they_are,
    )


@definition
def conditionally_mask(
    inner: TransformationLike,
    should_transform_fn: Callable[..., Any],
    forward_extra_args: bool = False,
) -> GradientTransformation:
    r"""`inner` at the steps that a function chooses; at the others updates are zero, and `inner`
    does not run.

    Its clock counts the steps at which it acted. What is left out costs nothing: the choice is a
    branch of the program.

    When: parameters are to stand still at some steps, such as those of one of two players. When
    not: updates are to pass through at the other steps; take `conditionally_transform`.

    Args:
      inner: the transformation.
      should_transform_fn: `should_transform_fn(count) -> bool`, count = 0, 1, 2, ...: updates made
        so far. Static.
      forward_extra_args: call it with the extra arguments of `update` by name, too:
        `should_transform_fn(count, **extra)`.

    State: that of `inner`, and beside it under "conditionally_mask" the count `applied`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.conditionally_mask(gradtx.trace(1.0), lambda count: count % 2 == 1)
    >>> state, g, seen = tx.init(jnp.zeros(())), jnp.array(1.0), []
    >>> for _ in range(4):
    ...     u, state = tx.update(g, state)
    ...     seen.append(u.item())
    >>> seen
    [0.0, 1.0, 0.0, 2.0]

    See also: `conditionally_transform`, `freeze`.
    """
    return wrapwise(
        inner,
        _init_conditional,
        _conditional,
        clock="applied",
        should_transform_fn=should_transform_fn,
        forward_extra_args=forward_extra_args,
        otherwise=_zeros,
    )
