"""`micro_vmap`: `vmap` of a large batch, microbatch by microbatch."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from gradtx.definition.errors import GradtxError
from gradtx.definition.types import ArrayLike, PyTree
from gradtx.microbatching.accumulators import (
    AccumulationType,
    Accumulator,
    accumulators_of,
    aggregate_all,
    of_examples,
)
from gradtx.microbatching.batch import check_size
from gradtx.microbatching.microbatch import Plan, run_microbatches


class Mapped(NamedTuple):
    """A function of one example, and how to map it over a batch."""

    function: Callable[..., Any]
    in_axes: Any
    size: int | None
    vmap_fn: Callable[..., Any]
    accumulator: PyTree
    limit: ArrayLike | None


def micro_vmap(
    fun: Callable[..., Any],
    in_axes: int | Sequence[Any] = 0,
    out_axes: Any = 0,
    *,
    microbatch_size: int | None = None,
    vmap_fn: Callable[..., Any] = jax.vmap,
    accumulator: AccumulationType | Accumulator | PyTree = AccumulationType.CONCAT,
    num_real_microbatches: ArrayLike | None = None,
) -> Callable[..., Any]:
    r"""Vectorize a function over a batch with `vmap`, microbatch by microbatch.

    It is `vmap` of m examples within a loop over B / m microbatches: the intermediate arrays of m
    examples are in memory, not those of B. With CONCAT the result is that of `jax.vmap`; with SUM
    or MEAN the results per example are never in memory together.

    When: `vmap` of the whole batch does not fit into memory. When not: it does; `jax.vmap` runs all
    examples at once.

    Args:
      fun: a function of one example.
      in_axes: the batch axis of every positional argument, one number for all or a sequence; None:
        an argument is the same for all examples. Keyword arguments are mapped along axis 0.
      out_axes: 0; other axes are not supported.
      microbatch_size: m ≥ 1, a divisor of the batch; None: the whole batch.
      vmap_fn: `vmap_fn(fun, in_axes, out_axes)` in place of `jax.vmap`, for example a partial of it
        with `spmd_axis_name`.
      accumulator: how to combine the results of examples: one for all, or a tree of them that is a
        prefix of the result.
      num_real_microbatches: how many microbatches run, as for `microbatch`.

    Returns:
      A function with the arguments of `fun`, each with a batch axis.

    Raises:
      GradtxError: as for `microbatch`; `in_axes` has another length than the arguments, or no axis.
      NotImplementedError: `out_axes` is not 0.

    >>> import gradtx.microbatching, jax.numpy as jnp
    >>> from gradtx.microbatching import AccumulationType, micro_vmap
    >>> micro_vmap(lambda x: x**2, microbatch_size=2)(jnp.arange(4)).tolist()
    [0, 1, 4, 9]
    >>> total = micro_vmap(lambda x: x**2, microbatch_size=2, accumulator=AccumulationType.SUM)
    >>> int(total(jnp.arange(4)))
    14

    See also: `microbatch`, `micro_grad`.
    """
    if isinstance(out_axes, bool) or out_axes != 0:
        raise NotImplementedError(
            f"micro_vmap: out_axes = {out_axes!r} is not supported; give 0, and move the axis of "
            "the result with jnp.moveaxis"
        )
    if microbatch_size is not None:
        check_size("micro_vmap", microbatch_size)
    mapped = Mapped(fun, in_axes, microbatch_size, vmap_fn, accumulator, num_real_microbatches)
    return functools.wraps(fun)(functools.partial(run_mapped, "micro_vmap", mapped))


def run_mapped(name: str, mapped: Mapped, *args: Any, **kwargs: Any) -> PyTree:
    """The accumulated results of a function on all examples of some arguments."""
    axes = _positional_axes(name, mapped.in_axes, args)
    function = mapped.vmap_fn(mapped.function, axes, 0)
    if mapped.size is None:
        return aggregate_all(name, mapped.accumulator, function(*args, **kwargs))
    accumulators = functools.partial(_accumulators, mapped.accumulator)
    plan = Plan(name, function, mapped.size, mapped.limit, accumulators)
    by_place = {place: axis for place, axis in enumerate(axes) if axis is not None}
    return run_microbatches(plan, {**by_place, **dict.fromkeys(kwargs, 0)}, args, kwargs)


def _positional_axes(name: str, in_axes: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    axes = tuple(in_axes) if isinstance(in_axes, list | tuple) else (in_axes,) * len(args)
    if len(axes) != len(args):
        raise GradtxError(
            f"{name}: in_axes has {len(axes)} entries, and the function got {len(args)} positional "
            "arguments; give one number for all, or one for each of them"
        )
    return axes


def _accumulators(accumulator: PyTree, name: str, like: PyTree, count: int) -> PyTree:
    return of_examples(accumulators_of(name, accumulator, like, count))
