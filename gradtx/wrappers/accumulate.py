r"""Gradient accumulation: one update from the mean gradient of several micro-batches.

With micro-steps i = 1, …, k of one update, gradients g_i and weights w_i (1 each, unless given):

    G ← w_1 g_1 at i = 1,  G ← G + w_i g_i after that      in float32 at least
    i = k:  u from the inner transformation at G / Σ w;    i < k:  u = 0

At the k-th micro-step the update is stored in the array of the sum, which is no longer needed. So a
step needs no memory beside its arguments.
"""

import operator
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from gradtx.compose.choosing import run_in_place_if
from gradtx.compose.transformation import (
    GradientTransformation,
    TransformationLike,
    as_transformation,
    definition,
)
from gradtx.compose.wrapwise import Member, wrapwise
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import DTypeLike, Interval, Numeric, Updates
from gradtx.engine.checks import check_extra
from gradtx.engine.clock import next_count, whole
from gradtx.microbatching.accumulators import weighted
from gradtx.tree.casts import as_array, is_inexact, promote, widest, zeros
from gradtx.tree.maps import make_leaves, map_leaves
from gradtx.tree.paths import is_none

MicroSteps = Annotated[Numeric, Interval(1.0, counts="micro-steps")]


class Accumulated(NamedTuple):
    """The sums over the micro-steps of the next update."""

    total: Any
    """Σ w g, a tree like the parameters. Just after an update, while `micro_step` is 0, it holds
    that update instead.
    """
    weight: jax.Array
    """Σ w."""
    value: jax.Array | None
    """Σ w L, where the inner transformation needs the loss L, else None."""
    micro_step: jax.Array
    """The number of micro-steps in the sums."""
    applied: jax.Array
    """The number of updates that `inner` made: its clock."""


def _init(params, *, averages_value: bool, accumulator_dtype: DTypeLike | None) -> Accumulated:
    total, real = make_leaves(zeros, params), jnp.result_type(float)
    if accumulator_dtype is not None:
        total = jax.tree.map(lambda leaf: leaf.astype(_sum_dtype(leaf, accumulator_dtype)), total)
    value = jnp.zeros((), real) if averages_value else None
    # Each counter is an array of its own: one array twice could not be donated.
    micro_step, applied = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
    return Accumulated(total, jnp.zeros((), real), value, micro_step, applied)


def _sum_dtype(leaf: jax.Array, accumulator_dtype: DTypeLike) -> Any:
    """The dtype of the sum: complex arrays stay complex, whatever the accumulator."""
    kind = jnp.complex64 if jnp.iscomplexobj(leaf) else jnp.bfloat16
    return widest(accumulator_dtype, kind)


def _add(total, grad, *, weight, first, gate, share):
    """Add one gradient to the sum; at the last micro-step also divide, in the same kernel."""
    # A missing gradient adds nothing, and one of weight 0 neither.
    part = jnp.zeros_like(total) if grad is None else weighted(grad, weight)
    # The first part replaces the sum, whose array still holds the last update.
    return jnp.where(gate, jnp.where(first, part, total + part) * share, total)


def _count(own: Accumulated, weight, value, gate) -> Accumulated:
    """Count one micro-step and add its weight and value; the gradient is added elsewhere."""
    value = None if own.value is None else jnp.asarray(value, own.value.dtype)
    arguments = {"weight": weight, "first": own.micro_step == 0, "gate": gate, "share": 1.0}
    sums, parts = (own.weight, own.value), (jnp.ones_like(own.weight), value)
    total_weight, total_value = map_leaves(_add, sums, parts, **arguments)
    return own._replace(
        weight=total_weight, value=total_value, micro_step=next_count(own.micro_step, gate)
    )


def _second(first, second):
    return first if second is None else second


def _negative_zero(update):
    # −0 added to a parameter keeps its bits. The array is made from the update, so that it lies on
    # the same devices.
    return jnp.where(jnp.zeros_like(update, bool), update, -jnp.zeros_like(update))


def _release(update, stored, *, due):
    return jnp.where(due, stored, -jnp.zeros_like(stored))


def _can_hold(total: Any, updates: Updates) -> bool:
    """Whether the arrays of the sum can hold the updates without a loss of precision."""
    columns = (jax.tree.leaves(tree, is_leaf=is_none) for tree in (total, updates))
    return all(
        _common_dtype(sums, update) == sums.dtype
        for sums, update in zip(*columns, strict=True)
        if sums is not None and update is not None
    )


def _common_dtype(total: jax.Array, update: Any) -> Any:
    return widest(total.dtype, as_array(update).dtype)


def _mean(grad: Any, total: Any) -> Any:
    """A mean with the precision of sum and gradient; None and integers unchanged."""
    return total.astype(_common_dtype(total, grad)) if is_inexact(grad) else grad


def _mean_extra(extra: Mapping[str, Any], grads: Updates, value: Any) -> dict[str, Any]:
    """The extra arguments for the inner transformation: means of gradient and loss, no weight."""
    means = {name: mean for name, mean in (("grad", grads), ("value", value)) if mean is not None}
    means = {name: mean for name, mean in means.items() if name in extra}
    return {name: one for name, one in {**extra, **means}.items() if name != "weight"}


def _accumulate(
    updates,
    own: Accumulated,
    params,
    step,
    *,
    inner: Member,
    every,
    use_grad_mean: bool,
    should_skip_update_fn: Callable[..., Any] | None,
    extra,
    gate,
):
    gate = jnp.asarray(True if gate is None else gate)
    if should_skip_update_fn is not None:
        gate &= ~jnp.asarray(should_skip_update_fn(updates, own.applied, params)[0], bool)
    weight, first = checked_weight(extra.get("weight", 1.0)), own.micro_step == 0
    if own.value is not None:
        check_extra(f"accumulate({inner.tx.name})", ("value",), extra)
    new = _count(own, weight, extra.get("value"), gate)
    complete, usable = operator.ge(*promote(new.micro_step, whole(every))) & gate, new.weight > 0
    check_weights(complete, usable, new.micro_step)
    due = complete & usable
    share = jnp.ones_like(new.weight)
    if use_grad_mean:
        # The inner `where` keeps the division finite; the outer one leaves other sums undivided.
        share = jnp.where(due, 1 / jnp.where(usable, new.weight, 1.0), 1.0)
    total = map_leaves(_add, own.total, updates, weight=weight, first=first, gate=gate, share=share)
    in_place = _can_hold(total, updates)
    stored = total if in_place else map_leaves(_negative_zero, updates)

    def run(stored, slots):
        grads = jax.tree.map(_mean, updates, stored if in_place else total, is_leaf=is_none)
        value = None if new.value is None else new.value * share
        # The branch includes the gate of wrappers further out: the member needs no gate.
        member = inner._replace(slots=slots, gate=None)
        new_updates, member = member.update(grads, params, extra=_mean_extra(extra, grads, value))
        return map_leaves(_second, stored, new_updates), member.slots

    stored, slots = run_in_place_if(due, run, _unchanged, stored, inner.slots)
    new = new._replace(
        total=stored if in_place else total,
        # A sum of weights that is 0 makes no update, and the next one begins.
        micro_step=jnp.where(complete, 0, new.micro_step),
        applied=next_count(new.applied, due),
    )
    return map_leaves(_release, updates, stored, due=due), inner._replace(slots=slots), new


def _unchanged(stored, slots):
    return stored, slots


def check_weights(complete: jax.Array, usable: jax.Array, micro_step: jax.Array) -> None:
    """Raise, outside of jit, where the weights of an update sum to 0."""
    if not isinstance(complete & usable, Tracer) and complete and not usable:
        raise HyperparamError(
            f"accumulate: the weights of the last {int(micro_step)} micro-batches sum to 0, so "
            "they have no mean: give each micro-batch a weight > 0, or omit empty micro-batches"
        )


def checked_weight(weight: Any) -> jax.Array:
    """The weight of a micro-batch; outside of jit also check its range."""
    array = jnp.asarray(weight, jnp.result_type(float))
    if array.ndim:
        raise HyperparamError(
            f"accumulate: weight= has shape {array.shape}: give one number for the micro-batch, "
            "its number of tokens for example"
        )
    if not isinstance(array, Tracer) and not (float(array) >= 0 and jnp.isfinite(array)):
        raise HyperparamError(
            f"accumulate: weight = {float(array)!r} is outside its range [0, inf): give the size "
            "of the micro-batch, its number of tokens for example"
        )
    return array


def _report(own: Accumulated):
    return {"micro_step": own.micro_step}


@definition
def accumulate(
    inner: TransformationLike,
    every: MicroSteps,
    *,
    use_grad_mean: bool = True,
    should_skip_update_fn: Callable[..., Any] | None = None,
    accumulator_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    r"""Gradient accumulation over k micro-batches.

    `inner` makes one update from their mean gradient. For every array G and g of one shape: G ← G +
    w g, and at the k-th micro-step u from `inner` at G / Σ w. The other micro-steps cost that sum,
    and do not run `inner`. Clips, schedules and statistics receive each mean once, so the result is
    that of the large batch, to float32 rounding. The updates in between are −0, so that parameters
    keep their bits, whatever the sum holds: an inf reaches them with its mean, not before.

    The clock of `inner` counts its own updates. Where `accumulate` is the whole definition,
    `state.count` is that clock, and schedules and `hyperparams(tx, at=state)` use it. A schedule
    for `every` uses it too.

    For micro-batches of different size pass a weight, `update(..., weight=tokens)`. A micro-batch
    of weight 0 counts as a micro-step and adds nothing, not even a nan. When `inner` needs
    `value=`, it receives the mean loss. Where a sum is above the largest float, its mean is inf.

    When: the large batch does not fit into memory, or arrives in pieces. When not: all
    micro-batches are available at once; `make_step(..., microbatches=k)` runs them in one step, and
    stores no sum between steps.

    Args:
      inner: the transformation; put the whole chain here. `guard(accumulate(...))` skips bad
        micro-batches, `accumulate(guard(...))` bad means.
      every: k ≥ 1, micro-steps per update; a schedule receives the number of earlier updates.
      use_grad_mean: False: u from `inner` at G itself, the sum.
      should_skip_update_fn: `(updates, count, params) -> (skip, anything)`, as for Optax's
        `MultiSteps`; it says whether to skip a micro-step. Static.
      accumulator_dtype: dtype of G; None: the gradient's, float32 at least.

    Raises:
      HyperparamError: k is below 1, or not a whole number; a weight is negative, not finite, or
        not a scalar; outside of jit, weights sum to 0. Within jit such a sum makes no update, and
        the next one begins.

    State: 4 bytes per parameter (G), and that of `inner`; under "accumulate" also the numbers
    `weight`, `value`, `micro_step` and `applied`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.accumulate(gradtx.sgd(1.0), every=2)
    >>> state, outputs = tx.init(jnp.zeros(())), []
    >>> for g in (1.0, 3.0, 5.0, 5.0):
    ...     u, state = tx.update(jnp.array(g), state)
    ...     outputs.append(u.item())
    >>> outputs, int(state.count)
    ([-0.0, -2.0, -0.0, -5.0], 2)

    See also: `make_step`, `guard`, `MultiSteps`.
    """
    return wrapwise(
        inner,
        _init,
        _accumulate,
        report=_report,
        clock="applied",
        leads=True,
        averages_value="value" in as_transformation(inner).needs,
    )
