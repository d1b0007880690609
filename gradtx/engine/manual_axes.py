"""Inside `shard_map` and `pmap`: refuse an update that would take a part for the whole array.

A device sees its part of each array. A rule on every entry does not mind. A norm, a mean or a
factor of a part is another number than that of the array, and no error of JAX says so. So the
update is traced, and its program is searched for results that mix the entries of a part without a
sum over devices.
"""

import functools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, Literal

from gradtx.definition.errors import GradtxError
from gradtx.engine.axes_rule import ANY_AXES, SCOPE, AxesRule
from gradtx.engine.layouts import axis_sizes
from gradtx.engine.partition_rules import ELEMENTWISE_TOO
from gradtx.engine.rules import all_replica_axes
from gradtx.engine.selector import leaves_of
from gradtx.tree.host_memory import fetch
from gradtx.tree.jaxprs import CALLS, ELEMENTWISE, inner_jaxpr
from gradtx.tree.manual_axes import is_checked, outer_axis_names, varying, whole_arrays

SUMS = frozenset(("psum", "psum_invariant", "pmax", "pmin", "all_gather", "all_gather_invariant"))
"""Operations whose results are equal on all devices."""
SAME = frozenset(("pvary", "reshape", "squeeze", "transpose", "copy"))
"""Operations that move entries and mix none."""
RANDOM = frozenset(("iota", "random_bits", "threefry2x32"))
"""Operations whose results are equal on all devices, and differ from entry to entry."""


class Trace(NamedTuple):
    """Where the value of a variable comes from."""

    path: str = ""
    """The array of which each device has a part; "": no part is in it."""
    rule: str = ""
    """The rule that mixed the entries of that part; "": none did."""
    is_uneven: bool = False
    """Whether its entries differ, and are equal on all devices."""


NOTHING = Trace()
UNEVEN = Trace(is_uneven=True)
ROOT = "."
"""The path of a tree that is one array."""


def check_parts(
    tx: Any,
    updates: Any,
    slots: Any,
    params: Any,
    step: Any,
    extra: Mapping[str, Any],
) -> None:
    """Raise where an update takes parts of arrays for the arrays; warn where types do not tell."""
    if outer_axis_names() or all(isinstance(bound.rule, AxesRule) for bound in tx.rules):
        return
    manual, replicas = jax.sharding.get_abstract_mesh().manual_axes, all_replica_axes(tx)
    names, checked = tuple(name for name in manual if name not in replicas), is_checked()
    if not names:
        return
    arrays = {name: one for name, one in extra.items() if _holds_arrays(one)}
    args = updates, fetch(slots), params, arrays
    if checked and not any(varying(one) - replicas for one in jax.tree.leaves(args)):
        return
    origins = [_origin(one, path, checked, replicas) for path, one in _paths(args)]
    if not any(one.path for one in origins):
        return
    mixed = [one for one in _trace(tx, args, step, extra, origins, checked) if one.rule]
    if not mixed and _depends_on_sizes(tx, args, step, extra, names, checked):
        mixed = [next(one for one in origins if one.path)._replace(rule=_builder(tx))]
    if mixed:
        _say(_builder(tx), mixed[0], names, checked)


def _builder(tx: Any) -> str:
    """The builder in a message: a wrapper by its own name, not its member's."""
    name = tx.factory.__name__
    return name if "inner" in tx.factory.dynamic and name != "wrapwise" else tx.name


def _trace(
    tx: Any, args: Any, step: Any, extra: Any, origins: Sequence[Trace], checked: bool
) -> list[Trace]:
    """Where the results of an update come from."""
    function = functools.partial(_update, tx, step, {**extra})
    try:
        closed = jax.make_jaxpr(function)(*args)
    except (TypeError, ValueError) as error:
        if not checked or ("manual axes" not in str(error) and "manual axis" not in str(error)):
            raise
        # A number that differs over devices met one that does not: types that say neither do.
        with whole_arrays(ANY_AXES):
            closed, checked = jax.make_jaxpr(function)(*_types(args)), False
    return follow(closed.jaxpr, origins, "", checked)


def _types(tree: Any) -> Any:
    """Arrays as shapes, whose types do not say over which axes they differ."""
    return jax.tree.map(lambda one: jax.ShapeDtypeStruct(jnp.shape(one), one.dtype), tree)


def _depends_on_sizes(
    tx: Any, args: Any, step: Any, extra: Any, names: Sequence[str], checked: bool
) -> bool:
    """Whether the update has another program for arrays of the whole sizes.

    Which axis is cut is unknown: the first of each array, or the last.
    """
    updates, _, params, arrays = args
    function = functools.partial(_update, tx, step, {**extra})
    with whole_arrays(ANY_AXES):
        programs = [_operations(jax.make_jaxpr(function)(*_types(args)).jaxpr)]
    for axis in (0, -1):
        grow = functools.partial(_whole_type, axis, names, checked)
        wholes = jax.tree.map(grow, (updates, params, arrays))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            slots = jax.eval_shape(tx.init_slots, wholes[0] if params is None else wholes[1])
        with whole_arrays(ANY_AXES):
            closed = jax.make_jaxpr(function)(wholes[0], slots, *wholes[1:])
        programs.append(_operations(closed.jaxpr))
    return any(one != programs[0] for one in programs)


def _whole_type(axis: int, names: Sequence[str], checked: bool, value: Any) -> Any:
    shape = [*jnp.shape(value)]
    if shape:
        shape[axis] *= axis_sizes(tuple(sorted(varying(value))) if checked else tuple(names))
    return jax.ShapeDtypeStruct(tuple(shape), value.dtype)


def _operations(jaxpr: Jaxpr) -> frozenset[Any]:
    """Every program inside of a program, as its operations and its numbers."""
    own, programs = list[Any](), frozenset[Any]()
    for equation in jaxpr.eqns:
        if SCOPE in str(equation.source_info.name_stack).split("/"):
            continue
        inner = inner_jaxpr(equation) if equation.primitive.name in CALLS else None
        if inner is not None:
            programs |= _operations(inner)
            continue
        atoms = [atom for atom in equation.invars if isinstance(atom, Literal)]
        own.append((equation.primitive.name, *(repr(atom.val) for atom in atoms)))
    return programs | {tuple(own)}


def _update(
    tx: Any, step: Any, extra: Any, updates: Any, slots: Any, params: Any, arrays: Any
) -> Any:
    return tx.update_slots(updates, slots, params, step, {**extra, **arrays})


def _holds_arrays(value: Any) -> bool:
    return all(hasattr(one, "shape") for one in jax.tree.leaves(value))


def _paths(args: Any) -> list[tuple[str, Any]]:
    """Every array with the path of its own tree."""
    pairs = [
        pair
        for tree in args
        for pair in zip(leaves_of(tree).paths, leaves_of(tree).values, strict=True)
    ]
    return [pair for pair in pairs if pair[1] is not None]


def _origin(value: Any, path: str, checked: bool, replicas: frozenset[str]) -> Trace:
    if not jnp.shape(value):
        return NOTHING
    return UNEVEN if checked and not varying(value) - replicas else Trace(path or ROOT)


def _say(name: str, trace: Trace, axes: Sequence[str], checked: bool) -> None:
    """Raise where types tell that arrays are cut; warn where they may be whole."""
    shown = ", ".join(map(repr, axes))
    rule = trace.rule if trace.rule != name else "it"
    array = "the gradient" if trace.path == ROOT else repr(trace.path)
    fault = (
        f"{rule} uses the same numbers, random ones or by position, for each device's part of "
        f"{array}"
        if trace.is_uneven
        else f"{rule} computes with each device's part of {array} as if it were the array"
    )
    cure = f"wrap it, over_axes({name}(...), axis_names={axes[0]!r})"
    whole = "axis_names=() says that each device has parameters of its own"
    if checked:
        raise GradtxError(
            f"{name}: {fault}, which the axes ({shown}) of this shard_map cut: {cure}, or update "
            f"outside of shard_map; {whole}"
        )
    warnings.warn(
        f"{name}: if the axes ({shown}) of this shard_map or pmap cut the parameters, {fault}: "
        f"{cure}; {whole}, or all of them",
        stacklevel=4,
    )


def follow(jaxpr: Jaxpr, traces: Sequence[Trace], scope: str, checked: bool) -> list[Trace]:
    """Where the results of a program come from."""
    known: dict[Any, Trace] = dict(zip(jaxpr.invars, traces, strict=True))
    known |= {one: UNEVEN for one in jaxpr.constvars if _type(one).shape}
    for equation in jaxpr.eqns:
        args = [
            NOTHING if isinstance(atom, Literal) else known.get(atom, NOTHING)
            for atom in equation.invars
        ]
        inner = "/".join(filter(None, (scope, str(equation.source_info.name_stack))))
        results = _follow_equation(equation, args, inner, checked)
        for variable, trace in zip(equation.outvars, results, strict=True):
            alike = checked and not _type(variable).manual_axis_type.varying
            known[variable] = trace._replace(path="", rule="") if alike else trace
    return [
        NOTHING if isinstance(atom, Literal) else known.get(atom, NOTHING) for atom in jaxpr.outvars
    ]


def _type(variable: Any) -> Any:
    return variable.aval


def _follow_equation(
    equation: Any, traces: Sequence[Trace], scope: str, checked: bool
) -> list[Trace]:
    name = equation.primitive.name
    if name in CALLS and (inner := inner_jaxpr(equation)) is not None:
        return follow(inner, traces, scope, checked)
    if name == "cond":
        return _follow_branches(equation, traces, scope, checked)
    if name in ("optimization_barrier", "device_put"):  # each result is one operand
        return list(traces)
    trace = NOTHING if name in SUMS else _follow_operation(equation, traces, scope)
    return [trace] * len(equation.outvars)


def _follow_operation(equation: Any, traces: Sequence[Trace], scope: str) -> Trace:
    """Where the results of one operation come from."""
    name = equation.primitive.name
    mixed = next((one for one in traces if one.rule), None)
    if mixed is not None:
        return mixed
    part = next((one for one in traces if one.path), None)
    is_uneven = name in RANDOM or any(one.is_uneven for one in traces)
    if part is None:
        return Trace(is_uneven=is_uneven and any(one.aval.shape for one in equation.outvars))
    moves = name in ELEMENTWISE or name in ELEMENTWISE_TOO or name in SAME
    if SCOPE in scope.split("/") or (moves and not is_uneven):
        return part._replace(is_uneven=False)
    return Trace(part.path, scope.rsplit("/", maxsplit=1)[-1] or "it", is_uneven and moves)


def _follow_branches(
    equation: Any, traces: Sequence[Trace], scope: str, checked: bool
) -> list[Trace]:
    """Of each result the worst that a branch does."""
    branches = [
        follow(closed.jaxpr, traces[1:], scope, checked) for closed in equation.params["branches"]
    ]
    if traces[0].rule:
        return [traces[0]] * len(equation.outvars)
    return [
        max(each, key=lambda one: (bool(one.rule), bool(one.path), one.is_uneven))
        for each in zip(*branches, strict=True)
    ]
