r"""Accumulate: one update from the mean gradient of several micro-batches.

With micro-steps i = 1, …, k of one update, gradients g_i and weights w_i (1 each, unless given):

    G ← w_1 g_1 at i = 1,  G ← G + w_i g_i after that      in float32 at least
    i = k:  u from the inner transformation at G / Σ w;    i < k:  u = 0

The update takes the place of the sum, whose time is over: so a step needs no memory beside its
arguments."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from gradtx.compose.choosing import attach, detach, run_in_place_if
from gradtx.compose.transformation import GradientTransformation, TransformationLike, definition
from gradtx.compose.treewise import treewise
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import DTypeLike
from gradtx.engine.rules import Child
from gradtx.tree.casts import as_array, is_inexact, zeros
from gradtx.tree.maps import make_leaves, map_leaves
from gradtx.tree.paths import is_none
from gradtx.wrappers.guard import Steps


class Accumulated(NamedTuple):
    """What the micro-steps of the update to come have gathered."""

    total: Any
    """Σ w g, a tree like the parameters. It counts only while `micro_step` is not 0; just after an
    update it holds that update.
    """
    weight: Any
    """Σ w."""
    value: Any
    """Σ w L, where the inner transformation asks for the loss L, else None."""
    micro_step: Any
    """How many micro-steps have been gathered."""
    applied: Any
    """Updates that the inner transformation has made: what its clock says."""


def _init(
    params: Any, *, inner: GradientTransformation, accumulator_dtype: DTypeLike | None
) -> dict[str, Accumulated]:
    total = make_leaves(zeros, params)
    if accumulator_dtype is not None:
        total = jax.tree.map(
            lambda leaf: leaf.astype(jnp.promote_types(accumulator_dtype, _kind(leaf))), total
        )
    real = jnp.result_type(float)
    value = jnp.zeros((), real) if "value" in inner.needs else None
    micro_step, applied = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
    return attach(
        inner.init_slots(params),
        "accumulate",
        Accumulated(total, jnp.zeros((), real), value, micro_step, applied),
    )


def _kind(leaf: jax.Array) -> Any:
    return jnp.complex64 if jnp.iscomplexobj(leaf) else jnp.bfloat16


def _add(
    total: jax.Array,
    grad: jax.Array | None,
    *,
    weight: jax.Array,
    first: jax.Array,
    counts: jax.Array,
    share: jax.Array,
) -> jax.Array:
    """The sum and one more; at the last one the mean, in the same kernel.

    What weighs nothing adds nothing, be it nan, as the mean over no tokens is. No gradient adds
    nothing either."""
    part = (
        jnp.zeros_like(total)
        if grad is None
        else jnp.where(weight > 0, weight * grad, jnp.zeros_like(grad))
    )
    return jnp.where(counts, jnp.where(first, part, total + part) * share, total)


def _count(kept: Accumulated, weight: Any, value: Any, counts: Any) -> Accumulated:
    """One micro-step more, if it counts, in all but the sum; the first one starts anew, whatever
    the last update left.
    """
    ones = (
        jnp.ones_like(kept.weight),
        None if kept.value is None else jnp.asarray(value, kept.value.dtype),
    )
    told = {"weight": weight, "first": kept.micro_step == 0, "counts": counts, "share": 1.0}
    of_weight, of_value = map_leaves(_add, (kept.weight, kept.value), ones, **told)
    return kept._replace(weight=of_weight, value=of_value, micro_step=kept.micro_step + counts)


def _as(held: jax.Array, update: jax.Array | None) -> jax.Array:
    return held if update is None else update


def _nothing(update: jax.Array) -> jax.Array:
    """−0, which added to a parameter leaves its bits; made from the update, so that it lies on the
    same devices.
    """
    return jnp.where(jnp.zeros_like(update, bool), update, -jnp.zeros_like(update))


def _release(update: jax.Array, held: jax.Array, *, due: jax.Array) -> jax.Array:
    return jnp.where(due, held, -jnp.zeros_like(held))


def _holds(total: Any, updates: Any) -> bool:
    """Whether the arrays of the sum are wide enough for the updates, too."""
    pairs = zip(
        jax.tree.leaves(total, is_leaf=is_none),
        jax.tree.leaves(updates, is_leaf=is_none),
        strict=True,
    )
    return all(
        _both(one, other) == one.dtype
        for one, other in pairs
        if one is not None and other is not None
    )


def _both(total: jax.Array, update: Any) -> Any:
    """The dtype that holds what either does."""
    return jnp.promote_types(total.dtype, as_array(update).dtype)


def _update(
    updates: Any,
    slots: Any,
    params: Any,
    step: Any,
    *,
    inner: GradientTransformation,
    every: Any,
    use_grad_mean: bool,
    should_skip_update_fn: Callable[..., Any] | None,
    extra: Mapping[str, Any],
    gate: Any,
) -> Any:
    old, before = detach(slots, "accumulate")
    counts = jnp.asarray(True if gate is None else gate)
    if should_skip_update_fn is not None:
        counts &= ~jnp.asarray(should_skip_update_fn(updates, before.applied, params)[0], bool)
    weight, first = checked_weight(extra.get("weight", 1.0)), before.micro_step == 0
    kept = _count(before, weight, extra.get("value"), counts)
    due, usable = (kept.micro_step >= every) & counts, kept.weight > 0
    check_weights(due, usable, kept.micro_step)
    due_now = due & usable
    share = (
        jnp.where(due_now, 1 / jnp.where(usable, kept.weight, 1.0), 1.0)
        if use_grad_mean
        else jnp.ones_like(kept.weight)
    )
    total = map_leaves(
        _add, before.total, updates, weight=weight, first=first, counts=counts, share=share
    )
    in_place = _holds(total, updates)
    held = total if in_place else map_leaves(_nothing, updates)

    def act(held: Any, old: Any) -> Any:
        grads = jax.tree.map(_widened, updates, held if in_place else total, is_leaf=is_none)
        told = _told(extra, grads, None if kept.value is None else kept.value * share)
        made, new = inner.update_slots(grads, old, params, kept.applied + 1, told)
        return map_leaves(_as, held, made), new

    held, new = run_in_place_if(due_now, act, _as_they_are, held, old)
    kept = kept._replace(
        total=held if in_place else total,
        micro_step=jnp.where(due, 0, kept.micro_step),
        applied=kept.applied + due_now,
    )
    return map_leaves(_release, updates, held, due=due_now), attach(new, "accumulate", kept)


def _as_they_are(held: Any, old: Any) -> Any:
    return held, old


def _widened(grad: Any, total: Any) -> Any:
    """A mean, as exact as both it and the gradient are; None and integers as they are."""
    return total.astype(_both(total, grad)) if is_inexact(grad) else grad


def _told(extra: Mapping[str, Any], grads: Any, value: Any) -> dict[str, Any]:
    """The extra arguments as the inner transformation sees them: loss and gradient are means too,
    weights are done with.
    """
    told = {name: given for name, given in extra.items() if name != "weight"}
    means = {"grad": grads, "value": value}
    return {
        **told,
        **{name: mean for name, mean in means.items() if name in told and mean is not None},
    }


def check_weights(due: jax.Array, usable: jax.Array, micro_step: jax.Array) -> None:
    """Raise, outside of jit, when an update is due from nothing."""
    if not isinstance(due & usable, Tracer) and due and not usable:
        raise HyperparamError(
            f"accumulate: the weights of the last {int(micro_step)} micro-batches sum to 0, so they have no mean: give each micro-batch "
            "a weight > 0, or leave those out that hold nothing"
        )


def checked_weight(weight: Any) -> jax.Array:
    """The weight of a micro-batch; an error where a number is known that is none."""
    found = jnp.asarray(weight, jnp.result_type(float))
    if found.ndim:
        raise HyperparamError(
            f"accumulate: weight= has shape {found.shape}: give one number for the micro-batch, such as its tokens"
        )
    if not isinstance(found, Tracer) and not (float(found) >= 0 and jnp.isfinite(found)):
        raise HyperparamError(
            f"accumulate: weight = {float(found)!r} is outside its range [0, inf): give how much the micro-batch counts"
        )
    return found


def _inside(slots: Any, count: Any, *, inner: GradientTransformation) -> list[Child]:
    old, kept = detach(slots, "accumulate")
    return [Child(inner, old, kept.applied)]


def _report(slots: Any) -> dict[str, Any]:
    return {"micro_step": slots["accumulate"].micro_step}


@definition
def accumulate(
    inner: TransformationLike,
    every: Steps,
    *,
    use_grad_mean: bool = True,
    should_skip_update_fn: Callable[..., Any] | None = None,
    accumulator_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    r"""One update of `inner` from the mean gradient of k micro-batches; the updates of the
    micro-steps between are zero.

    For every array G and g of one shape: G ← G + w g, and at the k-th micro-step u from `inner` at
    G / Σ w. A micro-step that is not due costs that sum, and no run of `inner`; clips, schedules
    and statistics see each mean once, so the result is that of the large batch, to float32
    rounding. Updates in between are −0, so that parameters keep their bits, whatever was gathered:
    an inf acts when its mean is due, not before.

    The clock of `inner` counts its own updates. Where `accumulate` is the whole definition,
    `state.count` is that clock, and schedules and `hyperparams(tx, at=state)` go by it; `every` as
    a schedule is read there too.

    Micro-batches of different size are weighed by `update(..., weight=tokens)`; one that weighs 0
    counts as a micro-step and adds nothing, not even a nan. When `inner` asks for `value=`, it is
    told the mean loss.

    When: the batch that is wanted does not fit into memory, or arrives in pieces. When not: all
    micro-batches are at hand at once; `make_step(..., microbatches=k)` runs them in one step, and
    keeps no sum between steps.

    Args:
      inner: the transformation; put the whole chain here. `guard(accumulate(...))` drops bad
        micro-batches, `accumulate(guard(...))` bad means.
      every: k ≥ 1, micro-steps to an update; a schedule is read at the number of updates made.
      use_grad_mean: False: u from `inner` at G itself, the sum.
      should_skip_update_fn: `(updates, count, params) -> (skip, anything)`, as for Optax's
        `MultiSteps`: whether a micro-step is to count for nothing. Static.
      accumulator_dtype: dtype of G; None: the gradient's, float32 at least.

    Raises:
      HyperparamError: k below 1, or no whole number; a weight that is negative, not finite, or no
        scalar; outside of jit, weights that sum to 0. Within jit such a sum makes no update, and
        the next one begins.

    State: 4 bytes per parameter (G), and that of `inner`; beside it, under "accumulate", also the
    numbers `weight`, `value`, `micro_step` and `applied`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.accumulate(gradtx.sgd(1.0), every=2)
    >>> state, seen = tx.init(jnp.zeros(())), []
    >>> for g in (1.0, 3.0, 5.0, 5.0):
    ...     u, state = tx.update(jnp.array(g), state)
    ...     seen.append(u.item())
    >>> seen, int(state.count)
    ([-0.0, -2.0, -0.0, -5.0], 2)

    See also: `make_step`, `guard`, `MultiSteps`.
    """
    if isinstance(every, bool) or (isinstance(every, float) and every != int(every)):
        raise HyperparamError(
            f"accumulate: every = {every!r} is no number of micro-steps; give a whole number from 1 on, or a schedule"
        )
    return treewise(
        _init,
        _update,
        every=every,
        use_grad_mean=use_grad_mean,
        should_skip_update_fn=should_skip_update_fn,
        accumulator_dtype=accumulator_dtype,
        inner=inner,
        children=_inside,
        report=_report,
        own_clock=True,
    )
