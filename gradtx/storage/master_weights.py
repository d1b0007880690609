r"""Master weights: parameters in bfloat16, and an optimizer that computes on them in float32.

ϑ = join(θ, s),   ϑ' = ϑ + u(g, ϑ)   in float32,   θ' = bf16(ϑ'),   s' = rest(ϑ', θ')
"""

import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.compose.transformation import GradientTransformation, TransformationLike, definition
from gradtx.compose.wrapwise import Member, wrapwise
from gradtx.definition.types import PRECISE, DTypeLike, Params
from gradtx.storage.sixteen import half_unit
from gradtx.tree.casts import as_array
from gradtx.tree.kernels import map_arrays
from gradtx.tree.paths import flatten
from gradtx.tree.rounding import float_of, to_bfloat16, word_of


class MasterWeights(NamedTuple):
    """The part of the masters that their parameters in bfloat16 do not hold."""

    rest: Annotated[Any, PRECISE]
    """The master itself, its low half, or a correction; None for other parameters."""


class Format(NamedTuple):
    """A format of masters in memory."""

    dtype: DTypeLike
    """The dtype of the rest."""
    round: Callable[[jax.Array], jax.Array]
    """`round(master)`: its parameter."""
    rest: Callable[[jax.Array, jax.Array], jax.Array]
    """`rest(master, param)`: the number to store beside the parameter."""
    join: Callable[[jax.Array, jax.Array], jax.Array]
    """`join(param, rest)`: the master."""


def _whole_rest(master, param):
    return master


def _whole_join(param, rest):
    return rest


def _ratio_rest(master, param):
    """The error of the parameter, in 127ths of half a unit in its last place."""
    near = param.astype(jnp.float32)
    half = half_unit(near)
    # An infinite parameter has no error, and neither `where` may divide by 0.
    usable = (half > 0) & jnp.isfinite(near)
    ratio = jnp.where(usable, (master - near) / jnp.where(half > 0, half, 1), 0)
    return jnp.clip(jnp.round(ratio * 127), -127, 127).astype(jnp.int8)


def _ratio_join(param, rest):
    near = param.astype(jnp.float32)
    error = rest.astype(jnp.float32) * np.float32(1 / 127) * half_unit(near)
    return jnp.where(jnp.isfinite(near), near + error, near)


def _half_up(master):
    """Round to nearest bfloat16, ties away from 0: the remainder then fits into signed 16 bits."""
    word = word_of(master)
    # The sum could carry the word of a nan into that of a number, so a nan is truncated.
    upper = jnp.where(jnp.isnan(master), word, word + np.uint32(0x8000)) >> np.uint32(16)
    return jax.lax.bitcast_convert_type(upper.astype(jnp.uint16), jnp.bfloat16)


def _upper_word(param):
    return word_of(param.astype(jnp.float32))


def _low_rest(master, param):
    """The word of the master minus the word of the parameter, in 16 bits."""
    rest = jax.lax.bitcast_convert_type(word_of(master) - _upper_word(param), jnp.int32)
    # A difference beyond 16 bits becomes 0: the parameter is then the master.
    return jnp.where((rest >= -(2**15)) & (rest < 2**15), rest, 0).astype(jnp.int16)


def _low_join(param, rest):
    # No word is below that of 0. If other code set the parameter to 0, a negative rest would give
    # the word of a nan.
    rest = jnp.where(param == 0, jnp.maximum(rest, 0), rest)
    offset = jax.lax.bitcast_convert_type(rest.astype(jnp.int32), jnp.uint32)
    return float_of(_upper_word(param) + offset)


FORMATS = {
    "float32": Format(jnp.float32, to_bfloat16, _whole_rest, _whole_join),
    "bf16+8": Format(jnp.int8, to_bfloat16, _ratio_rest, _ratio_join),
    "low16": Format(jnp.int16, _half_up, _low_rest, _low_join),
}


def _step(format: Format, param, master, update):
    """The way to the new parameter, and the rest of the new master beside it."""
    new = master + update
    # θ + way is the new parameter exactly. Only a step through 0 can make the way one bit too long
    # for float32, so the rest belongs to the parameter that the caller computes, θ + way.
    way = format.round(new).astype(jnp.float32) - param.astype(jnp.float32)
    return way, format.rest(new, (param.astype(jnp.float32) + way).astype(jnp.bfloat16))


STEPS: dict[str, Callable[..., tuple[jax.Array, Any]]] = {
    name: functools.partial(_step, format) for name, format in FORMATS.items()
}
"""`_step` by format. Kernels are shared by function, so each function exists once."""


def _float32(leaf):
    return leaf.astype(jnp.float32)


def _map_halves(
    function: Callable[..., Any], values: Sequence[Any], *columns: Sequence[Any]
) -> list[Any]:
    """Apply a function at the parameters in bfloat16; None at the others."""
    indices = [
        index
        for index, value in enumerate(values)
        if getattr(value, "dtype", None) == jnp.bfloat16
        and all(column[index] is not None for column in columns)
    ]
    results: list[Any] = [None] * len(values)
    if indices:
        arrays = ([as_array(column[index]) for index in indices] for column in columns)
        for index, result in zip(indices, map_arrays(function, *arrays), strict=True):
            results[index] = result
    return results


def _or(new: Sequence[Any], old: Sequence[Any]) -> list[Any]:
    return [other if one is None else one for one, other in zip(new, old, strict=True)]


def _copies(params: Params) -> list[Any]:
    """The parameters in bfloat16 as float32 arrays; None for the others."""
    values = flatten(params)[0]
    # `init` may receive shapes only.
    is_shape = [isinstance(value, jax.ShapeDtypeStruct) for value in values]
    pairs = zip(values, is_shape, strict=True)
    arrays = [jnp.zeros(one.shape, one.dtype) if shape else one for one, shape in pairs]
    return _map_halves(_float32, values, arrays)


def _first_masters(params):
    values, treedef = flatten(params)
    return jax.tree.unflatten(treedef, _or(_copies(params), values))


def _init(params, *, format: str) -> MasterWeights:
    rest, dtype = _copies(params), FORMATS[format].dtype
    if format != "float32":
        rest = [None if one is None else jnp.zeros_like(one, dtype=dtype) for one in rest]
    return MasterWeights(jax.tree.unflatten(flatten(params)[1], rest))


def _masters(params: Params, own: MasterWeights, format: str) -> Any:
    """The parameters, those in bfloat16 replaced by their masters."""
    values, treedef = flatten(params)
    rest = treedef.flatten_up_to(own.rest)
    masters = _map_halves(FORMATS[format].join, values, values, rest)
    return jax.tree.unflatten(treedef, _or(masters, values))


def _master_weights(updates, own: MasterWeights, params, step, *, inner: Member, format: str):
    values, treedef = flatten(params)
    masters, grads = _masters(params, own, format), treedef.flatten_up_to(updates)
    grads = jax.tree.unflatten(treedef, _or(_map_halves(_float32, values, grads), grads))
    updates, inner = inner.update(grads, masters)
    columns = values, treedef.flatten_up_to(masters), treedef.flatten_up_to(updates)
    pairs = _map_halves(STEPS[format], values, *columns)
    ways = [None if pair is None else pair[0] for pair in pairs]
    rest = [None if pair is None else pair[1] for pair in pairs]
    # A parameter without a gradient keeps its rest.
    rest = _or(rest, treedef.flatten_up_to(own.rest))
    updates = jax.tree.unflatten(treedef, _or(ways, columns[2]))
    return updates, inner, MasterWeights(jax.tree.unflatten(treedef, rest))


def _evaluate(params, own: MasterWeights, *, inner: Member, format: str):
    evaluated = inner.evaluate(_masters(params, own, format))
    return jax.tree.map(lambda value, param: value.astype(param.dtype), evaluated, params)


@definition
def master_weights(
    inner: TransformationLike, format: Literal["float32", "low16", "bf16+8"] = "float32"
) -> GradientTransformation:
    r"""Mixed precision training with float32 master weights.

    The state holds, beside every parameter θ in bfloat16, the bits that θ lacks of its master ϑ in
    float32. `inner` receives ϑ and gradients in float32. Then ϑ' = ϑ + u, and the parameter becomes
    the nearest bfloat16 of ϑ'. Other parameters pass through, and have no master.

    ========  =====  ==============================================================================
    format    bytes  ϑ
    ========  =====  ==============================================================================
    float32   4      stored whole
    low16     2      exact too: θ is its upper half, rounded, and a signed 16-bit number the rest
    bf16+8    1      θ + c/127 of half a unit in its last place, c of 8 bits: to 2⁻¹⁶ |ϑ|
    ========  =====  ==============================================================================

    The updates of such parameters are float32 whatever their gradients are, because the difference
    of two bfloat16 numbers may need that many bits. θ + u is then the new parameter exactly. Only
    after a step through 0 it may differ in the last bit that the old one had in float32.

    Put it outermost, or next to wrappers that leave the dtype of updates unchanged. `accumulate`
    and `dynamic_loss_scale` give updates the dtype of the gradients; in bfloat16 these updates
    would be too coarse for the parameter to match its stored rest.

    The rest belongs to the parameter that `apply_updates` and `update_params` compute. If other
    code changes a parameter, it returns to its master with "float32"; with the other two formats
    the master follows it. `stored` around this wrapper does not encode the rest.

    When: parameters in bfloat16, whose updates are mostly smaller than half of their last bit. When
    not: no memory is left; use stochastic rounding, `update_params(..., rounding="stochastic")`,
    which needs none.

    Args:
      inner: the transformation.
      format: "float32", "low16" or "bf16+8".

    Raises:
      HyperparamError: another format.
      GradtxError: a `master_weights` directly around another.
      MissingParamsError: `update` is called without parameters.

    State: 4, 2 or 1 bytes per parameter in bfloat16 (2 bytes are the parameter itself), and that of
    `inner`.

    >>> import gradtx, jax.numpy as jnp
    >>> w, g = jnp.ones(1, jnp.bfloat16), jnp.ones(1, jnp.bfloat16)
    >>> for tx in (gradtx.sgd(1e-3), gradtx.master_weights(gradtx.sgd(1e-3), "low16")):
    ...     params, state = w, tx.init(w)
    ...     for _ in range(20):  # each step a quarter of the last bit of 1
    ...         params, state = gradtx.update_params(tx, g, state, params)
    ...     print(params.tolist())
    [1.0]
    [0.98046875]

    See also: `stored`, `apply_updates`.

    Micikevicius et al. 2018, arXiv:1710.03740, section 3.1; low halves and corrections: Gonzalez
    Ortiz et al. 2026, arXiv:2602.23349.
    """
    return wrapwise(
        inner,
        _init,
        _master_weights,
        member_params=_first_masters,
        evaluate=_evaluate,
        needs_params=True,
    )
