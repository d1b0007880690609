"""Averages of gradients: over the examples of a batch, and over microbatches."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.compose.treewise import treewise
from gradtx.definition.types import Params, PyTree, Updates
from gradtx.experimental.aggregating.per_element import Aggregator, axes_of, check_steps
from gradtx.transforms.scaling import identity
from gradtx.tree.casts import compute_dtype, zeros
from gradtx.tree.maps import make_leaves, map_leaves


class AccumulateAvgUpdatesState(NamedTuple):
    """The average of the microbatches so far."""

    micro_step: jax.Array
    """The number of microbatches in the average."""
    ready: jax.Array
    """Whether the last call completed an average; `process` then runs the postprocessor."""
    avg_grad: Any
    """The average, a tree like the parameters, in float32 at least."""


def _init_average(params: Params) -> AccumulateAvgUpdatesState:
    """Zeros like the parameters, and no microbatch."""
    zero, ready = jnp.zeros((), jnp.int32), jnp.zeros((), bool)
    return AccumulateAvgUpdatesState(zero, ready, make_leaves(zeros, params))


def _accumulate_average(
    updates: Updates, slots: AccumulateAvgUpdatesState, *, accumulation_steps: int
) -> tuple[Updates, AccumulateAvgUpdatesState]:
    """One microbatch more; the last one returns the average, and the others zeros."""
    number = slots.micro_step + 1
    ready = number == accumulation_steps
    total = map_leaves(add_to_mean, slots.avg_grad, updates, number=as_float(number))
    updates = map_leaves(_if_ready, updates, total, ready=ready)
    avg_grad = map_leaves(_unless_ready, total, ready=ready)
    return updates, AccumulateAvgUpdatesState(jnp.where(ready, 0, number), ready, avg_grad)


def as_float(number: jax.Array) -> jax.Array:
    """A count as a float, in which its reciprocal has the precision of the arrays."""
    return number.astype(jnp.result_type(float))


def add_to_mean(mean: jax.Array, array: jax.Array, *, number: jax.Array) -> jax.Array:
    """The mean of `number` arrays from that of the ones before and the last."""
    share = 1 / number
    # Not mean + (array - mean) / n: the difference of two large numbers may overflow.
    return (1 - share) * mean + share * array


def _if_ready(update: jax.Array, total: jax.Array, *, ready: jax.Array) -> jax.Array:
    return jnp.where(ready, total, jnp.zeros_like(total))


def _unless_ready(total: jax.Array, *, ready: jax.Array) -> jax.Array:
    return jnp.where(ready, jnp.zeros_like(total), total)


def _average_step(
    updates, slots: AccumulateAvgUpdatesState, params, step, *, accumulation_steps: int
):
    return _accumulate_average(updates, slots, accumulation_steps=accumulation_steps)


@definition
def accumulate_avg_updates(accumulation_steps: int) -> GradientTransformation:
    r"""Average gradients over k microbatches, one call after another.

    At microbatch i = 1, ..., k: A ← A + (g_i − A) / i. The k-th call returns A and starts afresh;
    the others return zeros.

    When: the aggregator of `process`, which runs the optimizer with every k-th call. When not:
    around an optimizer; take `accumulate`, which does not run it with zeros.

    Args:
      accumulation_steps: k ≥ 1, microbatches per average. Static.

    Raises:
      HyperparamError: k is not a whole number from 1 on.

    State: 4 bytes per parameter.

    >>> import jax.numpy as jnp
    >>> from gradtx.experimental.aggregating import accumulate_avg_updates
    >>> tx = accumulate_avg_updates(2)
    >>> state, outputs = tx.init(jnp.zeros(())), []
    >>> for g in (1.0, 3.0, 5.0):
    ...     u, state = tx.update(jnp.array(g), state)
    ...     outputs.append(float(u))
    >>> outputs
    [0.0, 2.0, 0.0]

    See also: `accumulate`, `average_incrementally_updates`.
    """
    check_steps("accumulate_avg_updates", accumulation_steps)
    return treewise(_init_average, _average_step)


def mean_of_examples(array: jax.Array, *, axes: tuple[int, ...]) -> jax.Array:
    """The mean over the examples, summed in float32 at least."""
    return jnp.mean(array, axis=axes, dtype=compute_dtype(array.dtype)).astype(array.dtype)


def _average_examples(axes: tuple[int, ...], updates: Updates) -> Updates:
    return jax.tree.map(functools.partial(mean_of_examples, axes=axes), updates)


def no_state(params: Params) -> tuple[()]:
    return ()


def _update_average(
    axes: tuple[int, ...],
    per_elt_updates: Updates,
    state: PyTree,
    params: Params | None = None,
    **extra: Any,
) -> tuple[Updates, PyTree]:
    return _average_examples(axes, per_elt_updates), state


def average_per_element_updates(per_elt_axis: int | Sequence[int] = 0) -> Aggregator:
    r"""Average per-example gradients over their batch axis.

    u = (1/B) Σ_b g_b over all B examples along `per_elt_axis`, summed in float32 at least.

    When: the aggregator of `process`. When not: gradients of the whole batch exist already.

    Args:
      per_elt_axis: the axis of the examples, or several of them.

    Returns:
      An aggregator without state.

    Raises:
      HyperparamError: `per_elt_axis` is not a whole number, or a sequence of them.

    >>> import jax.numpy as jnp
    >>> from gradtx.experimental.aggregating import average_per_element_updates
    >>> mean = average_per_element_updates()
    >>> mean.update(jnp.array([[1.0, 4.0], [3.0, 0.0]]), mean.init(None))[0].tolist()
    [2.0, 2.0]

    See also: `process`, `average_incrementally_updates`.
    """
    return _average_over(axes_of(per_elt_axis))


@functools.lru_cache(maxsize=64)
def _average_over(axes: tuple[int, ...]) -> Aggregator:
    # One pair of functions for equal axes, so that equal definitions share their programs.
    return Aggregator(no_state, functools.partial(_update_average, axes))


def _update_incrementally(
    axes: tuple[int, ...],
    accumulation_steps: int,
    per_elt_updates: Updates,
    state: AccumulateAvgUpdatesState,
    params: Params | None = None,
    **extra: Any,
) -> tuple[Updates, AccumulateAvgUpdatesState]:
    mean = _average_examples(axes, per_elt_updates)
    return _accumulate_average(mean, state, accumulation_steps=accumulation_steps)


@functools.lru_cache(maxsize=64)
def _average_over_microbatches(axes: tuple[int, ...], accumulation_steps: int) -> Aggregator:
    update = functools.partial(_update_incrementally, axes, accumulation_steps)
    return Aggregator(_init_average, update)


def average_incrementally_updates(
    per_elt_axis: int | Sequence[int] | None, accumulation_steps: int
) -> Aggregator | GradientTransformation:
    r"""Average per-example gradients over their batch axis, and over k microbatches.

    The mean of `average_per_element_updates`, then that of `accumulate_avg_updates`. Without an
    axis, or with k = 1, the step that does nothing is left out.

    Args:
      per_elt_axis: the axis of the examples, or several; None: gradients have no such axis.
      accumulation_steps: k ≥ 1, microbatches per average.

    Returns:
      An aggregator; a transformation where there is no axis of examples.

    Raises:
      HyperparamError: k is not a whole number from 1 on, or the axis is not a whole number.

    >>> import gradtx, jax.numpy as jnp
    >>> from gradtx.experimental.aggregating import average_incrementally_updates, process
    >>> tx = process(gradtx.identity(), average_incrementally_updates(0, 2), gradtx.sgd(1.0))
    >>> w = jnp.zeros(())
    >>> state, outputs = tx.init(w), []
    >>> for grads in ([1.0, 3.0], [5.0, 7.0]):
    ...     u, state = tx.update(jnp.array(grads), state, w)
    ...     outputs.append(float(u))
    >>> outputs, int(state.count)
    ([-0.0, -4.0], 1)

    See also: `process`, `accumulate`.
    """
    check_steps("average_incrementally_updates", accumulation_steps)
    if per_elt_axis is None:
        return identity() if accumulation_steps == 1 else accumulate_avg_updates(accumulation_steps)
    axes = axes_of(per_elt_axis)
    if accumulation_steps == 1:
        return _average_over(axes)
    return _average_over_microbatches(axes, accumulation_steps)
