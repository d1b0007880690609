"""Trees that hold more than arrays: the functions, texts and flags in a module are its options.

A module of equinox keeps its activation function, and the rate of its dropout, beside its arrays.
A compiled program takes the arrays as data and the options as constants.
"""

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import numpy as np

from gradtx.tree.errors import StructureError
from gradtx.tree.frameworks import containers
from gradtx.tree.paths import Treedef, flatten, tree_paths


class Options(NamedTuple):
    """What a tree holds beside its arrays; it compares by value, as a constant of a program."""

    treedef: Treedef
    kinds: tuple[type, ...]
    """The types, since `True == 1 == 1.0`."""
    values: tuple[Hashable, ...]
    """One for every leaf, None in the place of arrays."""


def is_data(leaf: Any) -> bool:
    """Whether a program can take a leaf as an array."""
    is_number = isinstance(leaf, bool | int | float | complex | np.generic)
    # A module of flax has an option `dtype`, and no shape.
    is_array = hasattr(leaf, "dtype") and hasattr(leaf, "shape")
    return is_number or is_array or hasattr(leaf, "__jax_array__")


def has_options(tree: Any) -> bool:
    """Whether a tree holds something beside arrays and numbers."""
    return not all(leaf is None or is_data(leaf) for leaf in flatten(tree)[0])


def has_numbers(tree: Any) -> bool:
    """Whether traced modules of equinox may hold Python numbers, which are options there."""
    leaves, treedef = flatten(tree)
    return any(
        one.framework == "equinox" and getattr(leaf, "ndim", None) == 0 and _may_be_number(leaf)
        for leaf, one in zip(leaves, containers(treedef), strict=True)
    )


def _may_be_number(leaf: Any) -> bool:
    return getattr(leaf, "weak_type", False) or leaf.dtype == np.bool_


def split(tree: Any) -> tuple[Any, Options]:
    """The arrays of a tree, with None in the place of its options, and the options."""
    leaves, treedef = flatten(tree)
    where = zip(leaves, containers(treedef), strict=True)
    data = [_is_array(leaf, one.framework) for leaf, one in where]
    values = tuple(None if is_array else leaf for leaf, is_array in zip(leaves, data, strict=True))
    arrays = [leaf if is_array else None for leaf, is_array in zip(leaves, data, strict=True)]
    options = Options(treedef, tuple(map(type, values)), values)
    if not _has_hash(values):
        raise _not_constant(tree, values)
    return jax.tree.unflatten(treedef, arrays), options


def _is_array(leaf: Any, framework: str) -> bool:
    # Equinox trains arrays alone: the number in a Dropout is its rate.
    is_number = isinstance(leaf, bool | int | float | complex) and not hasattr(leaf, "dtype")
    return is_data(leaf) and not (is_number and framework == "equinox")


def _not_constant(tree: Any, values: tuple[Any, ...]) -> StructureError:
    each = zip(tree_paths(tree), values, strict=True)
    path, value = next((path, value) for path, value in each if not _has_hash(value))
    return StructureError(
        f"the leaf at {path!r} of the parameters is a {type(value).__name__}, neither an array nor "
        f"a constant that can be hashed: take it out of the parameters"
    )


def _has_hash(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def join(arrays: Any, options: Options) -> Any:
    """The tree of `split` again, with other arrays."""
    leaves = zip(options.treedef.flatten_up_to(arrays), options.values, strict=True)
    filled = [value if value is not None else leaf for leaf, value in leaves]
    return jax.tree.unflatten(options.treedef, filled)


def eval_shape(function: Callable[[Any], Any], tree: Any) -> Any:
    """`jax.eval_shape` of a function of a tree that may hold options: they stay as they are."""
    if not has_options(tree):
        return jax.eval_shape(function, tree)
    arrays, options = split(tree)
    return jax.eval_shape(lambda arrays: function(join(arrays, options)), arrays)
