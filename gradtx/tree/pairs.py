"""Functions of the leaves that several trees have in the same places, and errors that name one."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.tree.casts import ALIKE, as_array, compute_dtype, mixed_promotion, real_dtype
from gradtx.tree.errors import StructureError
from gradtx.tree.kernels import map_arrays
from gradtx.tree.paths import describe_difference, flatten, is_none, leaf_paths, tree_paths

Names = Mapping[str, Any]
"""Trees by the names of the arguments that they are."""


def map_rows(
    where: str,
    function: Callable[..., Any],
    trees: Names,
    scalars: Sequence[Any] = (),
    none: str = "all",
    is_native: bool = False,
) -> Any:
    """Call `function(*arrays, *scalars)` for the leaves of several trees; `function` at module
    level.

    `none` says which trees may have None where others have an array: "all" of them or none,
    "first" for the first tree, whose None is the result, and "second": the first tree's None
    leaves the second tree's leaf unchanged. With `is_native`, numbers and arrays of NumPy stay so
    where no array of JAX is beside them.
    """
    rows, treedef = match_rows(where, trees)
    _check_rows(where, trees, rows, treedef, is_none_allowed=none != "all")
    results = [row[-1] if none == "second" else row[0] for row in rows]
    places = list[int]()
    for place, row in enumerate(rows):
        if is_native and row[0] is not None and not _has_array(row):
            results[place] = function(*row)
        elif row[0] is not None:
            places.append(place)
    columns = [[as_array(rows[place][n]) for place in places] for n in range(len(trees))]
    shared = [[as_array(scalar)] * len(places) for scalar in scalars]
    for place, result in zip(places, map_arrays(function, *columns, *shared), strict=True):
        results[place] = result
    return jax.tree.unflatten(treedef, results)


def _has_array(row: Sequence[Any]) -> bool:
    return any(isinstance(one, jax.Array) for one in row)


def match_rows(where: str, trees: Names) -> tuple[list[tuple[Any, ...]], Any]:
    """The leaves of several trees by place, and the structure of the first.

    Raises:
      StructureError: a tree has another structure; the error names the first path that differs.
    """
    (first, tree), *others = trees.items()
    leaves, treedef = flatten(tree)
    columns = [leaves]
    for name, other in others:
        try:
            column = treedef.flatten_up_to(other)
        except (ValueError, TypeError, KeyError):
            raise _differ(where, first, tree, name, other) from None
        if not jax.tree_util.all_leaves(column, is_leaf=is_none):
            raise _differ(where, first, tree, name, other)
        columns.append(column)
    return list(zip(*columns, strict=True)), treedef


def _differ(where: str, first: str, tree: Any, name: str, other: Any) -> StructureError:
    difference = describe_difference(tree_paths(tree), tree_paths(other), first, name)
    return StructureError(
        f"{where}: {first} and {name} differ in structure: {difference}; give trees of one form"
    )


def _check_rows(
    where: str,
    trees: Names,
    rows: Sequence[tuple[Any, ...]],
    treedef: Any,
    is_none_allowed: bool,
) -> None:
    """Raise where a leaf is None in some trees alone, or where shapes do not broadcast."""
    for place, row in enumerate(rows):
        shapes = [None if one is None else np.shape(one) for one in row]
        if shapes.count(shapes[0]) == len(row) or (is_none_allowed and row[0] is None):
            continue
        path = leaf_paths(treedef, next(iter(trees.values())))[place]
        if None in shapes:
            empty = list(trees)[shapes.index(None)]
            raise StructureError(
                f"{where}: {empty} is None{at(path)}, where another tree has an array; the trees "
                f"must have None in the same places"
            )
        if not _do_broadcast(shapes):
            each = ", ".join(
                f"{name} has shape {shape}" for name, shape in zip(trees, shapes, strict=True)
            )
            raise StructureError(f"{where}: the shapes do not broadcast{at(path)}: {each}")


def _do_broadcast(shapes: Sequence[Any]) -> bool:
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        return False
    return True


def at(path: str) -> str:
    """A leaf's path in an error; nothing for an array that is the whole tree."""
    return f" at {path!r}" if path else ""


def joint_dtype(arrays: Sequence[jax.Array], scalar: jax.Array | None = None) -> np.dtype:
    """The dtype of a result: that of the arrays, which a scalar of the same kind does not widen.

    A learning rate in float32 leaves bfloat16 as it is; 0.5 makes float32 of integers.
    """
    with mixed_promotion():
        dtype = np.dtype(jnp.result_type(*arrays))
        if scalar is None or kind(scalar.dtype) <= kind(dtype):
            return dtype
        return np.dtype(jnp.result_type(*arrays, scalar))


@functools.lru_cache(maxsize=256)
def kind(dtype: Any) -> int:
    """The rank of a dtype: bools 0, integers 1, floats 2, complex numbers 3."""
    kinds = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating)
    return next(rank for rank, kind in enumerate(kinds) if jnp.issubdtype(dtype, kind))


def wide_dtype(dtype: Any) -> np.dtype:
    """The dtype of arithmetic for a result: float32 at least for floats, integers as they are."""
    return compute_dtype(dtype) if kind(dtype) > 1 else np.dtype(dtype)


def as_factor(scalar: jax.Array, dtype: Any) -> jax.Array:
    """A scalar in the dtype of arrays; a real one stays real beside complex arrays."""
    is_real = kind(dtype) == 3 and kind(scalar.dtype) < 3
    return scalar.astype(real_dtype(dtype) if is_real else dtype)


def products(dtype: Any) -> Any:
    """The context of products of arrays of a dtype with factors of `as_factor`."""
    return mixed_promotion() if kind(dtype) == 3 else ALIKE
