"""The loop over microbatches: one traced function, whatever their number."""

import functools
import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from gradtx.compose.choosing import run_in_place_if
from gradtx.definition.errors import GradtxError
from gradtx.definition.types import ArrayLike, PyTree


class Microbatches(NamedTuple):
    """How many microbatches there are, and how many of them run."""

    number: int
    limit: Any
    """None: all; else a whole number, or an array whose value the program knows."""


def accumulate_parts(
    evaluate: Callable[[Any], PyTree],
    accumulators_for: Callable[[PyTree], PyTree],
    microbatches: Microbatches,
) -> PyTree:
    """The accumulated results of `evaluate(i)` for every microbatch i, one after another.

    `accumulators_for(like)` returns the accumulators, a prefix of the results, for the shapes and
    dtypes of one result.
    """
    # JAX's cache answers the second time: shapes and the loop share one trace.
    evaluate = jax.jit(evaluate, inline=True)
    like = jax.eval_shape(evaluate, jax.ShapeDtypeStruct((), jnp.int32))
    accumulators = accumulators_for(like)
    carry = jax.tree.map(_init, accumulators, like)
    step = functools.partial(_step, evaluate, accumulators)
    steps, limit = microbatches.number, microbatches.limit
    if isinstance(limit, Tracer):
        step = functools.partial(_step_if, step, limit)
    elif limit is not None:
        steps = int(limit)
    carry, _ = jax.lax.scan(step, carry, jnp.arange(steps, dtype=jnp.int32))
    return jax.tree.map(_finalize, accumulators, carry)


def _init(accumulator: Any, like: PyTree) -> PyTree:
    """The first carry; within `shard_map` it varies over the axes that the results vary over."""
    axes = frozenset[str]().union(*map(_varying_axes, jax.tree.leaves(like)))
    carry = accumulator.init(like)
    return jax.tree.map(functools.partial(_vary, axes), carry) if axes else carry


def _varying_axes(aval: Any) -> frozenset[str]:
    kind = getattr(aval, "manual_axis_type", None)
    return frozenset() if kind is None else frozenset(kind.varying)


def _vary(axes: frozenset[str], leaf: jax.Array) -> jax.Array:
    missing = tuple(sorted(axes - _varying_axes(jax.typeof(leaf))))
    return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf


def _finalize(accumulator: Any, carry: PyTree) -> PyTree:
    return accumulator.finalize(carry)


def _step(
    evaluate: Callable[[Any], PyTree], accumulators: PyTree, carry: PyTree, index: jax.Array
) -> tuple[PyTree, None]:
    update = functools.partial(_update, index)
    return jax.tree.map(update, accumulators, carry, evaluate(index)), None


def _update(index: jax.Array, accumulator: Any, carry: PyTree, value: PyTree) -> PyTree:
    return accumulator.update(carry, value, index)


def _step_if(
    step: Callable[..., Any], limit: jax.Array, carry: PyTree, index: jax.Array
) -> tuple[PyTree, None]:
    """A step that is empty from the limit on; a `while_loop` would have no reverse derivative."""

    def run(carry: PyTree) -> PyTree:
        return step(carry, index)[0]

    return run_in_place_if(index < limit.astype(index.dtype), run, _skip, carry), None


def _skip(carry: PyTree) -> PyTree:
    return carry


def checked_limit(name: str, limit: ArrayLike | None, count: int) -> Any:
    """The number of microbatches that run; raise outside of 0 to `count`, if the value is known."""
    if limit is None:
        return None
    array = limit if isinstance(limit, numbers.Integral) else jnp.asarray(limit)
    if jnp.ndim(array) or not jnp.issubdtype(jnp.result_type(array), jnp.integer):
        raise GradtxError(
            f"{name}: num_real_microbatches = {limit!r} is not a number of microbatches; give a "
            "whole number, or an integer array without axes"
        )
    if not isinstance(array, Tracer) and not 0 <= int(array) <= count:
        raise GradtxError(
            f"{name}: num_real_microbatches = {int(array)} is outside its range [0, {count}]; the "
            f"batch has {count} microbatches"
        )
    return array
