"""How the results of microbatches become one result: sums, means, or one batch again.

With x_0, ..., x_{n-1} the results of n microbatches:

    SUM             Σ x_i
    MEAN            Σ x_i / n
    RUNNING_MEAN    M ← M + (x_i - M) / (i + 1)
    CONCAT          the x_i along their first axis, in the order of the batch

Sums and means of bfloat16 and float16 run in float32.
"""

import dataclasses
import enum
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.definition.errors import GradtxError, StructureError
from gradtx.definition.types import PyTree
from gradtx.tree.casts import compute_dtype, is_inexact_dtype, real_dtype, zeros, zeros_along
from gradtx.tree.maps import make_leaves, map_leaves


class AccumulationType(enum.Enum):
    """How to combine the results of microbatches: MEAN, SUM, RUNNING_MEAN or CONCAT.

    MEAN divides the sum by the number n of all microbatches, RUNNING_MEAN by the number of those
    that ran, which `num_real_microbatches` may lower. CONCAT joins results along their first axis;
    scalars become one array of n entries.

    >>> import gradtx.microbatching, jax.numpy as jnp
    >>> kind = gradtx.microbatching.AccumulationType.CONCAT
    >>> double = gradtx.microbatching.microbatch(lambda x: 2 * x, 0, 2, kind)
    >>> double(jnp.arange(4)).tolist()
    [0, 2, 4, 6]
    """

    MEAN = enum.auto()
    SUM = enum.auto()
    RUNNING_MEAN = enum.auto()
    CONCAT = enum.auto()


@dataclasses.dataclass(frozen=True)
class Accumulator:
    """An accumulator of microbatches as four pure functions.

    `microbatch` runs `carry = init(like)`, then `carry = update(carry, x_i, i)` for every
    microbatch i, and returns `finalize(carry)`.

    Args:
      init: `init(like)` -> the first carry; `like` has the shapes and dtypes of one result.
      update: `update(carry, value, index)` -> the next carry, with the same shapes and dtypes.
      finalize: `finalize(carry)` -> the result.
      aggregate: `aggregate(values)` -> the result of one microbatch from those of its examples,
        which have the batch axis in front. `micro_vmap` and `micro_grad` use it.

    >>> import gradtx.microbatching, jax, jax.numpy as jnp
    >>> largest = gradtx.microbatching.Accumulator(
    ...     init=lambda like: jnp.full(like.shape, -jnp.inf, like.dtype),
    ...     update=lambda carry, value, index: jnp.maximum(carry, value),
    ...     finalize=lambda carry: carry,
    ...     aggregate=lambda values: jnp.max(values, axis=0),
    ... )
    >>> top = gradtx.microbatching.micro_vmap(
    ...     lambda x: x**2, microbatch_size=2, accumulator=largest
    ... )
    >>> float(top(jnp.array([1.0, -3.0, 2.0, 0.0])))
    9.0
    """

    init: Callable[[PyTree], PyTree]
    update: Callable[[PyTree, PyTree, Any], PyTree]
    finalize: Callable[[PyTree], PyTree]
    aggregate: Callable[[PyTree], PyTree]


def accumulators_of(name: str, accumulator: PyTree, like: PyTree, count: int) -> PyTree:
    """A tree of `Accumulator`s, a prefix of the results, from one with `AccumulationType`s too."""
    check_kinds(name, accumulator)
    return map_prefix(name, functools.partial(_accumulators, count), accumulator, like)


def _accumulators(count: int, kind: Any, like: PyTree) -> PyTree:
    if isinstance(kind, Accumulator):
        return kind
    return jax.tree.map(functools.partial(accumulator_of, kind, count), like)


def check_kinds(name: str, accumulator: PyTree) -> None:
    """Raise where a leaf is neither an `AccumulationType` nor an `Accumulator`."""
    for kind in jax.tree.leaves(accumulator, is_leaf=lambda one: one is None):
        if not isinstance(kind, AccumulationType | Accumulator):
            raise GradtxError(
                f"{name}: accumulator = {kind!r} is not an AccumulationType or an Accumulator; "
                "give AccumulationType.SUM, MEAN, RUNNING_MEAN or CONCAT, or a tree of them"
            )


def map_prefix(name: str, function: Callable[..., Any], accumulator: PyTree, like: PyTree) -> Any:
    """`function(kind, subtree)` for each leaf of a prefix of the results."""
    try:
        return jax.tree.map(function, accumulator, like)
    except ValueError as error:
        if isinstance(error, GradtxError):
            raise
        raise StructureError(
            f"{name}: accumulator has the structure {jax.tree.structure(accumulator)}, which is "
            f"not a prefix of the structure of the results, {jax.tree.structure(like)}"
        ) from error


def accumulator_of(kind: AccumulationType, count: int, like: jax.ShapeDtypeStruct) -> Accumulator:
    """The accumulator of one array, in float32 at least."""
    if kind is AccumulationType.CONCAT:
        return _concat(count, like)
    is_mean = kind is not AccumulationType.SUM
    if is_mean and not is_inexact_dtype(like.dtype):
        raise GradtxError(
            f"{kind.name} of microbatches: a result has dtype {like.dtype}, and a mean needs "
            "floating-point numbers; cast it, or take AccumulationType.SUM"
        )
    return Accumulator(
        init=_zeros,
        update=_add_to_mean if kind is AccumulationType.RUNNING_MEAN else _add,
        finalize=functools.partial(
            _settle, count=count if kind is AccumulationType.MEAN else 1, dtype=like.dtype
        ),
        aggregate=_mean_of_examples if is_mean else _sum_of_examples,
    )


def _sum_dtype(dtype: Any) -> Any:
    return compute_dtype(dtype) if is_inexact_dtype(dtype) else dtype


def _zeros(like: jax.ShapeDtypeStruct) -> jax.Array:
    return zeros_along(like, like.shape, _sum_dtype(like.dtype), range(len(like.shape)))


def _add(carry: jax.Array, value: jax.Array, index: jax.Array) -> jax.Array:
    return carry + value.astype(carry.dtype)


def _add_to_mean(carry: jax.Array, value: jax.Array, index: jax.Array) -> jax.Array:
    share = (1 / (index + 1).astype(real_dtype(carry.dtype))).astype(carry.dtype)
    # Not carry + (value - carry) / n: the difference of two large numbers may overflow.
    return carry * (1 - share) + value.astype(carry.dtype) * share


def _settle(carry: jax.Array, *, count: int, dtype: Any) -> jax.Array:
    total = carry if count == 1 else carry / jnp.asarray(count, carry.dtype)
    return total.astype(dtype) if is_inexact_dtype(dtype) else total


def _sum_of_examples(values: jax.Array) -> jax.Array:
    is_real = is_inexact_dtype(values.dtype)
    return jnp.sum(values, axis=0, dtype=_sum_dtype(values.dtype) if is_real else None)


def _mean_of_examples(values: jax.Array) -> jax.Array:
    return jnp.mean(values, axis=0, dtype=_sum_dtype(values.dtype))


def _concat(count: int, like: jax.ShapeDtypeStruct) -> Accumulator:
    axis = min(1, len(like.shape))
    return Accumulator(
        init=functools.partial(_slots, count=count, axis=axis),
        update=functools.partial(_write, axis=axis),
        finalize=_joined if like.shape else _same,
        aggregate=_same,
    )


def stack_of(count: int, like: jax.ShapeDtypeStruct) -> Accumulator:
    """The accumulator that stacks the results of microbatches along a new first axis."""
    return Accumulator(
        init=functools.partial(_slots, count=count, axis=0),
        update=functools.partial(_write, axis=0),
        finalize=_same,
        aggregate=_same,
    )


def _same(values: PyTree) -> PyTree:
    return values


def _weighted_zeros(like: tuple[Any, PyTree]) -> tuple[jax.Array, PyTree]:
    weight, values = like
    return jnp.zeros(weight.shape, weight.dtype), make_leaves(zeros, values)


def _add_weighted(
    carry: tuple[jax.Array, PyTree], value: tuple[jax.Array, PyTree], index: jax.Array
) -> tuple[jax.Array, PyTree]:
    (total_weight, totals), (weight, values) = carry, value
    return total_weight + weight, map_leaves(_add_product, totals, values, weight=weight)


def _add_product(total: jax.Array, array: jax.Array, *, weight: jax.Array) -> jax.Array:
    return total + weighted(array, weight)


def weighted(array: jax.Array, weight: jax.Array) -> jax.Array:
    """w x, and 0 where w is 0, even where x is nan, the gradient of a mean over no tokens."""
    return jnp.where(weight > 0, weight * array, jnp.zeros_like(array))


def _divide_by_weight(carry: tuple[jax.Array, PyTree]) -> PyTree:
    weight, totals = carry
    return map_leaves(_divide, totals, weight=jnp.where(weight > 0, weight, 1.0))


def _divide(total: jax.Array, *, weight: jax.Array) -> jax.Array:
    return total / weight


WEIGHTED_MEAN = Accumulator(
    init=_weighted_zeros, update=_add_weighted, finalize=_divide_by_weight, aggregate=_same
)
"""Σ w_i x_i / Σ w_i of results (w_i, x_i) in float32 at least; 0 where no weight is above 0."""


def _slots(like: jax.ShapeDtypeStruct, *, count: int, axis: int) -> jax.Array:
    """Zeros for the results of all microbatches, along a new axis."""
    shape, axes = list(like.shape), list[int | None](range(len(like.shape)))
    # Microbatch i holds every count-th example: results in the order of the batch are (m, count).
    shape.insert(axis, count)
    axes.insert(axis, None)
    return zeros_along(like, tuple(shape), like.dtype, axes)


def _write(carry: jax.Array, value: jax.Array, index: jax.Array, *, axis: int) -> jax.Array:
    return jax.lax.dynamic_update_index_in_dim(carry, value, index, axis)


def _joined(carry: jax.Array) -> jax.Array:
    return jnp.reshape(carry, (-1, *carry.shape[2:]))


def aggregate_all(name: str, accumulator: PyTree, values: PyTree) -> PyTree:
    """The results of one microbatch that is the whole batch, from those of its examples."""
    check_kinds(name, accumulator)
    return map_prefix(name, _aggregate_whole, accumulator, values)


def _aggregate_whole(kind: AccumulationType | Accumulator, values: PyTree) -> PyTree:
    if isinstance(kind, Accumulator):
        return kind.aggregate(values)
    return jax.tree.map(functools.partial(_aggregate_array, kind), values)


def _aggregate_array(kind: AccumulationType, values: jax.Array) -> jax.Array:
    one = accumulator_of(kind, 1, jax.ShapeDtypeStruct(values.shape, values.dtype))
    total = one.aggregate(values)
    return _settle(total, count=1, dtype=values.dtype)


def of_examples(accumulators: PyTree) -> PyTree:
    """The same accumulators for results per example: each aggregates a microbatch first."""
    return jax.tree.map(_of_examples, accumulators)


def _of_examples(one: Accumulator) -> Accumulator:
    return dataclasses.replace(
        one,
        init=functools.partial(_init_aggregated, one),
        update=functools.partial(_update_aggregated, one),
    )


def _init_aggregated(one: Accumulator, like: PyTree) -> PyTree:
    return one.init(jax.eval_shape(one.aggregate, like))


def _update_aggregated(one: Accumulator, carry: PyTree, values: PyTree, index: Any) -> PyTree:
    return one.update(carry, one.aggregate(values), index)
