"""Stacks of layers: the axes of an array that count the layers of a scanned model.

A rule that looks at a whole array, LAMB's for example, would take a stack of layers for one layer.
`LayerAxes` says how one array is layers, as `Layout` says how it is matrices.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gradtx.definition.errors import StructureError
from gradtx.definition.show import show_array
from gradtx.engine.selector import Leaves, Selector
from gradtx.tree.casts import is_inexact

Shape = tuple[int, ...]


class Stack(NamedTuple):
    """A choice of arrays that are stacks of layers, and the axis that counts the layers."""

    selector: Selector
    axis: int


class LayerAxes(NamedTuple):
    """The axes of one array that count layers."""

    shape: Shape
    """The shape of the whole array."""
    axes: tuple[int, ...]
    """Outermost first; each is an axis of what the axes before it leave."""

    @property
    def layer(self) -> Shape:
        """The shape of one layer."""
        shape = self.shape
        for axis in self.axes:
            shape = (*shape[:axis], *shape[axis + 1 :])
        return shape

    @property
    def lengths(self) -> Shape:
        """The number of layers along each axis, outermost first."""
        shape, found = self.shape, list[int]()
        for axis in self.axes:
            found.append(shape[axis])
            shape = (*shape[:axis], *shape[axis + 1 :])
        return tuple(found)

    @property
    def innermost_first(self) -> list[tuple[int, int]]:
        """Axes with their lengths, in the order that builds the whole array from one layer."""
        return list(zip(self.axes, self.lengths, strict=True))[::-1]


def layers_of(stacks: Sequence[Stack], leaves: Leaves) -> list[LayerAxes | None]:
    """For every leaf how it is layers; None: it is in no stack.

    Raises:
      SelectionError: a pattern matches no leaf.
      StructureError: a leaf has no such axis; two leaves of a stack have different lengths.
    """
    found: list[LayerAxes | None] = [None] * len(leaves.values)
    for stack in stacks:
        chosen = stack.selector(_layers(leaves, found))
        lengths: dict[int, str] = {}
        for n, (path, value, one) in enumerate(
            zip(leaves.paths, leaves.values, chosen, strict=True)
        ):
            if one and is_inexact(value):
                layers = _with_axis(found[n], stack.axis, path, value)
                lengths.setdefault(layers.lengths[-1], path)
                found[n] = layers
        _check_lengths(lengths, stack)
    return found


def _with_axis(known: LayerAxes | None, axis: int, path: str, value: Any) -> LayerAxes:
    """One more axis that counts layers, checked."""
    layers = LayerAxes(tuple(np.shape(value)), ()) if known is None else known
    ndim = len(layers.layer)
    if not ndim:
        raise StructureError(
            f"stacked: {path!r} is a scalar{' in each layer' if layers.axes else ''}, and has no "
            f"axis of layers: leave it out of the pattern"
        )
    if not -ndim <= axis < ndim:
        raise StructureError(
            f"stacked: axis = {axis} is not an axis of {path!r}, {show_array(value)}: give one in "
            f"[{-ndim}, {ndim - 1}]"
        )
    return layers._replace(axes=(*layers.axes, axis % ndim))


def _check_lengths(lengths: dict[int, str], stack: Stack) -> None:
    if len(lengths) > 1:
        (one, first), (other, second) = list(lengths.items())[:2]
        raise StructureError(
            f"stacked: {first!r} has {one} layers along axis {stack.axis}, and {second!r} has "
            f"{other}: match one stack of layers, and write stacked(stacked(tx, ...), ...) for two"
        )


def layer_leaves(stacks: Sequence[Stack], leaves: Leaves) -> Leaves:
    """The leaves as one layer of a model has them: of stacks, the shape and dtype of a layer."""
    return _layers(leaves, layers_of(stacks, leaves))


def _layers(leaves: Leaves, found: Sequence[LayerAxes | None]) -> Leaves:
    each = zip(leaves.values, found, strict=True)
    return leaves._replace(
        values=[
            value if one is None else jax.ShapeDtypeStruct(one.layer, value.dtype)
            for value, one in each
        ]
    )


class LayerSelector(NamedTuple):
    """A selector inside of stacks, which looks at one layer of each."""

    where: Any
    answer: Any
    owner: str
    groups: tuple[Any, ...]
    cure: str
    stacks: tuple[Stack, ...]

    def __call__(self, leaves: Leaves) -> Sequence[bool]:
        selector = Selector(self.where, self.answer, self.owner, self.groups, self.cure)
        return selector(layer_leaves(self.stacks, leaves))


def in_stack(stack: Stack, selector: Selector | LayerSelector) -> LayerSelector:
    """A selector inside of one stack more."""
    if isinstance(selector, LayerSelector):
        return selector._replace(stacks=(stack, *selector.stacks))
    return LayerSelector(**selector._asdict(), stacks=(stack,))
