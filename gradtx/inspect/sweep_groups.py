"""Groups of definitions that one program trains: those of one structure, their numbers stacked."""

from collections.abc import Hashable, Sequence
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

    def definition(self, batched: Sequence[Any], shared: Sequence[Any]) -> GradientTransformation:
        """The definition of one training, from its own values and from those of all."""
        own, common = iter(batched), iter(shared)
        return jax.tree.unflatten(
            self.treedef, [self._leaf(leaf, own, common) for leaf in self.leaves]
        )

    @staticmethod
    def _leaf(leaf: Any, own: Any, common: Any) -> Any:
        if leaf is SHARED:
            return next(common)
        if leaf is WEAK:
            return _weak(next(own))
        return next(own) if leaf is BATCHED else leaf


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
            jnp.repeat(_stack(column), seeds, axis=0)
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
    is_number = all(isinstance(one, int | float | np.generic) for one in column)
    return jnp.asarray(np.array(column)) if is_number else jnp.stack(column)


def _weak(value: Any) -> Any:
    """A number with the type of a Python number, which leaves the dtypes of arrays unchanged."""
    kind = float if jnp.issubdtype(value.dtype, jnp.floating) else int
    return jax.lax.convert_element_type(value, kind)
