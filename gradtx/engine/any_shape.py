"""One trace for leaves of many shapes: rules that treat every entry alike are traced once.

To trace a rule costs more than to write its program down for one more shape. So where a run of
rules has leaves of several shapes, it is traced for symbolic ones, `(a, b)`, and the program is
specialized to each. Its numbers, such as bias corrections, are computed once for all leaves.
Several leaves of one shape are traced so, too: XLA would compile the numbers of each, a fifth of
its time. A rule that looks at the size of its array gets a symbolic size; where it needs a number,
or works on whole arrays, it is traced for every shape as usual.
"""

import functools
import string
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
from jax import export
from jax.extend.core import ClosedJaxpr, JaxprEqn, jaxpr_as_fun

from gradtx.engine.kernel import LeafArgs, Shared, run_rules
from gradtx.tree.jaxprs import (
    inner_jaxpr,
    is_elementwise,
    read,
    reshaped,
    run_segment,
    split_early,
    start,
)
from gradtx.tree.kernels import kernel

if TYPE_CHECKING:
    from gradtx.engine.leaf_rule import LeafRule

Rules = "tuple[LeafRule, ...]"
DERIVATIVES = frozenset(("custom_jvp_call",))
"""The call that a symbolic program may hold: roots and quotients have their own derivatives."""


class Program:
    """The program of some rules for a symbolic shape, in two parts."""

    def __init__(self, closed: ClosedJaxpr, out: Any, symbols: tuple[Any, ...], numbers: int):
        self.closed: ClosedJaxpr = closed
        self.out: Any = out
        self.symbols: tuple[Any, ...] = symbols
        self.early: Sequence[Any] = closed.jaxpr.invars[:numbers]
        """The variables that are the same for all leaves."""
        parts = split_early(closed.jaxpr, self.early)
        self.before: list[JaxprEqn] = parts[0]
        self.within: list[JaxprEqn] = parts[1]
        self.crossing: list[Any] = parts[2]


def pattern_of(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Which axes of a shape are equal, so that a rule may compare them; None: trace it by itself.

    Sizes of 0 and 1 decide how arrays broadcast, and a mesh is part of every type.
    """
    if not shape or min(shape) < 2 or not jax.sharding.get_abstract_mesh().empty:
        return None
    return tuple(shape.index(size) for size in shape)


def specialize(
    rules: "tuple[LeafRule, ...]", shared: Shared, args: LeafArgs, numbers: dict[Program, Any]
) -> tuple[Any, list[jax.Array]] | None:
    """The kernel of the rules for one shape, and the numbers that it receives; None: there is
    none.

    `numbers` holds those that `shared` has in every program at this update; a program of many
    shapes computes them once.
    """
    leaves, treedef = jax.tree.flatten((shared, args))
    shape = args.grad.shape
    pattern = pattern_of(shape)
    if pattern is None or jax.typeof(args.grad).sharding.mesh.explicit_axes:
        return None
    avals = [
        (None if one.shape == shape else one.shape, one.dtype, one.weak_type)
        for one in map(jax.typeof, leaves)
    ]
    program = _trace(rules, treedef, pattern, tuple(avals))
    if program is None:
        return None
    if program not in numbers:
        numbers[program] = kernel(_numbers(program))((), leaves[: len(program.early)])
    return _at_shape(program, shape), numbers[program]


@functools.lru_cache(maxsize=1024)
def _trace(
    rules: "tuple[LeafRule, ...]", treedef: Any, pattern: tuple[int, ...], avals: Any
) -> Program | None:
    """Trace some rules for a symbolic shape; None where the program depends on the shape."""
    symbols = _symbols(pattern)
    leaves = [
        jax.ShapeDtypeStruct(symbols if shape is None else shape, dtype, weak_type=weak)
        for shape, dtype, weak in avals
    ]
    shared, args = jax.tree.unflatten(treedef, leaves)
    try:
        with jax.disable_jit():  # calls are inlined, so that only equations are left to reshape
            run = functools.partial(run_rules, rules)
            closed, out = jax.make_jaxpr(run, return_shape=True)(shared, args)
    except Exception:  # the rule looks at its shape, or is wrong: the usual trace will tell
        return None
    if not is_elementwise(closed.jaxpr, symbols, calls=DERIVATIVES) or not all(
        map(_is_plain, closed.jaxpr.eqns)
    ):
        return None
    if any(one.primitive.name == "dim_as_value" for one in closed.jaxpr.eqns):
        return None  # the rule computes with a size, which is symbolic here
    return Program(closed, jax.tree.structure(out), symbols, len(jax.tree.leaves(shared)))


def _is_plain(equation: Any) -> bool:
    """Whether a call is that of `sqrt`, `cbrt` or `divide`, whose derivatives name no size."""
    inner = inner_jaxpr(equation) if equation.primitive.name in DERIVATIVES else None
    return inner is None or [one.primitive.name for one in inner.eqns] in (
        ["sqrt"],
        ["cbrt"],
        ["div"],
    )


@functools.lru_cache(maxsize=64)
def _symbols(pattern: tuple[int, ...]) -> tuple[Any, ...]:
    """Symbolic sizes for the axes of a leaf, equal ones for equal axes."""
    return tuple(export.symbolic_shape(", ".join(string.ascii_lowercase[axis] for axis in pattern)))


@functools.lru_cache(maxsize=1024)
def _numbers(program: Program) -> Any:
    return functools.partial(run_numbers, program)


@functools.lru_cache(maxsize=4096)
def _at_shape(program: Program, shape: tuple[int, ...]) -> Any:
    return functools.partial(run_arrays, program, shape)


def run_numbers(program: Program, _: Any, leaves: Sequence[Any]) -> list[jax.Array]:
    """Compute the numbers that all leaves share."""
    jaxpr = program.closed.jaxpr
    others = jaxpr.invars[len(leaves) :]
    known = start(program.closed, [*leaves, *(None for _ in others)])
    run_segment(jaxpr, program.before, known)
    return [read(known, variable) for variable in program.crossing]


def run_arrays(
    program: Program, shape: tuple[int, ...], numbers: Sequence[Any], args: LeafArgs
) -> tuple[jax.Array, tuple[Any, ...]]:
    """Run the rules on the arrays of one leaf."""
    jaxpr = program.closed.jaxpr
    equations = [reshaped(one, program.symbols, shape) for one in program.within]
    inputs = [*program.crossing, *jaxpr.invars[len(program.early) :]]
    closed = ClosedJaxpr(jaxpr.replace(eqns=equations, invars=inputs), program.closed.consts)
    return jax.tree.unflatten(program.out, jaxpr_as_fun(closed)(*numbers, *jax.tree.leaves(args)))
