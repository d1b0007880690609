"""The kernel of a leaf in two passes, for block-wise codes of arrays that XLA divides.

The scale of a block needs all of its new entries, and their codes need the scale. XLA would compute
the entries once and write them to memory in float32. So the first pass computes the scales alone,
and the second computes the entries again, from the codes, and encodes them. Each pass reads what is
in memory already and writes nothing else. They consist of ordinary operations: XLA divides them
among devices in every layout, with no more than an all-reduce where a block lies on two devices.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun

from gradtx.tree.jaxprs import (
    ELEMENTWISE,
    Known,
    inner_jaxpr,
    read,
    run_segment,
    split_at,
    start,
)

SCALE = "block_scale"
"""The name of the scales of blocks in a traced program."""
CHEAP = ELEMENTWISE | {"iota", "name", "pad", "reduce_max", "reshape", "slice", "squeeze"}
"""Operations that cost less to repeat than their results cost to write and read."""


def mark_scale(scale: jax.Array) -> jax.Array:
    """Mark the scales of blocks, which follow from a maximum: a first pass may compute them."""
    return checkpoint_name(scale, SCALE)


def run_in_two_passes(
    function: Callable[..., Any], rules: Sequence[Any], shared: Any, row: Any
) -> Any:
    """`function(rules, shared, row)`, the scales of blocks first, where that is cheap."""
    run = functools.partial(function, rules)
    closed, shape = jax.make_jaxpr(run, return_shape=True)(shared, row)
    args, treedef = jax.tree.leaves((shared, row)), jax.tree.structure(shape)
    marks = [one for one in closed.jaxpr.eqns if is_mark(one)]
    parts = [split_at(closed.jaxpr, mark.outvars)[0] for mark in marks]
    if not marks or not all(map(_is_cheap, parts)):
        return jax.tree.unflatten(treedef, jaxpr_as_fun(closed)(*args))
    args, scales = _fixed(args), list[Any]()
    for part in parts:
        # For TPU and CPU, XLA would write to memory the entries that two scales need.
        known = start(closed, _apart(closed.jaxpr, part, args, scales, ("cuda", "rocm")))
        scales.append(_scales(closed.jaxpr, part, known))
    known = dict(zip((mark.outvars[0] for mark in marks), scales, strict=True))
    results = _second_pass(closed, parts, known, args)
    return jax.tree.unflatten(treedef, results)


def _second_pass(
    closed: ClosedJaxpr, parts: Sequence[Sequence[JaxprEqn]], scales: Known, args: Sequence[Any]
) -> list[Any]:
    """Run the program again, with the scales that the first pass computed."""
    jaxpr = closed.jaxpr.replace(eqns=[one for one in closed.jaxpr.eqns if not is_mark(one)])
    # XLA would merge the second pass with the first, and write the entries to memory.
    args = _apart(jaxpr, [one for part in parts for one in part], args, [*scales.values()])
    results: dict[Any, Any] = {}
    for outs in _outputs(jaxpr):
        part, _ = split_at(jaxpr, outs)
        # For TPU, XLA would write to memory the entries that two results read.
        after = [one for one in results.values() if np.ndim(one)][-1:]
        known = start(closed, _apart(jaxpr, part, args, after, ("cuda", "rocm"))) | scales
        run_segment(jaxpr, part, known)
        results |= dict(zip(outs, _fixed([read(known, out) for out in outs]), strict=True))
    return [read(results, out) for out in jaxpr.outvars]


def _outputs(jaxpr: Jaxpr) -> list[list[Any]]:
    """The results that are computed together: large slots by themselves, the others at once."""
    variables: list[Any] = [one for one in jaxpr.outvars if not isinstance(one, Literal)]
    variables = list(dict.fromkeys(variables))
    size = max(one.aval.size for one in variables)
    alone = [
        one
        for one in variables[1:]
        if 4 * one.aval.size > size and _is_cheap(split_at(jaxpr, [one])[0])
    ]
    return [[one for one in variables if one not in alone], *([one] for one in alone)]


def is_mark(equation: JaxprEqn) -> bool:
    """Whether an operation is the mark of `mark_scale`."""
    return equation.primitive.name == "name" and equation.params["name"] == SCALE


def _is_cheap(equations: Sequence[JaxprEqn]) -> bool:
    """Whether operations are worth repeating."""
    return all(map(_is_cheap_operation, equations))


def _is_cheap_operation(equation: JaxprEqn) -> bool:
    inner = inner_jaxpr(equation)
    if inner is not None:
        return _is_cheap(inner.eqns)
    avals: list[Any] = [one.aval for one in equation.outvars]
    are_numbers = all(aval.shape == () for aval in avals)
    return are_numbers or equation.primitive.name in CHEAP


def _apart(
    jaxpr: Jaxpr,
    part: Sequence[JaxprEqn],
    args: Sequence[Any],
    earlier: Sequence[Any],
    merging: Sequence[str] = (),
) -> list[Any]:
    """Arguments whose arrays XLA takes for others than before, and reads after earlier results.

    Only the arrays that a pass reads; and all remain the same on the platforms of `merging`.
    """
    if not earlier:
        return list(args)
    reads = {atom for equation in part for atom in equation.invars if not isinstance(atom, Literal)}
    places = [n for n, one in enumerate(jaxpr.invars) if one in reads and np.ndim(args[n])]
    arrays = tuple(args[n] for n in places)
    same = dict.fromkeys(merging, _same)
    held = jax.lax.platform_dependent(arrays, tuple(earlier), default=_hold, **same)
    return _replaced(args, places, held)


def _fixed(args: Sequence[Any]) -> list[Any]:
    """Values around whose arrays XLA for TPU moves no reshape.

    It would move arithmetic to the other side of the reshape, and write its results to memory.
    """
    places = [n for n, one in enumerate(args) if np.ndim(one)]
    arrays = tuple(args[n] for n in places)
    fixed = jax.lax.platform_dependent(arrays, tpu=jax.lax.optimization_barrier, default=tuple)
    return _replaced(args, places, fixed)


def _replaced(values: Sequence[Any], places: Sequence[int], others: Sequence[Any]) -> list[Any]:
    """Values with others in some places."""
    new = dict(zip(places, others, strict=True))
    return [new.get(n, value) for n, value in enumerate(values)]


def _same(arrays: Any, earlier: Any) -> Any:
    return arrays


def _hold(arrays: Any, earlier: Any) -> Any:
    return jax.lax.optimization_barrier((arrays, earlier))[0]


def _scales(jaxpr: Jaxpr, part: Sequence[JaxprEqn], known: Known) -> Any:
    """Run the first pass of one slot: the scales of its blocks."""
    place = max(n for n, one in enumerate(part) if one.primitive.name == "reduce_max")
    maximum, mark = part[place], part[-1]
    run_segment(jaxpr, part[:place], known)
    by_axis = functools.partial(jnp.max, axis=maximum.params["axes"])
    by_window = functools.partial(_window_maximum, axis=maximum.params["axes"][0])
    entries = read(known, maximum.invars[0])
    known[maximum.outvars[0]] = jax.lax.platform_dependent(
        entries, cuda=by_window, rocm=by_window, default=by_axis
    )
    run_segment(jaxpr, part[place + 1 : -1], known)
    return read(known, mark.invars[0])


def _window_maximum(x: jax.Array, axis: int) -> jax.Array:
    """The maximum along an axis, which follows that of the blocks."""
    # XLA for GPU computes the entries of a window within its kernel. Before a maximum along an
    # axis it writes them to memory.
    blocks, size = x.shape[axis - 1 : axis + 1]
    shape = (*x.shape[: axis - 1], blocks * size, *x.shape[axis + 1 :])
    window = tuple(size if place == axis - 1 else 1 for place in range(len(shape)))
    least = np.asarray(np.iinfo(x.dtype).min, x.dtype)
    return jax.lax.reduce_window(x.reshape(shape), least, jax.lax.max, window, window, "VALID")
