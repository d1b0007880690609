"""The batch axis: cut into microbatches, which a loop then takes one by one."""

import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.definition.errors import GradtxError, StructureError
from gradtx.definition.types import ArrayLike, PyTree
from gradtx.tree.paths import path_text


def reshape_batch_axis(tree: PyTree, microbatch_size: int, axis: int = 0) -> PyTree:
    """Reshape the batch axis of every array for microbatching.

    An axis of B = n m examples becomes two: (..., B, ...) → (..., n, m, ...) for n microbatches
    of m = `microbatch_size` examples. Microbatch i holds the examples i, i + n, i + 2n, ... A batch
    that is sharded over devices stays where it is: the axis m has the sharding of the batch axis.

    When: a loop of your own over microbatches. When not: `microbatch` and `make_step` do it.

    Args:
      tree: arrays that each have a batch axis; None stays None.
      microbatch_size: m ≥ 1, a divisor of the batch axis.
      axis: the batch axis; a negative one counts from the last.

    Returns:
      The same tree, each array with one more axis.

    Raises:
      GradtxError: m is not a whole number from 1 on, or an array has no such axis.
      StructureError: m does not divide a batch axis.

    >>> import gradtx.microbatching, jax.numpy as jnp
    >>> gradtx.microbatching.reshape_batch_axis(jnp.arange(6), microbatch_size=2).tolist()
    [[0, 3], [1, 4], [2, 5]]

    See also: `microbatch`.
    """
    check_size("reshape_batch_axis", microbatch_size)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: _reshaped(path_text(path), leaf, microbatch_size, axis), tree
    )


def _reshaped(path: str, leaf: ArrayLike, size: int, axis: int) -> jax.Array:
    array = jnp.asarray(leaf)
    one = BatchArray(path, array, checked_axis("reshape_batch_axis", path, array.shape, axis))
    check_divides("reshape_batch_axis", [one], size)
    parts = split_axis(array, one.axis, array.shape[one.axis] // size)
    return jnp.swapaxes(parts, one.axis, one.axis + 1)


class BatchArray(NamedTuple):
    """An array with a batch axis, and its name in messages."""

    path: str
    array: jax.Array
    axis: int


def split_axis(array: jax.Array, axis: int, count: int) -> jax.Array:
    """An axis as two, (size, count): part i of `count` holds the examples i, i + count, ...

    A batch over several devices then stays where it is.
    """
    shape = array.shape
    return jnp.reshape(array, (*shape[:axis], -1, count, *shape[axis + 1 :]))


def take_part(array: jax.Array, axis: int, index: ArrayLike) -> jax.Array:
    """Part `index` of an array that `split_axis` cut."""
    return jax.lax.dynamic_index_in_dim(array, index, axis + 1, keepdims=False)


def check_size(name: str, size: object) -> None:
    """Raise unless the size of a microbatch is a whole number from 1 on."""
    if isinstance(size, bool) or not isinstance(size, numbers.Integral) or int(size) < 1:
        raise GradtxError(
            f"{name}: microbatch_size = {size!r} is not a number of examples; give a whole number "
            "from 1 on"
        )


def checked_axis(name: str, path: str, shape: Sequence[int], axis: object) -> int:
    """The batch axis of an array, counted from the first."""
    if isinstance(axis, bool) or not isinstance(axis, numbers.Integral):
        raise GradtxError(f"{name}: the batch axis of {path!r} is {axis!r}; give a whole number")
    if not -len(shape) <= int(axis) < len(shape):
        raise GradtxError(
            f"{name}: {path!r} has shape {tuple(shape)}, and no axis {axis} to split into "
            "microbatches; only arrays with a batch axis may be batch arguments"
        )
    return int(axis) % len(shape)


def check_divides(name: str, arrays: Sequence[BatchArray], size: int) -> int:
    """The number of microbatches; raise unless all batches are alike and `size` divides them."""
    first = arrays[0]
    batch = first.array.shape[first.axis]
    for one in arrays:
        if one.array.shape[one.axis] != batch:
            raise StructureError(
                f"{name}: batch axes must have one size: {first.path!r} has shape "
                f"{first.array.shape} and {batch} examples, and {one.path!r} has shape "
                f"{one.array.shape} and {one.array.shape[one.axis]}"
            )
    if batch % size or not batch:
        raise StructureError(
            f"{name}: the {batch} examples of {first.path!r}, shape {first.array.shape}, are not "
            f"divisible by microbatch_size = {size}; give a divisor, or fill up the batch"
        )
    return batch // size


def as_tuple(value: Any) -> tuple[Any, ...]:
    """One number or name, or several of them, as a tuple."""
    return (value,) if isinstance(value, int | str) else tuple(value)
