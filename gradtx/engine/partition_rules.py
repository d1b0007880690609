"""One operation on the parts of arrays, as the whole arrays would have it.

Each rule receives the equation and its parts, and returns the parts of its results. An operation
without a rule runs on whole arrays: each device gathers them, and computes the same.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from gradtx.engine.layouts import (
    SPREAD,
    Entry,
    Kind,
    Layout,
    Names,
    Part,
    axis_sizes,
    cut_names,
    lay_out,
    make_whole,
    materialize,
    vary_alike,
    whole,
)
from gradtx.tree.errors import AxesError
from gradtx.tree.jaxprs import ELEMENTWISE

Parts = Sequence[Part]
Hints = Mapping[tuple[int, ...], Layout]
"""How arrays of a shape are cut, where all of that shape in a program are cut alike."""


def apply_equation(equation: Any, parts: Parts, hints: Hints) -> list[Part]:
    """The results of one operation that holds no program of its own."""
    name = equation.primitive.name
    if name in ELEMENTWISE_TOO or (name in ELEMENTWISE and name not in RULES):
        return _elementwise(equation, parts)
    if name == "iota":
        return _iota(equation, hints)
    return RULES.get(name, _on_whole)(equation, parts)


def bind(equation: Any, arrays: Sequence[Any], **params: Any) -> list[Any]:
    """Run an operation on other arrays than those it was traced for."""
    primitive = equation.primitive
    params = primitive.get_bind_params({**equation.params, **params})
    result = primitive.bind(*vary_alike([jnp.asarray(array) for array in arrays]), **params)
    return list(result) if primitive.multiple_results else [result]


def _shapes(equation: Any) -> list[tuple[int, ...]]:
    return [tuple(variable.aval.shape) for variable in equation.outvars]


def refuse_guess(equation: Any, parts: Parts) -> None:
    """Raise where an operation depends on which axis of a part is cut, and that is a guess."""
    if any(part.kind.guess for part in parts):
        raise AxesError(equation.primitive.name)


def _on_whole(equation: Any, parts: Parts) -> list[Part]:
    refuse_guess(equation, parts)
    return [whole(one) for one in bind(equation, [make_whole(part).array for part in parts])]


def common_layout(kinds: Sequence[Kind]) -> Layout:
    """The layout in which arrays of one shape meet: cut where one of them is."""
    layout: list[Entry] = []
    for entries in zip(*(kind.layout for kind in kinds), strict=True):
        taken = cut_names(layout)
        cuts = [one for one in entries if isinstance(one, tuple) and not {*one} & {*taken}]
        is_spread = all(one is SPREAD for one in entries)
        layout.append(cuts[0] if cuts else SPREAD if is_spread else None)
    return tuple(layout)


def _elementwise(equation: Any, parts: Parts) -> list[Part]:
    shape = _shapes(equation)[0]
    if not shape:
        return [whole(one) for one in bind(equation, [part.array for part in parts])]
    parts = [_broadcast_to(part, shape) if part.kind.shape else part for part in parts]
    arrays = [part for part in parts if part.kind.shape]
    layout, guess = common_layout([part.kind for part in arrays]), _meets_guess(equation, arrays)
    placed = [lay_out(part, layout) if part.kind.shape else part for part in parts]
    kind = Kind(layout, shape, guess)
    return [Part(one, kind) for one in bind(equation, [part.array for part in placed])]


def _broadcast_to(part: Part, shape: tuple[int, ...]) -> Part:
    """A part in the shape of the result, to which JAX broadcasts axes of length 1."""
    if part.kind.shape == shape:
        return part
    each = zip(part.kind.layout, part.kind.shape, shape, strict=True)
    layout = tuple(SPREAD if one == 1 and size > 1 else entry for entry, one, size in each)
    return Part(part.array, Kind(layout, shape, part.kind.guess))


def stretch(part: Part, kind: Kind) -> Part:
    """A part as an operation on every entry needs it whose result is of this kind."""
    return lay_out(_broadcast_to(part, kind.shape), kind.layout)


def _meets_guess(equation: Any, parts: Parts) -> bool:
    """Whether a part is cut by a guess; the others are then cut alike, or have no axes."""
    guesses = [part.kind for part in parts if part.kind.guess]
    for part in parts if guesses else ():
        is_alike = part.kind == guesses[0]
        if not is_alike and not all(entry is SPREAD for entry in part.kind.layout):
            refuse_guess(equation, parts)
    return bool(guesses)


def _same(equation: Any, parts: Parts) -> list[Part]:
    return list(parts)


def _barrier(equation: Any, parts: Parts) -> list[Part]:
    # Each array by itself: their types may vary over different axes.
    arrays = lax.optimization_barrier([part.array for part in parts])
    return [Part(one, part.kind) for part, one in zip(parts, arrays, strict=True)]


def _broadcast(equation: Any, parts: Parts) -> list[Part]:
    (part, *_), shape = parts, tuple(equation.params["shape"])
    axes, kind = equation.params["broadcast_dimensions"], part.kind
    layout: list[Entry] = [None if size == 1 else SPREAD for size in shape]
    local = [1] * len(shape)
    for axis, entry, size, number in zip(
        axes, kind.layout, part.array.shape, kind.shape, strict=True
    ):
        local[axis] = size
        if number == shape[axis]:
            layout[axis] = entry
    if kind.guess and any(entry is SPREAD for entry in layout):
        refuse_guess(equation, parts)
    array = lax.broadcast_in_dim(part.array, tuple(local), tuple(axes))
    return [Part(array, Kind(tuple(layout), shape, kind.guess))]


def _iota(equation: Any, hints: Hints) -> list[Part]:
    shape, axis = tuple(equation.params["shape"]), equation.params["dimension"]
    entry = hints[shape][axis] if shape in hints else None
    parts = axis_sizes(entry) if isinstance(entry, tuple) else 1
    size = shape[axis] // parts
    local = [size if one == axis else 1 for one in range(len(shape))]
    array = lax.broadcasted_iota(equation.params["dtype"], local, axis)
    if isinstance(entry, tuple):
        start = (lax.axis_index(entry) * size).astype(array.dtype)
        array, start = vary_alike([array, start])
        array = array + start
    layout = tuple(
        (entry if one == axis else SPREAD) if length > 1 else None
        for one, length in enumerate(shape)
    )
    return [Part(array, Kind(layout, shape))]


SUMS: dict[str, Callable[[Any, Names], Any]] = {
    "reduce_sum": lax.psum,
    "reduce_max": lax.pmax,
    "reduce_min": lax.pmin,
    "reduce_and": lambda array, names: lax.pmin(array.astype(jnp.int32), names).astype(bool),
    "reduce_or": lambda array, names: lax.pmax(array.astype(jnp.int32), names).astype(bool),
}
"""The sum over devices that completes the sum over an axis which they divide."""


def _reduce(equation: Any, parts: Parts) -> list[Part]:
    (part,), axes = parts, equation.params["axes"]
    if part.kind.guess and any(
        size > 1 for axis, size in enumerate(part.kind.shape) if axis not in axes
    ):
        refuse_guess(equation, parts)
    if equation.primitive.name == "reduce_sum":
        part = materialize(part)
    names = cut_names(part.kind.layout[axis] for axis in axes)
    (array,) = bind(equation, [part.array])
    if names:
        array = SUMS[equation.primitive.name](array, names)
    left = [axis for axis in range(len(part.kind.shape)) if axis not in axes]
    layout = tuple(part.kind.layout[axis] for axis in left)
    return [Part(array, Kind(layout, _shapes(equation)[0]))]


def _transpose(equation: Any, parts: Parts) -> list[Part]:
    (part,), order = parts, equation.params["permutation"]
    refuse_guess(equation, parts)
    layout = tuple(part.kind.layout[axis] for axis in order)
    return [Part(lax.transpose(part.array, order), Kind(layout, _shapes(equation)[0]))]


def _squeeze(equation: Any, parts: Parts) -> list[Part]:
    (part,), axes = parts, equation.params["dimensions"]
    entries = enumerate(part.kind.layout)
    layout = tuple(entry for axis, entry in entries if axis not in axes)
    kind = Kind(layout, _shapes(equation)[0], part.kind.guess)
    return [Part(lax.squeeze(part.array, axes), kind)]


def _reshape(equation: Any, parts: Parts) -> list[Part]:
    (part, *_), shape = parts, _shapes(equation)[0]
    if all(entry is SPREAD or size == 1 for entry, size in _axes(part)) and part.kind.shape:
        # Every entry is alike, in any shape.
        layout = tuple(None if size == 1 else SPREAD for size in shape)
        return [Part(lax.reshape(part.array, (1,) * len(shape)), Kind(layout, shape))]
    part = materialize(part)
    layout = _reshaped_layout(part.kind, shape)
    if layout is None or (part.kind.guess and shape != part.kind.shape):
        return _on_whole(equation, [part])
    local = [
        size // axis_sizes(entry) if isinstance(entry, tuple) else size
        for size, entry in zip(shape, layout, strict=True)
    ]
    return [Part(lax.reshape(part.array, local), Kind(layout, shape, part.kind.guess))]


def _axes(part: Part) -> list[tuple[Entry, int]]:
    return list(zip(part.kind.layout, part.kind.shape, strict=True))


def _reshaped_layout(kind: Kind, shape: tuple[int, ...]) -> Layout | None:
    """How an array is cut in another shape; None where a device's part is not a block of it."""
    layout: list[Entry] = [None] * len(shape)
    for olds, news in _groups(kind.shape, shape):
        cuts = [axis for axis in olds if isinstance(kind.layout[axis], tuple)]
        if not cuts:
            continue
        # The first axis of a group may be cut: its parts are blocks of consecutive entries.
        first = next((axis for axis in olds if kind.shape[axis] > 1), None)
        target = next((axis for axis in news if shape[axis] > 1), None)
        entry = kind.layout[cuts[0]]
        if cuts != [first] or target is None or not isinstance(entry, tuple):
            return None
        if shape[target] % axis_sizes(entry):
            return None
        layout[target] = entry
    return tuple(layout)


def _groups(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The axes of two shapes in the smallest groups that hold the same number of entries."""
    groups: list[tuple[list[int], list[int]]] = []
    left, right = 0, 0
    while left < len(old) or right < len(new):
        olds, news, sizes = list[int](), list[int](), [1, 1]
        while not (olds or news) or sizes[0] != sizes[1]:
            if left < len(old) and (sizes[0] <= sizes[1] or right == len(new)):
                olds.append(left)
                sizes[0] *= old[left]
                left += 1
            elif right < len(new):
                news.append(right)
                sizes[1] *= new[right]
                right += 1
            else:
                break
        groups.append((olds, news))
    return groups


def _concatenate(equation: Any, parts: Parts) -> list[Part]:
    refuse_guess(equation, parts)
    axis = equation.params["dimension"]
    # The sizes along that axis differ; along the others all are alike.
    bare = [part.kind._replace(layout=_without(part.kind.layout, axis)) for part in parts]
    layout = tuple(None if entry is SPREAD else entry for entry in common_layout(bare))
    (array,) = bind(equation, [lay_out(part, layout).array for part in parts])
    return [Part(array, Kind(layout, _shapes(equation)[0]))]


def _without(layout: Layout, axis: int) -> Layout:
    return (*layout[:axis], None, *layout[axis + 1 :])


def _slice(equation: Any, parts: Parts) -> list[Part]:
    (part,), params = parts, equation.params
    refuse_guess(equation, parts)
    part = materialize(part)
    shape = _shapes(equation)[0]
    cuts = enumerate(zip(part.kind.layout, part.kind.shape, strict=True))
    layout = tuple(entry if shape[axis] == size else None for axis, (entry, size) in cuts)
    part = lay_out(part, layout)
    limits = [
        part.array.shape[axis] if entry is not None else params["limit_indices"][axis]
        for axis, entry in enumerate(layout)
    ]
    (array,) = bind(equation, [part.array], limit_indices=tuple(limits))
    return [Part(array, Kind(layout, shape))]


def _dot(equation: Any, parts: Parts) -> list[Part]:
    """A product of arrays: where both are cut along an axis that it sums over, a sum over devices
    completes it.
    """
    refuse_guess(equation, parts)
    (contract, batch), (left, right) = equation.params["dimension_numbers"], map(materialize, parts)
    layouts = [list(left.kind.layout), list(right.kind.layout)]
    for ours, theirs in (*zip(*batch, strict=True), *zip(*contract, strict=True)):
        entry = layouts[0][ours] or layouts[1][theirs]
        taken = _names_beside(layouts[0], ours) | _names_beside(layouts[1], theirs)
        layouts[0][ours] = layouts[1][theirs] = (
            entry if not taken & {*cut_names((entry,))} else None
        )
    free = [
        [axis for axis in range(len(layouts[side])) if axis not in (*contract[side], *batch[side])]
        for side in (0, 1)
    ]
    for axis in free[1]:  # an axis of the mesh cuts one axis of the result
        if {*cut_names((layouts[1][axis],))} & {*cut_names(layouts[0])}:
            layouts[1][axis] = None
    left, right = lay_out(left, tuple(layouts[0])), lay_out(right, tuple(layouts[1]))
    (array,) = bind(equation, [left.array, right.array])
    names = cut_names(layouts[0][axis] for axis in contract[0])
    layout = tuple(layouts[0][axis] for axis in (*batch[0], *free[0]))
    layout = (*layout, *(layouts[1][axis] for axis in free[1]))
    kind = Kind(layout, _shapes(equation)[0])
    return [Part(lax.psum(array, names) if names else array, kind)]


def _names_beside(layout: Sequence[Entry], axis: int) -> set[str]:
    """The mesh axes that cut the other axes of an array."""
    return {*cut_names(entry for place, entry in enumerate(layout) if place != axis)}


ELEMENTWISE_TOO = frozenset(
    ("real", "imag", "complex", "conj", "population_count", "clz", "lgamma", "digamma", "erf_inv")
)
"""Further operations on every entry, which the tiles of a storage do not take."""
RULES: dict[str, Callable[[Any, Parts], list[Part]]] = {
    "broadcast_in_dim": _broadcast,
    "bitcast_convert_type": _elementwise,
    "concatenate": _concatenate,
    "dot_general": _dot,
    "optimization_barrier": _barrier,
    "pvary": _same,
    "reshard": _same,
    "sharding_constraint": _same,
    "reshape": _reshape,
    "slice": _slice,
    "squeeze": _squeeze,
    "transpose": _transpose,
    **dict.fromkeys(SUMS, _reduce),
}
