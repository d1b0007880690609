"""One Pallas kernel for any rule that treats every entry alike, and any codec that works by tiles.

The lifter's kernel of a leaf is traced on a tile. Operations on step and hyperparameters alone run
before the Pallas kernel, because not every operation on scalars works within it (a power, say). The
kernel evaluates the others one by one, and updates slots in place.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu, triton
from jax.extend.core import Literal

from gradtx.tree.jaxprs import read, run_each
from gradtx.tree.rounding import positions


def _sign(x: jax.Array) -> jax.Array:
    return jnp.where(x > 0, jnp.ones_like(x), jnp.where(x < 0, -jnp.ones_like(x), x))


def _unmarked(scale: jax.Array) -> jax.Array:
    return scale


REWRITTEN: Mapping[str, Callable[[jax.Array], jax.Array]] = {"name": _unmarked, "sign": _sign}
"""Replacements of operations that not every kernel compiler supports."""


class Split(NamedTuple):
    """A program in two parts: `before` works on scalars, `within` on arrays."""

    before: tuple[Any, ...]
    within: tuple[Any, ...]
    crossing: tuple[Any, ...]
    """The scalars that `within` needs."""


def _is_float_scalar(variable: Any) -> bool:
    return variable.aval.shape == () and jnp.issubdtype(variable.aval.dtype, jnp.floating)


def split(jaxpr: Any, early: Sequence[Any]) -> Split:
    """Split a program: operations on the scalars `early` alone, and the rest.

    Integers, a seed for example, are cheaper within the kernel.
    """
    scalars, before, within = set(early), [], []
    for equation in jaxpr.eqns:
        inputs = [atom for atom in equation.invars if not isinstance(atom, Literal)]
        if all(atom in scalars for atom in inputs) and all(map(_is_float_scalar, equation.outvars)):
            before.append(equation)
            scalars.update(equation.outvars)
        else:
            within.append(equation)
    used = [
        atom
        for equation in within
        for atom in equation.invars
        if not isinstance(atom, Literal) and atom in scalars
    ]
    used += [atom for atom in jaxpr.outvars if not isinstance(atom, Literal) and atom in scalars]
    return Split(tuple(before), tuple(within), tuple(dict.fromkeys(used)))


class Traced(NamedTuple):
    """The kernel of a leaf, traced on a tile; arguments: scalars, the origin of the tile, tiles."""

    jaxpr: Any
    consts: Mapping[Any, Any]
    parts: Split
    arrays: Sequence[Any]
    """The variables of the tiles."""
    origin: Sequence[Any]
    """The variables of its first row and column."""
    results: Any
    """The shapes of the results."""
    tile: tuple[int, int]


def trace_tile(
    kernel: Callable[..., Any], scalars: Any, tiles: Sequence[Any], tile: tuple[int, int]
) -> tuple[Traced, list[Any]]:
    """Trace `kernel(scalars, origin, tiles)` in two parts.

    Returns the parts, and the scalars that cross from the first to the second.
    """
    closed, results = jax.make_jaxpr(kernel, return_shape=True)(
        scalars, (jnp.int32(0), jnp.int32(0)), tiles
    )
    values, variables = jax.tree.leaves(scalars), closed.jaxpr.invars
    parts = split(closed.jaxpr, variables[: len(values)])
    consts = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    known = {**consts, **dict(zip(variables[: len(values)], values, strict=True))}
    run_each(parts.before, known, {})
    origin, arrays = variables[len(values) : len(values) + 2], variables[len(values) + 2 :]
    crossing = [_word(known[variable]) for variable in parts.crossing]
    return Traced(closed.jaxpr, consts, parts, arrays, origin, results, tile), crossing


def pallas_run(
    function: Callable[..., Any],
    rules: Sequence[Any],
    plane: Any,
    tile: tuple[int, int],
    on_tpu: bool,
    shared: Any,
    row: Any,
    interpret: bool = False,
) -> Any:
    """Run the kernel of a leaf as one kernel over a grid of tiles."""
    height, width = tile = min(tile[0], plane.rows), min(tile[1], plane.columns)
    flat = jax.tree.map(plane.flat, row._replace(leaf=None))
    arrays, treedef = jax.tree.flatten(flat)
    tiles = [
        jax.ShapeDtypeStruct((height * array.shape[0] // plane.rows, width), array.dtype)
        for array in arrays
    ]
    kernel = functools.partial(_on_tile, function, rules, plane, treedef)
    traced, crossing = trace_tile(kernel, (shared, row.leaf), tiles, tile)
    outs = jax.tree.leaves(traced.results)
    shapes = [
        jax.ShapeDtypeStruct((out.shape[0] * plane.rows // height, plane.columns), out.dtype)
        for out in outs
    ]
    results = pl.pallas_call(
        functools.partial(_body, traced),
        out_shape=shapes,
        grid=(pl.cdiv(plane.rows, height), pl.cdiv(plane.columns, width)),
        in_specs=[
            *(_scalar_spec(on_tpu) for _ in crossing),
            *(pl.BlockSpec(one.shape, _index) for one in tiles),
        ],
        out_specs=[pl.BlockSpec(one.shape, _index) for one in outs],
        input_output_aliases=_aliases(flat, rules, len(crossing)),
        compiler_params=None if on_tpu else triton.CompilerParams(num_warps=4),
        interpret=interpret,
    )(*crossing, *arrays)
    update, slots = jax.tree.unflatten(jax.tree.structure(traced.results), results)
    slots = jax.tree.map(lambda new, old: new.reshape(old.shape), slots, row.slots)
    return update.reshape(row.grad.shape), slots


def _on_tile(
    function: Callable[..., Any],
    rules: Sequence[Any],
    plane: Any,
    treedef: Any,
    scalars: Any,
    origin: Any,
    tiles: Sequence[Any],
) -> Any:
    """Run the lifter's kernel on one tile, its entries numbered as in the whole leaf."""
    (shared, leaf), row = scalars, jax.tree.unflatten(treedef, tiles)
    entries = positions(row.grad.shape, origin, (plane.rows, plane.columns))
    return function(rules, shared, row._replace(leaf=leaf), entries)


def _index(row: Any, column: Any) -> tuple[Any, Any]:
    return row, column


def _scalar_spec(on_tpu: bool) -> Any:
    if not on_tpu:
        return pl.BlockSpec((1, 1), lambda row, column: (0, 0))
    return pl.BlockSpec(memory_space=tpu.SMEM)


def _word(value: Any) -> jax.Array:
    """A scalar as an array of one 32-bit number."""
    value = jnp.asarray(value)
    if value.dtype == jnp.bool_:
        value = value.astype(jnp.int32)
    if value.dtype == jnp.uint32:
        value = jax.lax.bitcast_convert_type(value, jnp.int32)
    return value.reshape(1, 1)


def _value(word: jax.Array, like: Any) -> jax.Array:
    """The scalar of a word."""
    if like.dtype == np.uint32:
        return jax.lax.bitcast_convert_type(word, jnp.uint32)
    return word != 0 if like.dtype == np.bool_ else word


def _aliases(flat: Any, rules: Sequence[Any], offset: int) -> dict[int, int]:
    """The arguments to update in place: the slots, and the parameter if the rules return it."""
    leaves, treedef = jax.tree.flatten(flat)
    numbers = jax.tree.unflatten(treedef, range(offset, offset + len(leaves)))
    slots = enumerate(jax.tree.leaves(numbers.slots), start=1)
    aliases = {argument: result for result, argument in slots}
    return aliases | ({numbers.param: 0} if rules[-1].returns_params else {})


def _body(traced: Traced, *refs: Any) -> None:
    """The body of the kernel, on one tile."""
    scalars, rest = refs[: len(traced.parts.crossing)], refs[len(traced.parts.crossing) :]
    inputs, outputs = rest[: len(traced.arrays)], rest[len(traced.arrays) :]
    known = dict(traced.consts)
    known |= {
        variable: _value(ref[0, 0], variable.aval)
        for variable, ref in zip(traced.parts.crossing, scalars, strict=True)
    }
    known |= {
        variable: pl.program_id(axis) * traced.tile[axis]
        for axis, variable in enumerate(traced.origin)
    }
    known |= {variable: ref[...] for variable, ref in zip(traced.arrays, inputs, strict=True)}
    run_each(traced.parts.within, known, REWRITTEN)
    for ref, atom in zip(outputs, traced.jaxpr.outvars, strict=True):
        ref[...] = read(known, atom)
