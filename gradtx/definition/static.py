"""Static arguments of a definition, which compare by value and choose the program."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from gradtx.definition.show import is_dtype, show


class Static:
    """Static arguments: they choose the program, and compare by value, arrays included."""

    __slots__ = ("_hash", "_key", "values")

    def __init__(self, values: Mapping[str, Any]):
        self.values: dict[str, Any] = dict(values)
        self._key = tuple((name, _freeze(value)) for name, value in self.values.items())
        self._hash = hash(self._key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and self._hash == other._hash and self._key == other._key

    def __repr__(self) -> str:
        return show(self.values)


def _freeze(value: Any) -> Any:
    """Build a hashable key; two keys are equal exactly when their values are."""
    if isinstance(value, Mapping):
        return type(value), tuple((key, _freeze(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return type(value), tuple(_freeze(item) for item in value)
    if isinstance(value, np.ndarray | jax.Array):
        array = np.asarray(value)
        return array.shape, array.dtype, array.tobytes()
    if is_dtype(value):
        return np.dtype(value)
    try:
        hash(value)
    except TypeError:
        leaves, treedef = jax.tree.flatten(value)
        return treedef, tuple(id(leaf) if leaf is value else _freeze(leaf) for leaf in leaves)
    return type(value), value
