"""Printing a state: the count, and each slot by its path, with shapes in the place of values."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.definition.leaves import known_number
from gradtx.definition.show import show, show_array, show_dtype
from gradtx.definition.state import State, slot_entries
from gradtx.tree.paths import path_text

FEW = 4
"""The most arrays of a slot that are printed one by one."""
UNITS = ("B", "kB", "MB", "GB", "TB")


def show_state(state: State) -> str:
    """Print a state on one line: `State(count=3, scale_by_adam/mu={w: f32[2]}, ...)`."""
    slots = slot_entries(state) if isinstance(state.slots, Mapping) else [(("slots",), state.slots)]
    parts = [("count", _show_leaf(state.count))]
    parts += [("/".join(path), _show_slot(value)) for path, value in slots if value is not None]
    return f"{type(state).__name__}({', '.join(f'{name}={text}' for name, text in parts)})"


def _show_slot(value: Any) -> str:
    """Print a slot: a leaf, a few arrays one by one, or their number and size."""
    leaves = jax.tree_util.tree_leaves_with_path(value)
    if len(leaves) == 1 and leaves[0][0] == ():
        return _show_leaf(value)
    if len(leaves) <= FEW:
        pairs = (f"{path_text(path)}: {_show_leaf(leaf)}" for path, leaf in leaves)
        return f"{{{', '.join(pairs)}}}"
    return _show_many([leaf for _, leaf in leaves])


def _show_many(leaves: Iterable[Any]) -> str:
    arrays = [leaf for leaf in leaves if _is_array(leaf)]
    dtypes = dict.fromkeys(show_dtype(array.dtype) for array in arrays)
    size = sum(array.size * _itemsize(array) for array in arrays)
    return f"({len(arrays)} arrays, {' and '.join(dtypes)}, {_show_bytes(size)})"


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


def _itemsize(array: Any) -> int:
    is_key = jnp.issubdtype(array.dtype, jax.dtypes.extended)
    return 0 if is_key else np.dtype(array.dtype).itemsize


def _show_bytes(size: float) -> str:
    unit = 0
    while size >= 1000 and unit < len(UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.3g} {UNITS[unit]}"


def _show_leaf(leaf: Any) -> str:
    """Print a known number by its value, any other array by its shape, also a deleted one."""
    value = known_number(leaf)
    if isinstance(value, np.generic):
        return show(value)
    return show_array(leaf) if _is_array(leaf) else show(leaf)
