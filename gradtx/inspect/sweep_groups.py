"""Groups of definitions that one program trains: those of one structure, their numbers stacked."""

from collections.abc import Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.compose.transformation import GradientTransformation
from gradtx.definition.leaves import same_leaf


class Mark(NamedTuple):
    """The kind of a leaf that is not a constant of the program."""

    name: str


BATCHED = Mark("batched")
"""One value for each training."""
WEAK = Mark("weak")
"""The same, of Python numbers."""
SHARED = Mark("shared")
"""An array that is equal for all trainings."""


class Template(NamedTuple):
    """The static part of the definitions of a group; it is hashable and chooses the program."""

    treedef: Any
    leaves: tuple[Hashable, ...]
    """For every leaf its `Mark`, or a number."""

    @property
    def weak(self) -> list[bool]:
        """For every leaf that varies, whether its values are Python numbers."""
        return [leaf is WEAK for leaf in self.leaves if leaf in (BATCHED, WEAK)]

    def definition(self, batched: Sequence[Any], shared: Sequence[Any]) -> GradientTransformation:
        """The definition of one training, from its own values and from those of all."""
        own, common = iter(batched), iter(shared)
        leaves = [self._leaf(leaf, own, common) for leaf in self.leaves]
        return jax.tree.unflatten(self.treedef, leaves)

    @staticmethod
    def _leaf(leaf: Any, own: Iterator[Any], common: Iterator[Any]) -> Any:
        if leaf is SHARED:
            return next(common)
        return next(own) if leaf in (BATCHED, WEAK) else leaf


class Group(NamedTuple):
    """Trainings whose definitions have one structure, so that one program runs them."""

    places: np.ndarray
    """The places of these n trainings among all trainings, shape (n,)."""
    template: Template
    batched: list[Any]
    """The leaves that vary, each with an axis of n trainings."""
    shared: list[Any]
    """The arrays that do not vary."""


def group_definitions(definitions: Sequence[GradientTransformation], seeds: int) -> list[Group]:
    """Sort the trainings by the structures of their definitions, `seeds` for each definition.

    Training `number * seeds + seed` has definition `number`.
    """
    members: dict[Any, list[tuple[int, list[Any]]]] = {}
    for number, definition in enumerate(definitions):
        leaves, treedef = jax.tree.flatten(definition)
        key = treedef, tuple(map(np.shape, leaves))
        members.setdefault(key, []).append((number, leaves))
    return [_group(treedef, rows, seeds) for (treedef, _), rows in members.items()]


def _group(treedef: Any, rows: Sequence[tuple[int, list[Any]]], seeds: int) -> Group:
    numbers = np.array([number for number, _ in rows])
    columns = list(zip(*(leaves for _, leaves in rows), strict=True))
    marks = tuple(map(_mark, columns))
    pairs = list(zip(marks, columns, strict=True))
    places = (numbers[:, None] * seeds + np.arange(seeds)).ravel()
    return Group(
        places,
        Template(treedef, marks),
        [
            _stack(column)[np.repeat(np.arange(len(column)), seeds)]
            for mark, column in pairs
            if mark in (BATCHED, WEAK)
        ],
        [column[0] for mark, column in pairs if mark is SHARED],
    )


def _mark(column: Sequence[Any]) -> Any:
    """The kind of a leaf over all definitions; a number that is always the same is a constant."""
    if all(same_leaf(column[0], one) for one in column[1:]):
        return column[0] if isinstance(column[0], int | float | np.generic) else SHARED
    return WEAK if all(isinstance(one, int | float) for one in column) else BATCHED


def _stack(column: Sequence[Any]) -> Any:
    """The values of one leaf with an axis of definitions, on the host where that is possible."""
    if any(isinstance(one, jax.Array) and not one.is_fully_addressable for one in column):
        return jnp.stack(column)
    if jnp.issubdtype(jnp.result_type(column[0]), jax.dtypes.extended):
        return jnp.stack(column)
    array = np.stack([np.asarray(one) for one in column])
    return array.astype(jax.dtypes.canonicalize_dtype(array.dtype))
