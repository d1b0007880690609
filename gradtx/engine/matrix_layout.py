"""Arrays as matrices: which axes are inputs, which outputs, and which only count matrices.

A kernel of shape (layers, inputs, heads, size) may be one matrix per layer, (inputs, heads · size),
or one per head, (inputs, size): its words say which. A rule on matrices sees (..., n, m), n inputs
(fan in) and m outputs (fan out), whatever the order of the array's axes."""

import dataclasses
import functools
import itertools
import math
import operator
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gradtx.definition.errors import GradtxError, StructureError
from gradtx.definition.static import Static
from gradtx.engine.layers import LayerAxes, Stack, layer_leaves, layers_of
from gradtx.engine.roles import leaf_roles
from gradtx.engine.selector import Leaves, claimed, is_function, spread

WORD = re.compile(r"(batch|in|out)(?:/([1-9][0-9]*))?")


class Layout(NamedTuple):
    """One array as matrices: how its axes are cut, in which order they go, and what shape the
    matrices have.
    """

    whole: tuple[int, ...]
    cut: tuple[int, ...]
    order: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def batch(self) -> tuple[int, ...]:
        return self.shape[:-2]

    def matrix(self, array: Any) -> Any:
        """An array, or its shape and dtype, as matrices."""
        if isinstance(array, jax.ShapeDtypeStruct):
            return (
                array
                if array.shape == self.shape
                else jax.ShapeDtypeStruct(self.shape, array.dtype)
            )
        cut = array if array.shape == self.cut else array.reshape(self.cut)
        moved = cut if self.order == tuple(range(cut.ndim)) else cut.transpose(self.order)
        return moved if moved.shape == self.shape else moved.reshape(self.shape)

    def array(self, matrix: Any) -> Any:
        """Matrices as the array that they are of."""
        moved = tuple(self.cut[axis] for axis in self.order)
        parts = matrix if matrix.shape == moved else matrix.reshape(moved)
        cut = (
            parts
            if self.order == tuple(range(parts.ndim))
            else parts.transpose(np.argsort(self.order).tolist())
        )
        return cut if cut.shape == self.whole else cut.reshape(self.whole)


@functools.lru_cache(maxsize=4096)
def layout_of(shape: tuple[int, ...], words: str | None, rows: bool = False) -> Layout:
    """The layout of an array; None: its last two axes are a matrix, and one of fewer axes is a
    single row. With `rows`, words without inputs make matrices of one row.

    Raises ValueError where the words do not fit the shape, saying how.
    """
    if words is None:
        matrix = shape if len(shape) > 1 else (1, *(shape or (1,)))
        return Layout(shape, matrix, tuple(range(len(matrix))), matrix)
    found = [WORD.fullmatch(word) for word in _spelled_out(words, len(shape))]
    if None in found:
        raise ValueError(
            "its words are batch, in, out, each perhaps with a number of parts, such as out/3, "
            "and ... for batch axes"
        )
    if len(found) != len(shape):
        raise ValueError(f"it says {len(found)} axes, one word for each")
    axes = [(match[1], int(match[2] or 1)) for match in found if match]
    return _laid_out(shape, axes, rows)


def _spelled_out(words: str, axes: int) -> list[str]:
    """One word for each axis: dots stand for as many batch axes as there are."""
    given = words.split()
    if given.count("...") != 1:
        return given
    place = given.index("...")
    return [*given[:place], *["batch"] * (axes - len(given) + 1), *given[place + 1 :]]


def _laid_out(shape: tuple[int, ...], roles: Sequence[tuple[str, int]], rows: bool) -> Layout:
    cut: list[int] = []
    axes: dict[str, list[int]] = {"batch": [], "in": [], "out": []}
    for size, (role, parts) in zip(shape, roles, strict=True):
        if size % parts:
            raise ValueError(f"an axis of {size} cannot be cut into {parts} parts")
        if parts > 1:
            axes["batch"].append(len(cut))
            cut.append(parts)
        axes[role].append(len(cut))
        cut.append(size // parts)
    if not axes["out"] or not (axes["in"] or rows):
        raise ValueError(f"it names no axis {'in' if axes['out'] else 'out'}")
    sides = [math.prod(cut[axis] for axis in axes[role]) for role in ("in", "out")]
    order = (*axes["batch"], *axes["in"], *axes["out"])
    return Layout(shape, tuple(cut), order, (*(cut[axis] for axis in axes["batch"]), *sides))


def with_layers(layout: Layout, layers: LayerAxes | None) -> Layout:
    """The layout of a stack, whose layers have a layout; its layers count matrices."""
    for axis, size in () if layers is None else layers.innermost_first:
        shape, sizes = (*layout.whole[:axis], size, *layout.whole[axis:]), layout.whole[:axis]
        before = itertools.accumulate((1, *layout.cut), operator.mul)
        place = next(n for n, product in enumerate(before) if product == math.prod(sizes))
        order = (place, *(one + (one >= place) for one in layout.order))
        cut = (*layout.cut[:place], size, *layout.cut[place:])
        layout = Layout(shape, cut, order, (size, *layout.shape))
    return layout


@dataclasses.dataclass(frozen=True)
class Matrices:
    """How a rule sees arrays as matrices, and over which devices it spreads them."""

    dimensions: Static = Static({})  # noqa: RUF009  (immutable)
    vectors: str = "refuse"
    refresh_every: int | None = None
    shard: Any = None

    def layouts(
        self, leaves: Leaves, active: Sequence[bool], owner: str, stacks: Sequence[Stack] = ()
    ) -> list[Layout | None]:
        """For every leaf that the rule acts on, how it is matrices, those of every layer."""
        if stacks:
            found = self.layouts(layer_leaves(stacks, leaves), active, owner)
            each = zip(found, layers_of(stacks, leaves), strict=True)
            return [one if one is None else with_layers(one, layers) for one, layers in each]
        dimensions, rows = self.dimensions.values.get("dimensions"), self.vectors == "rows"
        said = axes_of(dimensions, leaves, owner, rows)
        each = zip(leaves.paths, leaves.values, said, active, strict=True)
        return [
            self._layout(path, tuple(np.shape(value)), words, owner) if gate else None
            for path, value, words, gate in each
        ]

    def _layout(self, path: str, shape: tuple[int, ...], words: str | None, owner: str) -> Layout:
        if len(shape) < 2 and words is not None:
            raise StructureError(
                f"{owner}: {path!r} has shape {shape}, which is not a matrix, and dimensions say "
                f"{words!r} of it: narrow that rule's pattern"
            )
        if len(shape) < 2 and self.vectors == "refuse":
            raise StructureError(
                f"{owner}: {path!r} has shape {shape}, which is not a matrix: leave it to another "
                f"rule, with partition(...) or masked(...)"
            )
        try:
            return layout_of(shape, words, self.vectors == "rows")
        except ValueError as error:
            raise StructureError(
                f"{owner}: dimensions {words!r} do not fit {path!r} of shape {shape}: {error}"
            ) from None

    def turns(self, layouts: Sequence[Layout | None]) -> list[np.ndarray | None]:
        """For every leaf the turns of its matrices; None: the rule takes none."""
        if self.refresh_every is None:
            return [None] * len(layouts)
        return list(
            _turns(
                tuple(None if layout is None else layout.shape for layout in layouts),
                self.refresh_every,
            )
        )


def words_of(dimensions: Any, leaves: Leaves, owner: str) -> list[str | None]:
    """For every leaf the words that say its axes; None where nothing is said."""
    if dimensions is None:
        return [None] * len(leaves.values)
    if is_function(dimensions) or not _are_rules(dimensions):
        return _from_tree(dimensions, leaves, owner)
    return claimed([tuple(rule) for rule in dimensions], leaves, f"{owner}: dimensions")


def axes_of(dimensions: Any, leaves: Leaves, owner: str, rows: bool) -> list[str | None]:
    """For every leaf the words that say its axes, or else those of its role.

    Stacked vectors have no inputs; only a rule that takes vectors as `rows` can use their words.
    """
    said = words_of(dimensions, leaves, owner)
    if not names_some(dimensions):
        return said
    roles = [None if role is None else role.words for role in leaf_roles(leaves)]
    known = [words if words and (rows or "in" in words.split()) else None for words in roles]
    return [one or other for one, other in zip(said, known, strict=True)]


def names_some(dimensions: Any) -> bool:
    """Whether `dimensions` leave the other arrays to their roles, as rules do.

    A tree of axes by number speaks of every array: None marks an array that is not a matrix.
    """
    return dimensions is None or isinstance(dimensions, list | tuple)


def _are_rules(dimensions: Any) -> bool:
    pairs = isinstance(dimensions, list | tuple) and not is_dimension_numbers(dimensions)
    return pairs and all(
        isinstance(rule, list | tuple) and len(rule) == 2 and isinstance(rule[1], str)
        for rule in dimensions
    )


def is_dimension_numbers(value: Any) -> bool:
    """Whether a value says axes by number, in fields `reduction_axis` and `output_axis`, as Optax's
    Muon wants them.
    """
    return hasattr(value, "reduction_axis") and hasattr(value, "output_axis")


def _from_tree(dimensions: Any, leaves: Leaves, owner: str) -> list[str | None]:
    """Axes by number, one for each leaf, or for all below a node, or for all."""
    numbers = dimensions(leaves.tree) if is_function(dimensions) else dimensions
    try:
        said = spread(numbers, leaves, _is_answer)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise GradtxError(
            f"{owner}: dimensions = {dimensions!r} are neither rules (pattern, words) nor a tree "
            f"like the parameters with axes by number"
        ) from None
    # Axes for all arrays at once speak of the matrices among them, not of biases.
    least = 2 if is_dimension_numbers(numbers) else 0
    each = zip(leaves.paths, leaves.values, said, strict=True)
    return [
        None
        if one is None or np.ndim(value) < least
        else spelled(one, np.ndim(value), f"{owner}: dimensions of {path!r}")
        for path, value, one in each
    ]


def _is_answer(node: Any) -> bool:
    return node is None or is_dimension_numbers(node)


def spelled(numbers: Any, ndim: int, where: str) -> str:
    """Axes by number as words."""
    ins, outs = (
        np.atleast_1d(axes).tolist() for axes in (numbers.reduction_axis, numbers.output_axis)
    )
    if any(not -ndim <= axis < ndim for axis in ins + outs):
        raise StructureError(
            f"{where}: {numbers!r} names an axis that is not among its {ndim}; give None for "
            f"an array that is not a matrix"
        )
    ins, outs = ({axis % ndim for axis in axes} for axes in (ins, outs))
    if ins & outs:
        raise StructureError(
            f"{where}: {numbers!r} names axis {min(ins & outs)} twice, as input and as output"
        )
    return " ".join(
        "in" if axis in ins else "out" if axis in outs else "batch" for axis in range(ndim)
    )


@functools.lru_cache(maxsize=1024)
def _turns(shapes: tuple[tuple[int, ...] | None, ...], every: int) -> tuple[np.ndarray | None, ...]:
    """A turn in [0, every) for every matrix: the most costly first, each to the turn with the least
    work so far.
    """
    sizes = [0 if shape is None else math.prod(shape[:-2]) for shape in shapes]
    costs = [0 if shape is None else shape[-2] ** 3 + shape[-1] ** 3 for shape in shapes]
    order = sorted(
        (-cost, leaf, place)
        for leaf, (cost, size) in enumerate(zip(costs, sizes, strict=True))
        for place in range(size)
    )
    load, found = [0] * every, [np.zeros(size, np.int32) for size in sizes]
    for cost, leaf, place in order:
        turn = load.index(min(load))
        found[leaf][place] = turn
        load[turn] -= cost
    return tuple(
        None if shape is None else turns.reshape(shape[:-2])
        for shape, turns in zip(shapes, found, strict=True)
    )
