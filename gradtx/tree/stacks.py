"""Stacked layers: the axes of parameters that count layers, experts, or members of an ensemble.

`scan` over layers, and `vmap` over modules, give every parameter below a module one more axis of
the same length. No single array shows it: a stack of biases (layers, n) looks like a matrix.
"""

from collections.abc import Sequence

from gradtx.tree.names import (
    CONVOLUTIONS,
    EXPERTS,
    MIXTURES,
    NORM,
    STACKS,
    has_part,
    is_numbered,
    role_by_name,
)

Parts = tuple[str, ...]
Shape = tuple[int, ...]


def stacked_axes(paths: Sequence[Parts], shapes: Sequence[Shape]) -> list[tuple[int, ...]]:
    """For every parameter the axes that count layers, by the names in paths and all shapes."""
    found: list[tuple[int, ...]] = [()] * len(paths)
    _search((), range(len(paths)), paths, shapes, found)
    return found


def without_axes(shape: Shape, axes: Sequence[int]) -> Shape:
    """A shape without some of its axes."""
    return tuple(size for axis, size in enumerate(shape) if axis not in axes)


def _search(
    module: Parts,
    below: Sequence[int],
    paths: Sequence[Parts],
    shapes: Sequence[Shape],
    found: list[tuple[int, ...]],
) -> None:
    """Note the stacks among the parameters below a module, outermost first."""
    single = [without_axes(shapes[n], found[n]) for n in below]
    axis = _stacked_axis(module, [paths[n] for n in below], single)
    if axis is not None:
        for n in below:
            free = [other for other in range(len(shapes[n])) if other not in found[n]]
            found[n] = (*found[n], free[axis])
    children: dict[str, list[int]] = {}
    for n in below:
        if len(paths[n]) > len(module) + 1:
            children.setdefault(paths[n][len(module)], []).append(n)
    for name, inside in children.items():
        _search((*module, name), inside, paths, shapes, found)


def _stacked_axis(module: Parts, paths: Sequence[Parts], shapes: Sequence[Shape]) -> int | None:
    """The axis that counts copies of a module; None: it is a single module."""
    fewest = min(map(len, shapes), default=0)
    if not fewest or max(map(len, shapes)) < 3:
        return None
    each = zip(paths, shapes, strict=True)
    vectors = [parts for parts, shape in each if len(shape) == 2 and shape[1] > 1]
    has_biases = bool(vectors) and all(role_by_name(parts) == NORM for parts in vectors)
    # A module of one layer has vectors of one axis, a stack only where its layers have scalars.
    is_named = fewest > 1 and _repeats(module, paths, bool(vectors))
    if not is_named and not has_biases:
        return None
    # MaxText and T5X scan over axis 1, which only the name of the module makes plausible.
    for axis in (0, 1) if is_named else (0,):
        if len({shape[axis] for shape in shapes}) == 1:
            # Features (D, heads, size) share their first axis too, but it is longer than others.
            return axis if has_biases or _is_short(axis, shapes) else None
    return None


def _is_short(axis: int, shapes: Sequence[Shape]) -> bool:
    """Whether no array of three axes is longest along one of them, as few are along layers."""
    arrays = [shape for shape in shapes if len(shape) > 2]
    return all(shape[axis] <= max(without_axes(shape, [axis])) for shape in arrays)


def _repeats(module: Parts, paths: Sequence[Parts], has_vectors: bool) -> bool:
    """Whether a module is named as one that repeats a layer, and does not list its copies."""
    if not module or not any(one.fullmatch(module[-1]) for one in (STACKS, EXPERTS, MIXTURES)):
        return False
    children = {parts[len(module)] for parts in paths if len(parts) > len(module)}
    copies = [child for child in children if is_numbered(child) and "layer" in child.lower()]
    copies += [child for child in children if is_numbered(child) and "block" in child.lower()]
    if len(copies) > 1 or any(child.isdigit() for child in children):
        return False
    # The kernels of a few convolutions share their first axis, the width of the window.
    return has_vectors or not any(has_part(CONVOLUTIONS, parts) for parts in paths)
