r"""Mean and variance of per-example gradients: of a batch, and over time.

Of B examples, with k microbatches of B examples each joined one by one:

    m = (1/B) Σ_b g_b,    S = Σ_b (g_b − m)²
    δ = m_i − M,  M ← M + δ / i,  S ← S + S_i + δ² B (i − 1) / i        i = 1, ..., k

(Chan, Golub, LeVeque 1979), and over time v = S / (n − 1) of n = k B examples.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.transformation import GradientTransformation, TransformationLike, definition
from gradtx.compose.treewise import treewise
from gradtx.definition.errors import HyperparamError, StateError
from gradtx.definition.types import Decay, Params, PyTree, Updates
from gradtx.engine.clock import next_count
from gradtx.experimental.aggregating.averages import (
    add_to_mean,
    as_float,
    mean_of_examples,
    no_state,
)
from gradtx.experimental.aggregating.per_element import (
    Aggregator,
    axes_of,
    check_steps,
    get_batch_size_from_per_elt_updates,
)
from gradtx.experimental.aggregating.process import process
from gradtx.transforms.scaling import identity
from gradtx.tree.arithmetic import abs_sq
from gradtx.tree.casts import compute_dtype, real_zeros, zeros
from gradtx.tree.maps import make_leaves, map_leaves


class PerElementMeanAndSumSqDiffGradsState(NamedTuple):
    """Mean and sum of squared differences of the examples of the microbatches so far."""

    micro_step: jax.Array
    """The number of microbatches in the sums."""
    ready: jax.Array
    """Whether the last call completed the sums."""
    mean_grads: Any
    """M, a tree like the parameters."""
    sum_sq_diff_grads: Any
    """S, a tree like the parameters."""


class PerElementMeanAndVarianceEMAState(NamedTuple):
    """Exponential moving averages (EMA) of mean and variance per example."""

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    """The number of updates in the averages."""
    ema_decay: jax.Array
    """β, so that the state alone suffices to correct the bias."""
    mean_grads_ema: Any
    """The EMA of the mean, not corrected."""
    variance_grads_ema: Any
    """The EMA of the variance, not corrected."""


def _squared_differences(grads: jax.Array, *, axes: tuple[int, ...]) -> jax.Array:
    """S of one array, in float32 at least."""
    wide = grads.astype(compute_dtype(grads.dtype))
    return jnp.sum(abs_sq(wide - jnp.mean(wide, axis=axes, keepdims=True)), axis=axes)


def _moments(axes: tuple[int, ...], grads: Updates) -> tuple[Updates, PyTree]:
    mean = jax.tree.map(functools.partial(mean_of_examples, axes=axes), grads)
    return mean, jax.tree.map(functools.partial(_squared_differences, axes=axes), grads)


def _update_moments(
    axes: tuple[int, ...],
    per_elt_updates: Updates,
    state: PyTree,
    params: Params | None = None,
    **extra: Any,
) -> tuple[tuple[Updates, dict[str, Any]], PyTree]:
    mean, squares = _moments(axes, per_elt_updates)
    size = get_batch_size_from_per_elt_updates(per_elt_updates, axes)
    return (mean, {"sum_sq_diff_grads": squares, "sample_size": size}), state


def _init_moments(params: Params) -> PerElementMeanAndSumSqDiffGradsState:
    return PerElementMeanAndSumSqDiffGradsState(
        jnp.zeros((), jnp.int32),
        jnp.zeros((), bool),
        make_leaves(zeros, params),
        make_leaves(real_zeros, params),
    )


def _join_squares(
    total: jax.Array,
    squares: jax.Array,
    mean: jax.Array,
    new: jax.Array,
    *,
    number: jax.Array,
    size: int,
) -> jax.Array:
    """S of all examples from two parts, whose means differ by δ."""
    return total + squares + abs_sq(new - mean) * (size * (number - 1) / number)


def _update_moments_of_microbatches(
    axes: tuple[int, ...],
    accumulation_steps: int,
    per_elt_updates: Updates,
    state: PerElementMeanAndSumSqDiffGradsState,
    params: Params | None = None,
    **extra: Any,
) -> tuple[tuple[Updates, dict[str, Any]], PerElementMeanAndSumSqDiffGradsState]:
    new, squares = _moments(axes, per_elt_updates)
    size = get_batch_size_from_per_elt_updates(per_elt_updates, axes)
    number = state.micro_step + 1
    ready = number == accumulation_steps
    joined = map_leaves(
        _join_squares,
        state.sum_sq_diff_grads,
        squares,
        state.mean_grads,
        new,
        number=as_float(number),
        size=size,
    )
    mean = map_leaves(add_to_mean, state.mean_grads, new, number=as_float(number))
    updates = map_leaves(_second_if, new, mean, condition=ready)
    aux = {
        "sum_sq_diff_grads": map_leaves(_or_zero, joined, condition=ready),
        "sample_size": jnp.where(ready, size * accumulation_steps, 0),
    }
    rest = (map_leaves(_or_zero, one, condition=~ready) for one in (mean, joined))
    micro_step = jnp.where(ready, 0, number)
    return (updates, aux), PerElementMeanAndSumSqDiffGradsState(micro_step, ready, *rest)


def _or_zero(array: jax.Array, *, condition: jax.Array) -> jax.Array:
    return jnp.where(condition, array, jnp.zeros_like(array))


def _second_if(update: jax.Array, array: jax.Array, *, condition: jax.Array) -> jax.Array:
    return _or_zero(array, condition=condition)


def get_per_element_mean_and_sum_sq_diff_grads(
    per_elt_axis: int | Sequence[int] = 0, accumulation_steps: int = 1
) -> Aggregator:
    r"""Average per-example gradients, and sum their squared differences from the mean.

    m = (1/B) Σ_b g_b and S = Σ_b (g_b − m)², both of the shape of the parameters; S / (B − 1) is
    the variance of the gradient noise. Over k microbatches the sums are those of all k B examples.

    When: with `track_per_element_mean_and_variance_with_ema`, as in `add_mean_variance_to_opt`.

    Args:
      per_elt_axis: the axis of the examples, or several of them.
      accumulation_steps: k ≥ 1, microbatches per result.

    Returns:
      An aggregator whose `update` returns `((m, aux), state)`, with `aux` the extra arguments
      `sum_sq_diff_grads` and `sample_size`; all are 0 until the k-th microbatch.

    Raises:
      HyperparamError: k is not a whole number from 1 on, or the axis is not a whole number.

    >>> import jax.numpy as jnp
    >>> from gradtx.experimental.aggregating import get_per_element_mean_and_sum_sq_diff_grads
    >>> moments = get_per_element_mean_and_sum_sq_diff_grads()
    >>> (mean, aux), _ = moments.update(jnp.array([1.0, 3.0, 8.0]), moments.init(None))
    >>> float(mean), float(aux["sum_sq_diff_grads"]), aux["sample_size"]
    (4.0, 26.0, 3)

    Chan, Golub, LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample
    variances", equation 2.1.
    """
    name = "get_per_element_mean_and_sum_sq_diff_grads"
    check_steps(name, accumulation_steps)
    return _moments_over(axes_of(per_elt_axis), accumulation_steps)


@functools.lru_cache(maxsize=64)
def _moments_over(axes: tuple[int, ...], accumulation_steps: int) -> Aggregator:
    # One pair of functions for equal arguments, so that equal definitions share their programs.
    if accumulation_steps == 1:
        return Aggregator(no_state, functools.partial(_update_moments, axes))
    update = functools.partial(_update_moments_of_microbatches, axes, accumulation_steps)
    return Aggregator(_init_moments, update)


def _init_ema(params, *, ema_decay) -> PerElementMeanAndVarianceEMAState:
    return PerElementMeanAndVarianceEMAState(
        jnp.zeros((), jnp.int32),
        jnp.asarray(ema_decay, jnp.result_type(float)),
        make_leaves(zeros, params),
        make_leaves(real_zeros, params),
    )


def _track(updates, slots: PerElementMeanAndVarianceEMAState, params, step, *, ema_decay, extra):
    size = extra["sample_size"]
    if isinstance(size, int) and size < 2:
        raise HyperparamError(
            f"track_per_element_mean_and_variance_with_ema: sample_size = {size}, and a variance "
            "needs at least 2 examples; take larger batches, or more accumulation_steps"
        )
    mean = map_leaves(_average, slots.mean_grads_ema, updates, decay=ema_decay, factor=1.0)
    variance = map_leaves(
        _average,
        slots.variance_grads_ema,
        extra["sum_sq_diff_grads"],
        decay=ema_decay,
        factor=1 / jnp.maximum(as_float(jnp.asarray(size)) - 1, 1),
    )
    decay = jnp.asarray(ema_decay, slots.ema_decay.dtype)
    count = next_count(slots.count)
    return updates, PerElementMeanAndVarianceEMAState(count, decay, mean, variance)


def _average(ema: jax.Array, array: jax.Array, *, decay: jax.Array, factor: jax.Array) -> jax.Array:
    return decay * ema + (1 - decay) * (factor * array)


@definition
def track_per_element_mean_and_variance_with_ema(
    ema_decay: Decay = 0.9,
) -> GradientTransformation:
    r"""Track exponential moving averages (EMA) of the mean and variance of per-example gradients.

    M ← β M + (1 − β) m and V ← β V + (1 − β) S / (n − 1); the updates stay as they are. Read the
    averages with `get_unbiased_mean_and_variance_ema`.

    When: after `get_per_element_mean_and_sum_sq_diff_grads` in `process`, whose `aux` are its extra
    arguments. When not: no gradients per example are at hand; `with_metrics` reports norms.

    Args:
      ema_decay: β in [0, 1); 0.9 averages some 10 updates.

    Raises:
      HyperparamError: `sample_size` is a number below 2, which has no variance.
      MissingExtraError: `update` received no `sum_sq_diff_grads` or `sample_size`.

    State: 8 bytes per parameter.

    >>> import jax.numpy as jnp
    >>> from gradtx.experimental import aggregating
    >>> tx = aggregating.track_per_element_mean_and_variance_with_ema()
    >>> g, squares = jnp.array(4.0), jnp.array(26.0)
    >>> _, state = tx.update(g, tx.init(g), sum_sq_diff_grads=squares, sample_size=3)
    >>> [round(float(x), 4) for x in aggregating.get_unbiased_mean_and_variance_ema(state)]
    [4.0, 13.0]
    """
    return treewise(_init_ema, _track, extra=("sum_sq_diff_grads", "sample_size"))


def get_unbiased_mean_and_variance_ema(state: PyTree) -> tuple[PyTree, PyTree]:
    r"""Read the bias-corrected EMA of mean and variance of per-example gradients from a state.

    M / (1 − β^t) and V / (1 − β^t) after t updates; zeros before the first one.

    Args:
      state: the state of a transformation that has one
        `track_per_element_mean_and_variance_with_ema`.

    Returns:
      The mean and the variance, two trees like the parameters.

    Raises:
      StateError: the state has no such averages, or several.

    >>> import gradtx, jax.numpy as jnp
    >>> from gradtx.experimental import aggregating
    >>> tx = aggregating.add_mean_variance_to_opt(gradtx.sgd(0.1))
    >>> w = jnp.zeros(())
    >>> _, state = tx.update(jnp.array([1.0, 3.0, 8.0]), tx.init(w), w)
    >>> mean, variance = aggregating.get_unbiased_mean_and_variance_ema(state)
    >>> round(float(mean), 4), round(float(variance), 4)
    (4.0, 13.0)
    """
    nodes = jax.tree.leaves(state, is_leaf=_is_ema)
    own = [node for node in nodes if _is_ema(node)]
    if len(own) != 1:
        raise StateError(
            f"get_unbiased_mean_and_variance_ema: the state holds {len(own)} states of "
            "PerElementMeanAndVarianceEMAState, and must hold one; pass the state of an optimizer "
            "from add_mean_variance_to_opt"
        )
    (one,) = own
    rest = 1 - one.ema_decay ** one.count.astype(one.ema_decay.dtype)
    rest = jnp.where(one.count > 0, rest, 1.0)
    mean = map_leaves(_divide, one.mean_grads_ema, rest=rest)
    return mean, map_leaves(_divide, one.variance_grads_ema, rest=rest)


def _is_ema(node: Any) -> bool:
    return isinstance(node, PerElementMeanAndVarianceEMAState)


def _divide(array: jax.Array, *, rest: jax.Array) -> jax.Array:
    return array / rest


@definition
def add_mean_variance_to_opt(
    opt: TransformationLike,
    ema_decay: Decay = 0.9,
    per_elt_axis: int | Sequence[int] = 0,
    accumulation_steps: int = 1,
) -> GradientTransformation:
    r"""Add EMA statistics of gradient noise to an optimizer that runs on per-example gradients.

    The optimizer receives the mean gradient of the examples, and the state also tracks the mean and
    variance per example: see `get_per_element_mean_and_sum_sq_diff_grads` and
    `track_per_element_mean_and_variance_with_ema` for the equations.

    When: to choose a batch size from the gradient noise, or to watch it. When not: gradients per
    example do not fit into memory; take `accumulation_steps`, or `micro_grad`.

    Args:
      opt: the optimizer.
      ema_decay: β in [0, 1) of the averages.
      per_elt_axis: the axis of the examples, or several of them.
      accumulation_steps: k ≥ 1, microbatches per update of `opt`.

    State: 8 bytes per parameter and that of `opt`; 8 more where k > 1.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> from gradtx.experimental import aggregating
    >>> tx = aggregating.add_mean_variance_to_opt(gradtx.sgd(1.0))
    >>> w = jnp.zeros(())
    >>> u, state = tx.update(jnp.array([1.0, 3.0, 8.0]), tx.init(w), w)
    >>> float(u)
    -4.0

    See also: `get_unbiased_mean_and_variance_ema`, `process`.
    """
    return process(
        identity(),
        get_per_element_mean_and_sum_sq_diff_grads(per_elt_axis, accumulation_steps),
        chain(track_per_element_mean_and_variance_with_ema(ema_decay), opt),
        aggregator_has_aux=True,
    )
