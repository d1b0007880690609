"""`process`: transform per-example gradients, aggregate them, and transform the aggregate."""

import functools
import operator
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.choosing import run_if
from gradtx.compose.transformation import GradientTransformation, TransformationLike, definition
from gradtx.compose.treewise import treewise
from gradtx.definition.errors import GradtxError
from gradtx.definition.types import Params, Slots, Updates
from gradtx.engine.clock import next_count
from gradtx.engine.rules import Child


class Processed(NamedTuple):
    """The slots of the three parts, and their clock."""

    preprocessor: Any
    aggregator: Any
    postprocessor: Any
    applied: jax.Array
    """The number of updates that the postprocessor made: the clock of all parts."""


def _init(
    params,
    *,
    preprocessor: GradientTransformation,
    aggregator: GradientTransformation,
    postprocessor: GradientTransformation,
) -> Processed:
    before = _init_part(preprocessor, params)
    middle = _init_part(aggregator, params)
    after = _init_part(postprocessor, params)
    return Processed(before, middle, after, jnp.zeros((), jnp.int32))


def _init_part(part: GradientTransformation, params: Params) -> Any:
    return part.init(params) if part.is_plain else part.init_slots(params)


def _run_part(
    part: GradientTransformation,
    updates: Updates,
    slots: Slots,
    params: Params | None,
    step: Any,
    extra: Mapping[str, Any],
) -> tuple[Any, Any]:
    if part.is_plain:
        return part.update(updates, slots, params, **extra)
    new, slots = part.update_slots(updates, slots, params, step, extra)
    return new, slots


def _process(
    updates,
    slots: Processed,
    params,
    step,
    *,
    preprocessor: GradientTransformation,
    aggregator: GradientTransformation,
    postprocessor: GradientTransformation,
    aggregator_has_aux: bool,
    extra,
):
    count = next_count(slots.applied)
    # Parameters have other shapes than gradients per example; gradtx's own rules would refuse them.
    seen = params if preprocessor.is_plain else None
    each, before = _run_part(preprocessor, updates, slots.preprocessor, seen, count, extra)
    result, middle = _run_part(aggregator, each, slots.aggregator, params, count, extra)
    result, aux = _split_aux(result) if aggregator_has_aux else (result, {})
    ready, extra = _ready(middle), {**extra, **aux}

    def apply():
        return _run_part(postprocessor, result, slots.postprocessor, params, count, extra)

    def skip():
        return jax.tree.map(_negative_zero, result), slots.postprocessor

    if ready is None:
        new, after = apply()
        return new, Processed(before, middle, after, count)
    new, after = run_if(ready, apply, skip)
    applied = jnp.where(ready, count, slots.applied)
    return new, Processed(before, middle, after, applied)


def _split_aux(result: Any) -> tuple[Any, Mapping[str, Any]]:
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping):
        return result[0], result[1]
    raise GradtxError(
        "process: aggregator_has_aux is True, and the aggregator did not return ((updates, aux), "
        "state) with a dict aux; return that, or give aggregator_has_aux=False"
    )


def _negative_zero(update: jax.Array) -> jax.Array:
    return -jnp.zeros_like(update)  # −0 added to a parameter keeps its bits


def _ready(slots: Slots) -> jax.Array | None:
    """Whether an aggregator completed a result; None: it does with every call."""
    nodes = jax.tree.leaves(slots, is_leaf=_has_ready)
    flags = [node.ready for node in nodes if _has_ready(node)]
    return functools.reduce(operator.and_, flags) if flags else None


def _has_ready(node: Any) -> bool:
    return isinstance(node, tuple) and hasattr(node, "ready")


def _children(
    slots: Processed,
    count,
    *,
    preprocessor: GradientTransformation,
    aggregator: GradientTransformation,
    postprocessor: GradientTransformation,
) -> list[Child]:
    parts = (preprocessor, aggregator, postprocessor)
    return [Child(*one, slots.applied) for one in zip(parts, slots[:3], strict=True)]


def _evaluate(params, slots: Processed, count, *, postprocessor: GradientTransformation):
    return postprocessor.evaluate_slots(slots.postprocessor, params, slots.applied)


@definition
def process(
    preprocessor: TransformationLike,
    aggregator: TransformationLike,
    postprocessor: TransformationLike,
    aggregator_has_aux: bool = False,
) -> GradientTransformation:
    r"""Optimize with per-example gradients: transform each, aggregate them, and make one update.

    u = post(A(pre(g_1), ..., pre(g_B))), with gradients per example from `jax.vmap(jax.grad(loss),
    (None, 0))(params, batch)`. An aggregator whose state has a bool `ready` may need several calls
    for one result; where it is False the update is −0 and the postprocessor keeps its state.

    When: clipping, noise or statistics of single examples before an optimizer. When not: the mean
    gradient is all that is needed; `jax.grad` of the batch costs a B-th of the memory.

    Args:
      preprocessor: maps gradients per example to such gradients. gradtx's own transformations see
        no parameters there, since the shapes differ.
      aggregator: maps gradients per example to one gradient: an `Aggregator`, or a transformation
        such as `differentially_private_aggregate`.
      postprocessor: the optimizer. The clock of all parts counts its updates; where `process` is
        the whole definition, `state.count` is that clock.
      aggregator_has_aux: whether the aggregator returns `((updates, aux), state)`; the dict `aux`
        then reaches the postprocessor as extra arguments.

    Raises:
      GradtxError: the aggregator returned no `aux` with `aggregator_has_aux`.

    State: that of the parts, and a number.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> from gradtx.experimental.aggregating import average_per_element_updates, process
    >>> tx = process(gradtx.clip(1.0), average_per_element_updates(), gradtx.sgd(0.5))
    >>> w, x = jnp.zeros(()), jnp.array([0.5, 9.0])
    >>> grads = jax.vmap(jax.grad(lambda w, x: w * x), (None, 0))(w, x)
    >>> float(tx.update(grads, tx.init(w), w)[0])  # the second example counts as 1
    -0.375

    See also: `dpsgd`, `accumulate`, `micro_grad`.
    """
    return treewise(
        _init,
        _process,
        children=_children,
        evaluate=_evaluate,
        changes_structure=True,
        own_clock=True,
    )
