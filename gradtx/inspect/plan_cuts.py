"""How a mesh cuts the arrays within a program, from the types of arrays and from operand to result.

The types say it where axes are explicit. Where a kernel leaves it to XLA, a result is taken to be
cut as its operands are, which is what XLA's partitioner tries first.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from jax.extend.core import JaxprEqn, Literal

from gradtx.tree.placement import axes_of

Axes = tuple[str, ...]
Cut = tuple[Axes, ...]
"""The mesh axes that cut each axis of an array; empty for a whole one."""
Known = dict[Any, Cut]
"""The cut of each variable of a program."""


def typed_cut(aval: Any) -> Cut:
    """How an array is cut, as its type says; empty where it does not."""
    spec = getattr(getattr(aval, "sharding", None), "spec", ())
    cut = tuple(axes_of(entry) for entry in spec)
    missing = len(getattr(aval, "shape", ())) - len(cut)
    return (*cut, *((),) * missing) if any(cut) else ()


def shape_of(atom: Any) -> tuple[int, ...]:
    """The shape of a variable; () for what is not an array."""
    return getattr(atom.aval, "shape", ())


def cut_of(atom: Any, known: Known) -> Cut:
    """How an operand is cut."""
    if isinstance(atom, Literal):
        return ()
    return typed_cut(atom.aval) or known.get(atom, ())


def parts(names: Iterable[str], mesh: Mapping[str, int]) -> int:
    """The number of parts that some axes of a mesh make."""
    return math.prod(mesh[name] for name in names)


def size_on_device(atom: Any, cut: Cut, mesh: Mapping[str, int]) -> float:
    """The entries of an array on one device."""
    names = (name for axes in cut for name in axes)
    return math.prod(shape_of(atom)) / parts(names, mesh)


def result_cut(equation: JaxprEqn, result: Any, known: Known) -> Cut:
    """How a result is cut."""
    said = typed_cut(result.aval)
    if said:
        return said
    name = equation.primitive.name
    follow = _reduced if name.startswith("reduce_") else FOLLOW.get(name, _alike)
    return follow(equation, result, known)


def _alike(equation: JaxprEqn, result: Any, known: Known) -> Cut:
    """As the operand of its shape that is cut most, or else of as many axes."""
    shape = shape_of(result)
    shapes = [(shape_of(atom), cut_of(atom, known)) for atom in equation.invars]
    same = [cut for one, cut in shapes if one == shape]
    near = same or [cut for one, cut in shapes if len(one) == len(shape)]
    return max(near, key=lambda cut: sum(map(len, cut)), default=())


def _reduced(equation: JaxprEqn, result: Any, known: Known) -> Cut:
    axes = equation.params.get("axes", ())
    cut = cut_of(equation.invars[0], known)
    return tuple(one for axis, one in enumerate(cut) if axis not in axes)


def _transposed(equation: JaxprEqn, result: Any, known: Known) -> Cut:
    cut = cut_of(equation.invars[0], known)
    return tuple(cut[axis] for axis in equation.params["permutation"]) if cut else ()


def _spread(equation: JaxprEqn, result: Any, known: Known) -> Cut:
    operand, places = equation.invars[0], equation.params["broadcast_dimensions"]
    cut = cut_of(operand, known)
    axes: list[Axes] = [()] * len(shape_of(result))
    for place, one, size in zip(places, cut, shape_of(operand), strict=True) if cut else ():
        axes[place] = one if size > 1 else ()
    return tuple(axes)


def _reshaped(equation: JaxprEqn, result: Any, known: Known) -> Cut:
    """Runs of axes that have as many entries before as after share their mesh axes."""
    cut, old = cut_of(equation.invars[0], known), shape_of(equation.invars[0])
    if not cut:
        return ()
    new: list[Axes] = [()] * len(shape_of(result))
    for before, after in _runs(old, shape_of(result)):
        names = tuple(name for axis in before for name in cut[axis])
        if names and after:
            new[max(after, key=lambda axis: shape_of(result)[axis])] = names
    return tuple(new)


def _runs(old: Sequence[int], new: Sequence[int]) -> Iterable[tuple[list[int], list[int]]]:
    """The shortest runs of axes of two shapes that have as many entries."""
    n, m = 0, 0
    while n < len(old) or m < len(new):
        before, after = [n] if n < len(old) else [], [m] if m < len(new) else []
        n, m = n + 1, m + 1
        while (a := math.prod(old[i] for i in before)) != (b := math.prod(new[i] for i in after)):
            if a < b and n < len(old):
                before.append(n)
                n += 1
            elif m < len(new):
                after.append(m)
                m += 1
            else:
                break
        yield before, after


def product_cut(equation: JaxprEqn, result: Any, known: Known) -> Cut:
    """Batch axes, then those of the left that are not summed over, then those of the right."""
    contracted, batch = equation.params["dimension_numbers"]
    cut: list[Axes] = []
    for side, atom in enumerate(equation.invars):
        own = cut_of(atom, known) or ((),) * len(shape_of(atom))
        free = [n for n in range(len(own)) if n not in (*contracted[side], *batch[side])]
        cut += [own[n] for n in (free if side else [*batch[side], *free])]
    used: set[str] = set()
    for place, axes in enumerate(cut):  # an axis of the mesh cuts an array once
        cut[place] = tuple(axis for axis in axes if axis not in used)
        used.update(axes)
    return tuple(cut)


def whole_matrices(equation: JaxprEqn, result: Any, known: Known) -> Cut:
    """The results of a decomposition: each matrix is on one device, batch axes stay cut."""
    cut = cut_of(equation.invars[0], known)
    return (*cut[:-2], (), ()) if cut else ()


FOLLOW: dict[str, Callable[[JaxprEqn, Any, Known], Cut]] = {
    "broadcast_in_dim": _spread,
    "dot_general": product_cut,
    "reshape": _reshaped,
    "transpose": _transposed,
}
