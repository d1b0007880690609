"""One Pallas kernel for any rule that treats every entry alike, and any codec that works by tiles.

The lifter's kernel of a leaf is traced on a tile. What depends on step and hyperparameters alone is
worked out before, since a kernel cannot do all that scalars need (a power, say); the rest is
evaluated within the kernel, operation by operation. Slots are updated in place.
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

from gradtx.engine.gate import evaluate, read
from gradtx.tree.rounding import positions


def _sign(x: jax.Array) -> jax.Array:
    return jnp.where(x > 0, jnp.ones_like(x), jnp.where(x < 0, -jnp.ones_like(x), x))


REWRITTEN = {"sign": _sign}
"""Operations that not every compiler of kernels has, in others."""


class Split(NamedTuple):
    """A program in two: `before` makes numbers from scalars, `within` is the rest."""

    before: tuple[Any, ...]
    within: tuple[Any, ...]
    crossing: tuple[Any, ...]
    """The scalars that the rest needs."""


def _is_float_scalar(variable: Any) -> bool:
    return variable.aval.shape == () and jnp.issubdtype(variable.aval.dtype, jnp.floating)


def split(jaxpr: Any, early: Sequence[Any]) -> Split:
    """Divide a program by what follows from the scalars `early` alone; integers, a seed for one,
    are cheaper made within the kernel.
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
    """The kernel of a leaf, traced on a tile: its arguments are scalars, the origin of the tile,
    and tiles.
    """

    jaxpr: Any
    consts: Mapping[Any, Any]
    parts: Split
    arrays: Sequence[Any]
    """The variables of the tiles."""
    origin: Sequence[Any]
    """The variables of its first row and column."""
    made: Any
    """What comes out, as shapes."""
    tile: tuple[int, int]


def trace_tile(
    kernel: Callable[..., Any], scalars: Any, tiles: Sequence[Any], tile: tuple[int, int]
) -> tuple[Traced, list[Any]]:
    """`kernel(scalars, origin, tiles)` in two parts, and the scalars that cross from the first to
    the second.
    """
    closed, made = jax.make_jaxpr(kernel, return_shape=True)(
        scalars, (jnp.int32(0), jnp.int32(0)), tiles
    )
    values, variables = jax.tree.leaves(scalars), closed.jaxpr.invars
    parts = split(closed.jaxpr, variables[: len(values)])
    consts = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    known = {**consts, **dict(zip(variables[: len(values)], values, strict=True))}
    evaluate(parts.before, known)
    origin, arrays = variables[len(values) : len(values) + 2], variables[len(values) + 2 :]
    return Traced(closed.jaxpr, consts, parts, arrays, origin, made, tile), [
        _word(known[variable]) for variable in parts.crossing
    ]


def pallas_run(
    function: Callable[..., Any],
    rules: Sequence[Any],
    seen: Any,
    tile: tuple[int, int],
    on_tpu: bool,
    shared: Any,
    row: Any,
    interpret: bool = False,
) -> Any:
    """The kernel of a leaf as one kernel over a grid of tiles."""
    height, width = tile = min(tile[0], seen.rows), min(tile[1], seen.columns)
    flat = jax.tree.map(seen.flat, row._replace(leaf=None))
    arrays, treedef = jax.tree.flatten(flat)
    tiles = [
        jax.ShapeDtypeStruct((height * array.shape[0] // seen.rows, width), array.dtype)
        for array in arrays
    ]
    kernel = functools.partial(_on_tile, function, rules, seen, treedef)
    traced, crossing = trace_tile(kernel, (shared, row.leaf), tiles, tile)
    outs = jax.tree.leaves(traced.made)
    shapes = [
        jax.ShapeDtypeStruct((out.shape[0] * seen.rows // height, seen.columns), out.dtype)
        for out in outs
    ]
    results = pl.pallas_call(
        functools.partial(_body, traced),
        out_shape=shapes,
        grid=(pl.cdiv(seen.rows, height), pl.cdiv(seen.columns, width)),
        in_specs=[
            *(_scalar_spec(on_tpu) for _ in crossing),
            *(pl.BlockSpec(one.shape, _index) for one in tiles),
        ],
        out_specs=[pl.BlockSpec(one.shape, _index) for one in outs],
        input_output_aliases=_aliases(flat, rules, len(crossing)),
        compiler_params=None if on_tpu else triton.CompilerParams(num_warps=4),
        interpret=interpret,
    )(*crossing, *arrays)
    update, slots = jax.tree.unflatten(jax.tree.structure(traced.made), results)
    return update.reshape(row.grad.shape), jax.tree.map(
        lambda new, old: new.reshape(old.shape), slots, row.slots
    )


def _on_tile(
    function: Callable[..., Any],
    rules: Sequence[Any],
    seen: Any,
    treedef: Any,
    scalars: Any,
    origin: Any,
    tiles: Sequence[Any],
) -> Any:
    """The kernel of the lifter on one tile, its entries numbered as in the whole leaf."""
    (shared, leaf), row = scalars, jax.tree.unflatten(treedef, tiles)
    where = positions(row.grad.shape, origin, (seen.rows, seen.columns))
    return function(rules, shared, row._replace(leaf=leaf), where)


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
    """The scalar again."""
    if like.dtype == np.uint32:
        return jax.lax.bitcast_convert_type(word, jnp.uint32)
    return word != 0 if like.dtype == np.bool_ else word


def _aliases(flat: Any, rules: Sequence[Any], offset: int) -> dict[int, int]:
    """Which arguments are updated in place: the slots, and the parameter where it is what the rules
    return.
    """
    numbers = jax.tree.unflatten(
        jax.tree.structure(flat), range(offset, offset + len(jax.tree.leaves(flat)))
    )
    found = {number: place for place, number in enumerate(jax.tree.leaves(numbers.slots), start=1)}
    return found | ({numbers.param: 0} if rules[-1].returns_params else {})


def _body(traced: Traced, *refs: Any) -> None:
    """What the kernel does on one tile."""
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
    evaluate(traced.parts.within, known, REWRITTEN)
    for ref, atom in zip(outputs, traced.jaxpr.outvars, strict=True):
        ref[...] = read(known, atom)
