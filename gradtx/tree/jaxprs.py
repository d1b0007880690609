"""JAX programs as data: the one reader of jaxprs.

A rule is traced to a program when something must happen between its equations: a gate that holds
slots still, a storage that rounds them, tiles of one kernel, one trace for arrays of many shapes.
Equations run in segments by `jaxpr_as_fun`, which keeps the source line and the scope of each.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun

Known = dict[Any, Any]
"""The value of every variable of a program that has been computed."""

ELEMENTWISE = frozenset(
    {
        *("abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2"),
        *("atanh", "bitcast_convert_type", "broadcast_in_dim", "cbrt", "ceil", "clamp"),
        *("convert_element_type", "copy", "cos", "cosh", "div", "eq", "erf", "erfc", "erf_inv"),
        *("exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow", "is_finite", "le", "log"),
        *("log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg", "nextafter", "not", "or"),
        *("pow", "reduce_precision", "rem", "round", "rsqrt", "select_n", "shift_left"),
        *("shift_right_arithmetic", "shift_right_logical", "sign", "sin", "sinh", "sqrt"),
        *("square", "stop_gradient", "sub", "tan", "tanh", "xor"),
    }
)
"""Operations that treat every entry alike; a program that holds another runs untiled."""
CALLS = frozenset(
    ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "core_call", "remat")
)
"""Operations that hold a program of their own."""


def read(known: Mapping[Any, Any], atom: Any) -> Any:
    """The value of a variable, or of a literal."""
    return atom.val if isinstance(atom, Literal) else known[atom]


def start(closed: ClosedJaxpr, args: Iterable[Any]) -> Known:
    """The variables whose values are known before the first equation."""
    names = [*closed.jaxpr.constvars, *closed.jaxpr.invars]
    return dict(zip(names, [*closed.consts, *args], strict=True))


def run_segment(jaxpr: Jaxpr, equations: Sequence[JaxprEqn], known: Known) -> None:
    """Run some equations of a program, and add what they compute to `known`."""
    outputs = [one for equation in equations for one in equation.outvars if _is_used(one)]
    atoms = [atom for equation in equations for atom in equation.invars]
    inputs = list(dict.fromkeys(a for a in atoms if not isinstance(a, Literal) and a in known))
    segment = jaxpr.replace(eqns=[*equations], invars=inputs, outvars=outputs, constvars=[])
    values = jaxpr_as_fun(ClosedJaxpr(segment, ()))(*(known[one] for one in inputs))
    known |= dict(zip(outputs, values, strict=True))


def _is_used(variable: Any) -> bool:
    """Whether anything may read a variable; JAX writes the others as `_`."""
    return type(variable).__name__ != "DropVar"


def split_at(jaxpr: Jaxpr, wanted: Iterable[Any]) -> tuple[list[JaxprEqn], list[JaxprEqn]]:
    """The equations that some variables depend on, and all others, both in order."""
    needed = {variable for variable in wanted if not isinstance(variable, Literal)}
    before, after = [], []
    for equation in reversed(jaxpr.eqns):
        if needed.intersection(equation.outvars):
            needed.update(atom for atom in equation.invars if not isinstance(atom, Literal))
            before.append(equation)
        else:
            after.append(equation)
    return before[::-1], after[::-1]


def settle_slots(
    update: Callable[..., Any],
    settle: Callable[[Any], tuple[Any, Any]],
    grad: Any,
    slots: Any,
    *args: Any,
) -> tuple[Any, Any]:
    """Run `update(grad, slots, *args)` so that what follows from its new slots sees settled ones.

    `settle(new)` returns the slots to keep and, field by field, those to see; None: as they are.
    """
    closed, shape = jax.make_jaxpr(update, return_shape=True)(grad, slots, *args)
    first, outs = len(jax.tree.leaves(shape[0])), closed.jaxpr.outvars
    before, after = split_at(closed.jaxpr, outs[first:])
    known = start(closed, jax.tree.leaves((grad, slots, *args)))
    run_segment(closed.jaxpr, before, known)
    new = [read(known, atom) for atom in outs[first:]]
    kept, visible = settle(jax.tree.unflatten(jax.tree.structure(shape[1]), new))
    computed = {variable for equation in before for variable in equation.outvars}
    for variable, value in zip(outs[first:], _aligned(visible, shape[1]), strict=True):
        # A slot that was handed on, or that is two slots, has no value of its own to replace.
        once = not isinstance(variable, Literal) and outs[first:].count(variable) == 1
        if once and value is not None and variable in computed:
            known[variable] = value
    run_segment(closed.jaxpr, after, known)
    update_leaves = [read(known, atom) for atom in outs[:first]]
    return jax.tree.unflatten(jax.tree.structure(shape[0]), update_leaves), kept


def _aligned(visible: Any, like: Any) -> list[Any]:
    """The value that later equations see, for every array of the slots."""
    return [value for value, one in zip(visible, like, strict=True) if one is not None]


def run_each(
    equations: Iterable[JaxprEqn], known: Known, rewritten: Mapping[str, Callable[..., Any]]
) -> None:
    """Run equations one by one; `rewritten` has functions in the place of operations, by name."""
    for equation in equations:
        args = [read(known, atom) for atom in equation.invars]
        other, bind = rewritten.get(equation.primitive.name), equation.primitive.bind
        params = equation.primitive.get_bind_params(equation.params)
        result = other(*args) if other else bind(*args, **params)
        values = result if equation.primitive.multiple_results else [result]
        known |= dict(zip(equation.outvars, values, strict=True))


def is_elementwise(jaxpr: Jaxpr, shape: tuple[Any, ...], calls: frozenset[str] = CALLS) -> bool:
    """Whether a program treats every entry of arrays of one shape alike; it may hold `calls`."""
    return all(_is_alike(equation, shape, calls) for equation in jaxpr.eqns)


def _is_alike(equation: JaxprEqn, shape: tuple[Any, ...], calls: frozenset[str]) -> bool:
    atoms = (*equation.invars, *equation.outvars)
    shapes = [getattr(getattr(atom, "aval", None), "shape", ()) for atom in atoms]
    if any(one not in ((), shape) for one in shapes):
        return False
    if equation.primitive.name in calls:
        inner = inner_jaxpr(equation)
        return inner is not None and is_elementwise(inner, shape, calls)
    return equation.primitive.name in ELEMENTWISE or all(one == () for one in shapes)


def inner_jaxpr(equation: JaxprEqn) -> Jaxpr | None:
    """The program that a call holds."""
    values = equation.params.values()
    inner = next((one for one in values if hasattr(one, "jaxpr") or hasattr(one, "eqns")), None)
    return getattr(inner, "jaxpr", inner)


def reshaped(equation: JaxprEqn, old: tuple[Any, ...], new: tuple[int, ...]) -> JaxprEqn:
    """An elementwise operation, traced for arrays of one shape, for arrays of another."""
    if equation.params.get("shape") != old:
        return equation
    return equation.replace(params={**equation.params, "shape": new})


def split_early(
    jaxpr: Jaxpr, early: Sequence[Any]
) -> tuple[list[JaxprEqn], list[JaxprEqn], list[Any]]:
    """Divide a program: what follows from some variables alone, the rest, and what crosses over."""
    known, before, within = set(early), [], []
    for equation in jaxpr.eqns:
        inputs = [atom for atom in equation.invars if not isinstance(atom, Literal)]
        # An array of symbolic size, such as a number broadcast to a leaf, has a size only within.
        sizes = [n for one in equation.outvars for n in getattr(one.aval, "shape", ())]
        is_sized = all(isinstance(size, int) for size in sizes)
        if is_sized and all(atom in known for atom in inputs):
            before.append(equation)
            known.update(equation.outvars)
        else:
            within.append(equation)
    atoms = [atom for equation in within for atom in equation.invars] + list(jaxpr.outvars)
    crossing = [one for one in atoms if not isinstance(one, Literal) and one in known]
    return before, within, list(dict.fromkeys(crossing))
