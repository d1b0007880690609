"""Run a program of whole arrays on the parts that each device holds.

A program is traced for the whole shapes and then run on parts, one equation after another, as
XLA's partitioner does for automatic axes. Sums over an axis that devices divide become sums over
devices. So a norm, a mean and a factor are those of the whole array, whatever the rule.
"""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from gradtx.engine.layouts import (
    Kind,
    Layout,
    Part,
    lay_out,
    vary,
    vary_alike,
    whole,
)
from gradtx.engine.partition_rules import Hints, apply_equation, common_layout, stretch
from gradtx.tree.arithmetic import cbrt, divide, sqrt
from gradtx.tree.errors import AxesError
from gradtx.tree.jaxprs import CALLS, inner_jaxpr
from gradtx.tree.manual_axes import varying

Calls = dict[Any, "Call"]
"""The programs of jitted functions, by program and by how their arguments are cut."""
DERIVATIVES: dict[tuple[str, ...], Callable[..., Any]] = {
    ("sqrt",): sqrt,
    ("cbrt",): cbrt,
    ("div",): divide,
}
"""Functions with derivatives of their own, by the operations that they hold."""


def run_partitioned(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function of whole arrays on trees of parts; it returns a tree of parts.

    Leaves that are no `Part` are whole on each device.
    """
    parts, treedef = jax.tree.flatten(args)
    parts = [one if isinstance(one, Part) else whole(jnp.asarray(one)) for one in parts]
    shapes = [_whole_type(part) for part in parts]
    closed, out = jax.make_jaxpr(function, return_shape=True)(*jax.tree.unflatten(treedef, shapes))
    results = run_program(closed.jaxpr, closed.consts, parts, {})
    return jax.tree.unflatten(jax.tree.structure(out), results)


def _whole_type(part: Part) -> jax.ShapeDtypeStruct:
    weak = jax.typeof(part.array).weak_type
    return jax.ShapeDtypeStruct(part.kind.shape, part.array.dtype, weak_type=weak)


def run_program(
    jaxpr: Jaxpr, consts: Sequence[Any], parts: Sequence[Part], calls: Calls
) -> list[Part]:
    """Run the equations of a program on parts."""
    known: dict[Any, Part] = dict(zip(jaxpr.constvars, map(whole, consts), strict=True))
    known |= dict(zip(jaxpr.invars, parts, strict=True))
    hints = find_hints(parts)
    for equation in jaxpr.eqns:
        args = [_read(known, atom) for atom in equation.invars]
        scope = str(equation.source_info.name_stack)
        try:
            with jax.named_scope(scope) if scope else contextlib.nullcontext():
                results = run_equation(equation, args, hints, calls)
        except AxesError as error:
            error.scope = error.scope or scope.rsplit("/", maxsplit=1)[-1]
            raise
        known |= dict(zip(equation.outvars, results, strict=True))
    return [_read(known, atom) for atom in jaxpr.outvars]


def _read(known: dict[Any, Part], atom: Any) -> Part:
    if isinstance(atom, Literal):
        return whole(jnp.asarray(atom.val, _type(atom).dtype))
    return known[atom]


def _type(atom: Any) -> Any:
    return atom.aval


def find_hints(parts: Sequence[Part]) -> Hints:
    """For every shape how arrays of it are cut, where all that are cut are cut alike."""
    layouts: dict[tuple[int, ...], set[Layout]] = {}
    for part in parts:
        if part.names and not part.kind.guess:
            layouts.setdefault(part.kind.shape, set()).add(part.kind.layout)
    return {shape: next(iter(one)) for shape, one in layouts.items() if len(one) == 1}


def run_equation(equation: Any, parts: Sequence[Part], hints: Hints, calls: Calls) -> list[Part]:
    """Run one equation on parts."""
    name = equation.primitive.name
    if name == "cond":
        return _choose(equation, parts, calls)
    if name not in CALLS:
        return apply_equation(equation, parts, hints)
    if name == "custom_jvp_call":
        inner = inner_jaxpr(equation)
        names = tuple(one.primitive.name for one in inner.eqns) if inner is not None else ()
        if names in DERIVATIVES:
            return _run_derivative(DERIVATIVES[names], inner, parts, calls)
    closed = _closed(equation)
    if name not in ("jit", "pjit"):
        return run_program(closed.jaxpr, closed.consts, parts, calls)
    kinds = tuple(part.kind for part in parts)
    key = closed, kinds
    if key not in calls:
        calls[key] = Call(closed, kinds, equation.params.get("name", "call"))
    return calls[key](*(part.array for part in parts))


def _run_derivative(
    function: Callable[..., Any], inner: Any, parts: Sequence[Part], calls: Calls
) -> list[Part]:
    """Run a root or a quotient by the function that has its derivative."""
    (result,) = run_program(inner, (), parts, calls)
    placed = [stretch(part, result.kind) if part.kind.shape else part for part in parts]
    array = function(*vary_alike([part.array for part in placed]))
    return [Part(array, result.kind)]


def _closed(equation: Any) -> ClosedJaxpr:
    """The program that a call holds, with its constants."""
    values = equation.params.values()
    held = next(one for one in values if hasattr(one, "jaxpr") or hasattr(one, "eqns"))
    return held if hasattr(held, "jaxpr") else ClosedJaxpr(held, ())


class Call:
    """A jitted function on parts: traced once for all calls whose arguments are cut alike."""

    def __init__(self, closed: ClosedJaxpr, kinds: tuple[Kind, ...], name: str):
        self.closed: ClosedJaxpr = closed
        self.kinds: tuple[Kind, ...] = kinds
        self.results: list[Kind] = []
        self.name: str = name
        self.jitted: Callable[..., list[Any]] = jax.jit(self.run)

    def run(self, *arrays: Any) -> list[Any]:
        """The function that is jitted; it leaves behind how its results are cut."""
        parts = [Part(one, kind) for one, kind in zip(arrays, self.kinds, strict=True)]
        results = run_program(self.closed.jaxpr, self.closed.consts, parts, {})
        self.results = [part.kind for part in results]
        return [part.array for part in results]

    def __call__(self, *arrays: Any) -> list[Part]:
        results = self.jitted(*arrays)
        return [Part(one, kind) for one, kind in zip(results, self.results, strict=True)]


def _choose(equation: Any, parts: Sequence[Part], calls: Calls) -> list[Part]:
    """Run one of several programs, whose results are cut alike."""
    index, *rest = parts
    branches = [
        Call(closed, tuple(part.kind for part in rest), "branch")
        for closed in equation.params["branches"]
    ]
    arrays = [part.array for part in rest]
    shapes = [jax.eval_shape(branch.run, *arrays) for branch in branches]
    kinds = [_meet(each) for each in zip(*(branch.results for branch in branches), strict=True)]
    names = [
        frozenset[str]().union(*(varying(one) for one in each), *(_cut(kind),))
        for kind, each in zip(kinds, zip(*shapes, strict=True), strict=True)
    ]
    if not varying(index.array) and not any(map(varying, arrays)):
        names = [frozenset[str]()] * len(kinds)
    functions = [functools.partial(_run_branch, branch, kinds, names) for branch in branches]
    platforms = equation.params.get("branches_platforms")
    if platforms is None:
        results = lax.switch(index.array, functions, *arrays)
    else:
        results = _by_platform(platforms, functions, arrays)
    return [Part(one, kind) for one, kind in zip(results, kinds, strict=True)]


def _cut(kind: Kind) -> frozenset[str]:
    return frozenset(name for one in kind.layout if isinstance(one, tuple) for name in one)


def _meet(kinds: Sequence[Kind]) -> Kind:
    """How a result is cut that several programs compute."""
    layout = common_layout(kinds)
    return kinds[0]._replace(layout=layout, guess=any(kind.guess for kind in kinds))


def _run_branch(
    branch: Call, kinds: Sequence[Kind], names: Sequence[frozenset[str]], *arrays: Any
) -> list[Any]:
    values = branch.run(*arrays)
    parts = [Part(one, kind) for one, kind in zip(values, branch.results, strict=True)]
    placed = [lay_out(part, kind.layout) for part, kind in zip(parts, kinds, strict=True)]
    return [vary(part.array, one) for part, one in zip(placed, names, strict=True)]


def _by_platform(
    platforms: Sequence[Any], functions: Sequence[Callable[..., Any]], arrays: Sequence[Any]
) -> list[Any]:
    """The program of the platform for which XLA compiles."""
    named = {
        platform: function
        for some, function in zip(platforms, functions, strict=True)
        for platform in some or ()
    }
    default = next(
        (function for some, function in zip(platforms, functions, strict=True) if some is None),
        None,
    )
    return lax.platform_dependent(*arrays, default=default, **named)
