"""`microbatch`: a function of a batch, evaluated microbatch by microbatch."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.definition.errors import GradtxError
from gradtx.definition.types import ArrayLike, PyTree
from gradtx.microbatching.accumulators import AccumulationType, Accumulator, accumulators_of
from gradtx.microbatching.batch import (
    BatchArray,
    as_tuple,
    check_divides,
    check_size,
    checked_axis,
    split_axis,
    take_part,
)
from gradtx.microbatching.loop import Microbatches, accumulate_parts, checked_limit
from gradtx.tree.paths import path_text

Axes = Mapping[int | str, Any]
"""The batch axes by argument: an axis, or a tree of axes that is a prefix of the argument."""


class Plan(NamedTuple):
    """What the loop needs beside the arguments."""

    name: str
    function: Callable[..., Any]
    size: int
    limit: ArrayLike | None
    accumulators: Callable[[str, PyTree, int], PyTree]
    """`accumulators(name, like, count)` for the results of one microbatch."""


def microbatch(
    fun: Callable[..., Any],
    argnums: int | Sequence[int],
    microbatch_size: int | None,
    accumulator: AccumulationType | Accumulator | PyTree = AccumulationType.SUM,
    *,
    argnames: str | Sequence[str] = (),
    in_axes: int | Sequence[Any] = 0,
    num_real_microbatches: ArrayLike | None = None,
) -> Callable[..., Any]:
    r"""Microbatching: evaluate a function of a large batch part by part, in less memory.

    With n microbatches X_i of m examples, B = m n, the result for SUM is Σ_i f(X_i); see
    `AccumulationType` for the others. One `scan` runs the microbatches, so that only one of them
    has its intermediate arrays in memory, and the program does not grow with n. Microbatch i holds
    the examples i, i + n, i + 2n, ...: a batch over several devices stays in place. The result has
    derivatives of both modes; a reverse one keeps the intermediate arrays of all microbatches, so
    take `microbatch` of a gradient, not the gradient of a `microbatch`.

    When: f of the whole batch does not fit into memory. When not: a training step; take
    `make_step(..., microbatches=n)`. For gradients per example take `micro_grad`.

    Args:
      fun: any function of arrays.
      argnums: the positions of the arguments that have a batch axis; negative ones count from the
        last.
      microbatch_size: m ≥ 1, a divisor of the batch; None: `fun` itself.
      accumulator: how to combine the results of microbatches: one for all, or a tree of them that
        is a prefix of the result.
      argnames: the names of keyword arguments that have a batch axis.
      in_axes: the batch axis of every batch argument: one number for all, or one for each of
        `argnums` and then of `argnames`. Such an entry may be a tree, a prefix of the argument;
        arrays at None are the same for every microbatch.
      num_real_microbatches: how many microbatches run, the first of them; None: all. An array lets
        one program serve batches of several sizes. CONCAT has zeros for the others, and MEAN
        divides by n.

    Returns:
      A function with the arguments of `fun`.

    Raises:
      GradtxError: (at the call of the result) an argument has no such axis or does not exist; a
        size, a limit or an accumulator is out of its range.
      StructureError: m does not divide the batch; batch axes differ in size; `accumulator` is not
        a prefix of the result.

    >>> import gradtx.microbatching, jax, jax.numpy as jnp
    >>> from gradtx.microbatching import AccumulationType, microbatch
    >>> def predict(w, x):
    ...     return w * x, jnp.sum(w * x)
    >>> kinds = AccumulationType.CONCAT, AccumulationType.SUM
    >>> values, total = microbatch(predict, argnums=1, microbatch_size=2, accumulator=kinds)(
    ...     3.0, jnp.arange(6.0)
    ... )
    >>> values.tolist(), float(total)
    ([0.0, 3.0, 6.0, 9.0, 12.0, 15.0], 45.0)

    See also: `micro_vmap`, `micro_grad`, `make_step`, `accumulate`.
    """
    if microbatch_size is None:
        return fun
    check_size("microbatch", microbatch_size)
    plan = Plan(
        "microbatch",
        fun,
        microbatch_size,
        num_real_microbatches,
        functools.partial(_accumulators, accumulator),
    )
    axes = functools.partial(_axes_of, as_tuple(argnums), as_tuple(argnames), in_axes)
    return functools.wraps(fun)(functools.partial(_microbatched, plan, axes))


def _accumulators(accumulator: PyTree, name: str, like: PyTree, count: int) -> PyTree:
    return accumulators_of(name, accumulator, like, count)


def _microbatched(plan: Plan, axes: Callable[..., Axes], *args: Any, **kwargs: Any) -> PyTree:
    return run_microbatches(plan, axes(args, kwargs), args, kwargs)


def _axes_of(
    argnums: tuple[int, ...],
    argnames: tuple[str, ...],
    in_axes: int | Sequence[Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Axes:
    """The batch axes of the arguments of one call."""
    for number in argnums:
        if not -len(args) <= number < len(args):
            raise GradtxError(
                f"microbatch: argnums has {number}, and the function got {len(args)} positional "
                "arguments; pass the batch by position, or name it in argnames"
            )
    for name in argnames:
        if name not in kwargs:
            raise GradtxError(
                f"microbatch: argnames has {name!r}, and the function got the keyword arguments "
                f"{sorted(kwargs)}; pass it by keyword, or take its position into argnums"
            )
    keys = (*(number % len(args) for number in argnums), *argnames)
    axes = (in_axes,) * len(keys) if isinstance(in_axes, int) else tuple(in_axes)
    if len(axes) != len(keys):
        raise GradtxError(
            f"microbatch: in_axes has {len(axes)} entries, and there are {len(keys)} batch "
            "arguments; give one number for all, or one for each of argnums and argnames"
        )
    return dict(zip(keys, axes, strict=True))


def run_microbatches(
    plan: Plan, axes: Axes, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> PyTree:
    """The accumulated results of the function on all microbatches of some arguments."""
    arrays = [one for key, axis in axes.items() for one in _arrays(plan, key, axis, args, kwargs)]
    batch = [one for one in arrays if isinstance(one, BatchArray)]
    if not batch:
        raise GradtxError(
            f"{plan.name}: no array of the arguments has a batch axis to split; name the batch in "
            "argnums or argnames"
        )
    count = check_divides(plan.name, batch, plan.size)
    evaluate = functools.partial(
        _evaluate,
        plan.function,
        [_split(one, count) for one in arrays],
        functools.partial(_put, tuple(axes), args, kwargs),
    )
    microbatches = Microbatches(count, checked_limit(plan.name, plan.limit, count))
    accumulators = functools.partial(_for_results, plan, count)
    return accumulate_parts(evaluate, accumulators, microbatches)


def _for_results(plan: Plan, count: int, like: PyTree) -> PyTree:
    return plan.accumulators(plan.name, like, count)


def _arrays(
    plan: Plan,
    key: int | str,
    axes: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> list[Any]:
    """The leaves of one argument: a `BatchArray` where it has a batch axis, else as it is."""
    argument = args[key] if isinstance(key, int) else kwargs[key]
    where = f"argument {key}" if isinstance(key, int) else key
    leaves = jax.tree_util.tree_leaves_with_path(argument)
    each = _axes_of_leaves(axes, argument)
    return [
        leaf if axis is None else _batch_array(plan.name, where, path_text(path), leaf, axis)
        for (path, leaf), axis in zip(leaves, each, strict=True)
    ]


def _axes_of_leaves(axes: Any, argument: PyTree) -> list[Any]:
    """One axis for each leaf of an argument, from a prefix."""
    each: list[Any] = []

    def extend(axis: Any, below: PyTree) -> None:
        each.extend([axis] * len(jax.tree.leaves(below)))

    jax.tree.map(extend, axes, argument, is_leaf=lambda one: one is None)
    return each


def _batch_array(name: str, where: str, path: str, leaf: Any, axis: Any) -> BatchArray:
    array, full = jnp.asarray(leaf), f"{where}/{path}" if path else where
    return BatchArray(full, array, checked_axis(name, full, array.shape, axis))


class _Split(NamedTuple):
    """An array that `split_axis` cut."""

    array: jax.Array
    axis: int


def _split(one: Any, count: int) -> Any:
    if not isinstance(one, BatchArray):
        return one
    return _Split(split_axis(one.array, one.axis, count), one.axis)


def _evaluate(
    function: Callable[..., Any], arrays: Sequence[Any], put: Callable[..., Any], index: Any
) -> PyTree:
    """The function on one microbatch, a slice of every batch."""
    parts = [
        take_part(one.array, one.axis, index) if isinstance(one, _Split) else one for one in arrays
    ]
    args, kwargs = put(parts)
    return jax.tree.map(jnp.asarray, function(*args, **kwargs))


def _put(
    keys: Sequence[int | str], args: tuple[Any, ...], kwargs: Mapping[str, Any], leaves: list[Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments with other leaves in the arguments that have a batch axis."""
    new_args, new_kwargs, rest = list(args), dict(kwargs), iter(leaves)
    for key in keys:
        place: Any = new_args if isinstance(key, int) else new_kwargs
        structure = jax.tree.structure(place[key])
        place[key] = jax.tree.unflatten(
            structure, [next(rest) for _ in range(structure.num_leaves)]
        )
    return new_args, new_kwargs
