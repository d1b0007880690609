"""The arithmetic of an update on one device, counted in its program without compiling it.

Products that need parts of other devices are counted as if these were there.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn

from gradtx.inspect.plan_cuts import (
    Cut,
    Known,
    cut_of,
    parts,
    result_cut,
    shape_of,
    size_on_device,
    whole_matrices,
)
from gradtx.tree.jaxprs import CALLS, ELEMENTWISE, inner_jaxpr

DECOMPOSITIONS = {
    "cholesky": 1 / 3,
    "eigh": 9.0,
    "geqrf": 4 / 3,
    "householder_product": 4 / 3,
    "lu": 2 / 3,
    "qr": 4 / 3,
    "svd": 12.0,
    "triangular_solve": 1.0,
}
"""The factor c of the leading term c n² m for a matrix (n, m), n ≤ m, in the usual algorithm."""
ARITHMETIC = ELEMENTWISE - {
    "bitcast_convert_type",
    "broadcast_in_dim",
    "convert_element_type",
    "copy",
    "stop_gradient",
}
"""Operations that cost one FLOP an entry; the others move and cast."""
MAPPED = CALLS | {"shard_map"}
"""Operations whose program has the operands as its arguments."""


class Work(NamedTuple):
    """The work of one device in one update, at the most costly step."""

    flop: float = 0.0
    """All floating-point operations."""
    product_flop: float = 0.0
    """Those of matrix products and decompositions among them."""
    product_bytes: float = 0.0
    """The bytes that matrix products and decompositions read and write."""


def work_of(function: Callable[..., Any], mesh: Mapping[str, int], *args: Any) -> Work:
    """The work of a function on arrays whose types say how they are cut."""
    return _program(jax.make_jaxpr(function)(*args).jaxpr, None, mesh)


def _total(works: Sequence[Work], count: float = 1) -> Work:
    return Work(*(count * math.fsum(column) for column in zip(Work(), *works, strict=True)))


def _program(jaxpr: Jaxpr, cuts: Sequence[Cut] | None, mesh: Mapping[str, int]) -> Work:
    """The work of a program whose arguments are cut so; None: their types say how."""
    known: Known = {} if cuts is None else dict(zip(jaxpr.invars, cuts, strict=True))
    works: list[Work] = []
    for equation in jaxpr.eqns:
        known |= {one: result_cut(equation, one, known) for one in equation.outvars}
        works.append(_equation(equation, known, mesh))
    return _total(works)


def _equation(equation: JaxprEqn, known: Known, mesh: Mapping[str, int]) -> Work:
    name = equation.primitive.name
    if name in LOOPS:
        cuts = [cut_of(atom, known) for atom in equation.invars]
        return LOOPS[name](equation.params, cuts, mesh)
    inner = inner_jaxpr(equation) if name in MAPPED else None
    if inner is not None:  # within `shard_map`, shapes are those of one device
        cuts = [() if name == "shard_map" else cut_of(atom, known) for atom in equation.invars]
        return _program(inner, cuts, mesh)
    if name == "dot_general":
        return _product(equation, known, mesh)
    if name in DECOMPOSITIONS:
        return _decomposition(equation, known, mesh)
    return Work(flop=_elementwise(equation, known, mesh))


def _branches(params: Any, cuts: Sequence[Cut], mesh: Mapping[str, int]) -> Work:
    """The most costly branch: a refresh is in one of them."""
    works = [_program(one.jaxpr, cuts[1:], mesh) for one in params["branches"]]
    return max(works, key=lambda work: work.flop)


def _scan(params: Any, cuts: Sequence[Cut], mesh: Mapping[str, int]) -> Work:
    first = params["num_consts"] + params["num_carry"]
    rows = [*cuts[:first], *(cut[1:] for cut in cuts[first:])]
    return _total([_program(params["jaxpr"].jaxpr, rows, mesh)], params["length"])


def _while(params: Any, cuts: Sequence[Cut], mesh: Mapping[str, int]) -> Work:
    """Once: nobody knows how often."""
    return _program(params["body_jaxpr"].jaxpr, cuts[params["cond_nconsts"] :], mesh)


LOOPS: dict[str, Callable[[Any, Sequence[Cut], Mapping[str, int]], Work]] = {
    "cond": _branches,
    "scan": _scan,
    "while": _while,
}


def _elementwise(equation: JaxprEqn, known: Known, mesh: Mapping[str, int]) -> float:
    """One for each entry of a result, or of an array that is reduced."""
    name = equation.primitive.name
    if name.startswith("reduce_"):
        operand = equation.invars[0]
        return size_on_device(operand, cut_of(operand, known), mesh)
    if name not in ARITHMETIC:
        return 0.0
    result = equation.outvars[0]
    return size_on_device(result, known[result], mesh)


def _product(equation: JaxprEqn, known: Known, mesh: Mapping[str, int]) -> Work:
    """A matrix product of (n, k) and (k, m): 2 n k m."""
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, result = equation.invars[0], equation.outvars[0]
    cut, own = known[result], cut_of(left, known)
    depth = math.prod(shape_of(left)[n] for n in contracted)
    summed = {name for n in contracted if own for name in own[n]}.difference(*cut)
    flop = 2 * depth * size_on_device(result, cut, mesh) / parts(summed, mesh)
    return Work(flop, flop, _bytes(equation, known, mesh))


def _decomposition(equation: JaxprEqn, known: Known, mesh: Mapping[str, int]) -> Work:
    """A decomposition of matrices (n, m): c n² m, each on one device."""
    operand = equation.invars[0]
    cut = whole_matrices(equation, operand, known)
    size = size_on_device(operand, cut, mesh)
    factor = DECOMPOSITIONS[equation.primitive.name]
    flop = factor * min(shape_of(operand)[-2:]) * size
    return Work(flop, flop, _bytes(equation, known, mesh))


def _bytes(equation: JaxprEqn, known: Known, mesh: Mapping[str, int]) -> float:
    atoms = (*equation.invars, *equation.outvars)
    widths = (np.dtype(getattr(atom.aval, "dtype", bool)).itemsize for atom in atoms)
    sizes = (size_on_device(atom, cut_of(atom, known), mesh) for atom in atoms)
    return math.fsum(size * width for size, width in zip(sizes, widths, strict=True))
