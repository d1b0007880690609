"""Checks of the batches of `find_learning_rate`: stacked arrays, enough of them, not examples."""

import inspect
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.definition.errors import GradtxError, StructureError
from gradtx.definition.show import show_array, show_type
from gradtx.definition.types import Params
from gradtx.tree.casts import is_inexact_dtype
from gradtx.tree.paths import path_text

STACK = "stack them along a first axis, jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches)"
REPEAT = (
    "to train on one batch again and again, repeat it, jax.tree.map(lambda leaf: "
    "jnp.broadcast_to(leaf, (100, *leaf.shape)), batches)"
)
SPLIT = (
    "to split examples into batches of 32, write jax.tree.map(lambda leaf: leaf.reshape(-1, 32, "
    "*leaf.shape[1:]), batches)"
)


def read_batches(
    loss_fn: Callable[..., Any], params: Params, batches: Any, least: int, has_aux: bool
) -> tuple[tuple[Any, ...], int]:
    """The arguments of `loss_fn` with a first axis of batches, and the number of batches.

    Raises:
      StructureError: batches are not stacked, too few, or not the arguments of `loss_fn`.
      GradtxError: the loss is not a real scalar.
    """
    batch = batches if type(batches) is tuple else (batches,)
    shapes = _shapes(batch)
    _check_arguments(loss_fn, batches, batch, least)
    count = _count(shapes, least, batches)
    _check_loss(loss_fn, params, batch, has_aux)
    if _are_examples(batch):
        shown = ", ".join(show_array(leaf) for leaf in jax.tree.leaves(_entry(batch)))
        warnings.warn(
            f"find_learning_rate: every step trains on one entry along the first axis, {shown}, "
            f"which looks like one example; {SPLIT}; {REPEAT}",
            stacklevel=3,
        )
    return batch, count


def _shapes(batch: Any) -> list[tuple[str, tuple[int, ...]]]:
    """The path and the shape of every array; an error where a leaf is not an array."""
    shapes: list[tuple[str, tuple[int, ...]]] = []
    # JAX will not take iterators as leaves for long.
    leaves = jax.tree_util.tree_flatten_with_path(
        batch, is_leaf=lambda node: isinstance(node, Iterator)
    )[0]
    for path, leaf in leaves:
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic | int | float | complex):
            raise StructureError(
                f"find_learning_rate: batches at {path_text(path)!r} is {show_type(leaf)}, "
                "not an array; take some of its batches, batches = "
                f"list(itertools.islice(batches, 100)), and {STACK}"
            )
        shapes.append((path_text(path), jnp.shape(leaf)))
    scalar = next((path for path, shape in shapes if not shape), None)
    if not shapes or scalar is not None:
        fault = "batches hold no array" if scalar is None else f"batches at {scalar!r} is a scalar"
        raise StructureError(
            f"find_learning_rate: {fault}; stack the batches along a first axis, one entry per step"
        )
    return shapes


def _check_arguments(
    loss_fn: Callable[..., Any], batches: Any, batch: Sequence[Any], least: int
) -> None:
    """Raise where batches come one by one, or are not the arguments of the loss."""
    if _are_listed(batches) and len(batches) >= least:
        raise _listed(batches)
    if _takes(loss_fn, len(batch)):
        return
    if type(batches) is list and _takes(loss_fn, len(batches)):
        cure = "a list is one argument, a tuple holds several: write batches=(x, y)"
    elif _are_listed(batches):
        raise _listed(batches)
    elif type(batches) is tuple and _takes(loss_fn, 1):
        cure = "a tuple holds several arguments: for one that is a tuple write batches=((x, y),)"
    else:
        cure = "give a tuple with one tree of arrays for each argument behind the parameters"
    names = ", ".join(("params", *(f"batches[{number}]" for number in range(len(batch)))))
    raise StructureError(
        f"find_learning_rate: loss_fn({', '.join(inspect.signature(loss_fn).parameters)}) cannot "
        f"be called as loss_fn({names}); {cure}"
    )


def _takes(loss_fn: Callable[..., Any], count: int) -> bool:
    """Whether a loss takes so many arguments behind the parameters, as far as Python knows."""
    try:
        signature = inspect.signature(loss_fn)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*range(count + 1))
    except TypeError:
        return False
    return True


def _are_listed(batches: Any) -> bool:
    """Whether a list or a tuple holds several trees of one structure and of the same shapes."""
    if not isinstance(batches, list | tuple) or len(batches) < 2:
        return False
    kinds = [(jax.tree.structure(one), [*map(jnp.shape, jax.tree.leaves(one))]) for one in batches]
    return all(kind == kinds[0] for kind in kinds)


def _listed(batches: Any) -> StructureError:
    return StructureError(
        f"find_learning_rate: batches is a {type(batches).__name__} of {len(batches)} batches; "
        f"{STACK}"
    )


def _count(shapes: Sequence[tuple[str, tuple[int, ...]]], least: int, batches: Any) -> int:
    """The number of batches."""
    (first, (count, *_)), *others = shapes
    for path, shape in others:
        if shape[0] != count:
            raise StructureError(
                f"find_learning_rate: batches at {path!r} has {shape[0]} entries along its first "
                f"axis, at {first!r} {count}; every array needs one entry per step"
            )
    if count < least:
        trees = _are_listed(batches) and not hasattr(batches[0], "shape")
        cure = (
            f"if {len(batches)} batches are in a {type(batches).__name__}, {STACK}"
            if trees
            else REPEAT
        )
        raise StructureError(
            f"find_learning_rate: {count} batches are too few to see a slope; give {least} or "
            f"more, about 100, or less smoothing; {cure}"
        )
    return count


def _entry(batch: Any) -> Any:
    """The shapes of the batch of one step."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf)[1:], jnp.result_type(leaf)), batch
    )


def _are_examples(batch: Any) -> bool:
    """Whether the arrays of a step share no axis of examples: images with one label each."""
    entries = [leaf for leaf in jax.tree.leaves(_entry(batch)) if not _is_key(leaf)]
    sizes = Counter(leaf.shape[0] for leaf in entries if leaf.shape)
    return len(entries) > 1 and len(sizes) > 0 and max(sizes.values()) == 1


def _is_key(entry: jax.ShapeDtypeStruct) -> bool:
    """Whether an entry is a random key, typed or raw."""
    is_typed = jnp.issubdtype(entry.dtype, jax.dtypes.prng_key)
    return is_typed or (entry.dtype == np.uint32 and len(entry.shape) == 1)


def _check_loss(loss_fn: Callable[..., Any], params: Params, batch: Any, has_aux: bool) -> None:
    entry = _entry(batch)
    try:
        loss = jax.eval_shape(loss_fn, params, *entry)
    except Exception as error:
        shown = ", ".join(show_array(leaf) for leaf in jax.tree.leaves(entry))
        cure = f"; {SPLIT}; {REPEAT}" if _are_examples(batch) else ""
        error.add_note(
            f"find_learning_rate called loss_fn with one entry along the first axis of batches: "
            f"{shown}{cure}"
        )
        raise
    loss = loss[0] if has_aux else loss
    if not hasattr(loss, "dtype"):
        raise _loss_error(f"{show_type(loss)}, not an array")
    is_complex = jnp.issubdtype(loss.dtype, jnp.complexfloating)
    if loss.shape != () or not is_inexact_dtype(loss.dtype) or is_complex:
        raise _loss_error(f"an array {loss.dtype}{list(loss.shape)}")


def _loss_error(result: str) -> GradtxError:
    return GradtxError(
        f"find_learning_rate: loss_fn returns {result}; return a real scalar, for example the mean "
        "over a batch"
    )
