r"""Master weights: parameters in bfloat16, an optimizer that works on them in float32.

ϑ = join(θ, s),   ϑ' = ϑ + u(g, ϑ)   in float32,   θ' = bf16(ϑ'),   s' = rest(ϑ', θ')
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.compose.transformation import (
    GradientTransformation,
    TransformationLike,
    as_transformation,
    definition,
)
from gradtx.compose.treewise import treewise
from gradtx.definition.errors import GradtxError
from gradtx.definition.types import PRECISE
from gradtx.engine.rules import Child
from gradtx.storage.sixteen import half_unit
from gradtx.tree.casts import as_array
from gradtx.tree.kernels import map_arrays
from gradtx.tree.maps import choose
from gradtx.tree.paths import flatten
from gradtx.tree.rounding import float_of, to_bfloat16, word_of


class MasterWeights(NamedTuple):
    """What parameters in bfloat16 lack."""

    rest: Annotated[Any, PRECISE]
    """The master itself, its low half, or a correction; None for parameters that are not bfloat16."""


class Form(NamedTuple):
    """One way to keep a master."""

    dtype: Any
    round: Callable[[jax.Array], jax.Array]
    """The parameter of a master."""
    rest: Callable[[jax.Array, jax.Array], jax.Array]
    """What is kept beside the parameter."""
    join: Callable[[jax.Array, jax.Array], jax.Array]
    """The master again, of the parameter and that."""


def _whole_rest(master: jax.Array, param: jax.Array) -> jax.Array:
    return master


def _whole_join(param: jax.Array, rest: jax.Array) -> jax.Array:
    return rest


def _ratio_rest(master: jax.Array, param: jax.Array) -> jax.Array:
    """By how much the parameter is wrong, in 127ths of half a unit in its last place."""
    near = param.astype(jnp.float32)
    half = half_unit(near)
    ratio = jnp.where(
        (half > 0) & jnp.isfinite(near), (master - near) / jnp.where(half > 0, half, 1), 0
    )
    return jnp.clip(jnp.round(ratio * 127), -127, 127).astype(jnp.int8)


def _ratio_join(param: jax.Array, rest: jax.Array) -> jax.Array:
    near = param.astype(jnp.float32)
    return jnp.where(
        jnp.isfinite(near),
        near + rest.astype(jnp.float32) * np.float32(1 / 127) * half_unit(near),
        near,
    )


def _half_up(master: jax.Array) -> jax.Array:
    """To the nearest, ties away from 0, so that what is left has 16 bits with a sign."""
    word = word_of(master)
    upper = jnp.where(jnp.isnan(master), word, word + np.uint32(0x8000)) >> np.uint32(16)
    return jax.lax.bitcast_convert_type(upper.astype(jnp.uint16), jnp.bfloat16)


def _upper_word(param: jax.Array) -> jax.Array:
    return word_of(param.astype(jnp.float32))


def _low_rest(master: jax.Array, param: jax.Array) -> jax.Array:
    """The word of the master less that of the parameter; 0 where that has no 16 bits: the parameter
    is then the master.
    """
    rest = jax.lax.bitcast_convert_type(word_of(master) - _upper_word(param), jnp.int32)
    return jnp.where((rest >= -(2**15)) & (rest < 2**15), rest, 0).astype(jnp.int16)


def _low_join(param: jax.Array, rest: jax.Array) -> jax.Array:
    """Nothing is below 0: there the word less something, of a parameter set to 0 by other hands,
    would be a nan.
    """
    rest = jnp.where(param == 0, jnp.maximum(rest, 0), rest)
    return float_of(
        _upper_word(param) + jax.lax.bitcast_convert_type(rest.astype(jnp.int32), jnp.uint32)
    )


FORMS = {
    "float32": Form(jnp.float32, to_bfloat16, _whole_rest, _whole_join),
    "bf16+8": Form(jnp.int8, to_bfloat16, _ratio_rest, _ratio_join),
    "low16": Form(jnp.int16, _half_up, _low_rest, _low_join),
}


def _is_half(leaf: Any) -> bool:
    return getattr(leaf, "dtype", None) == jnp.bfloat16


def _map_halves(
    function: Callable[..., Any], like: Sequence[Any], *columns: Sequence[Any]
) -> list[Any]:
    """`function` of what stands beside the parameters in bfloat16, None for the others."""
    places = [
        place
        for place, leaf in enumerate(like)
        if _is_half(leaf) and all(column[place] is not None for column in columns)
    ]
    found: list[Any] = [None] * len(like)
    if places:
        made = map_arrays(
            function, *([as_array(column[place]) for place in places] for column in columns)
        )
        for place, one in zip(places, made, strict=True):
            found[place] = one
    return found


def _or(new: Sequence[Any], old: Sequence[Any]) -> list[Any]:
    return [theirs if mine is None else mine for mine, theirs in zip(new, old, strict=True)]


def _wide(leaf: jax.Array) -> jax.Array:
    return leaf.astype(jnp.float32)


def _init(params: Any, *, inner: GradientTransformation, form: str) -> dict[str, MasterWeights]:
    values, treedef = flatten(params)
    concrete = [
        leaf if not isinstance(leaf, jax.ShapeDtypeStruct) else jnp.zeros(leaf.shape, leaf.dtype)
        for leaf in values
    ]
    masters = _map_halves(_wide, values, concrete)
    rest = (
        masters
        if form == "float32"
        else [
            None if one is None else jnp.zeros_like(one, dtype=FORMS[form].dtype) for one in masters
        ]
    )
    kept = MasterWeights(jax.tree.unflatten(treedef, rest))
    slots = inner.init_slots(jax.tree.unflatten(treedef, _or(masters, values)))
    if "master_weights" in slots:
        raise GradtxError("master_weights directly around another master_weights: one is enough")
    return {**slots, "master_weights": kept}


def _parted(slots: Mapping[str, Any]) -> tuple[dict[str, Any], MasterWeights]:
    return {name: kept for name, kept in slots.items() if name != "master_weights"}, slots[
        "master_weights"
    ]


def _masters(params: Any, kept: MasterWeights, form: str) -> Any:
    """The parameters with those in bfloat16 as their masters."""
    values, treedef = flatten(params)
    return jax.tree.unflatten(
        treedef,
        _or(
            _map_halves(FORMS[form].join, values, values, treedef.flatten_up_to(kept.rest)), values
        ),
    )


def _update(
    updates: Any,
    slots: Any,
    params: Any,
    step: Any,
    *,
    inner: GradientTransformation,
    form: str,
    extra: Mapping[str, Any],
    gate: Any,
) -> Any:
    old, kept = _parted(slots)
    values, treedef = flatten(params)
    masters, grads = _masters(params, kept, form), treedef.flatten_up_to(updates)
    per_matrix = jax.tree.unflatten(treedef, _or(_map_halves(_wide, values, grads), grads))
    moved, new = inner.update_slots(per_matrix, old, masters, step, extra, gate)
    columns = values, treedef.flatten_up_to(masters), treedef.flatten_up_to(moved)
    made = _map_halves(STEPS[form], values, *columns)
    ways = [None if one is None else one[0] for one in made]
    rest = jax.tree.unflatten(treedef, [None if one is None else one[1] for one in made])
    kept = choose(gate, MasterWeights(_kept_if_none(rest, kept.rest, treedef)), kept)
    return jax.tree.unflatten(treedef, _or(ways, columns[2])), {**new, "master_weights": kept}


def _kept_if_none(new: Any, old: Any, treedef: Any) -> Any:
    """A parameter that had no gradient keeps what it had."""
    return jax.tree.unflatten(treedef, _or(treedef.flatten_up_to(new), treedef.flatten_up_to(old)))


def _step(
    form: Form, param: jax.Array, master: jax.Array, update: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The way from the parameter to that of the new master, and what the parameter lacks that the
    caller will have.

    θ + way is that of the new master exactly, but where a step through 0 makes the way one bit too
    long for float32."""
    new = master + update
    way = form.round(new).astype(jnp.float32) - param.astype(jnp.float32)
    return way, form.rest(new, (param.astype(jnp.float32) + way).astype(jnp.bfloat16))


def _step_whole(param: jax.Array, master: jax.Array, update: jax.Array) -> Any:
    return _step(FORMS["float32"], param, master, update)


def _step_ratio(param: jax.Array, master: jax.Array, update: jax.Array) -> Any:
    return _step(FORMS["bf16+8"], param, master, update)


def _step_low(param: jax.Array, master: jax.Array, update: jax.Array) -> Any:
    return _step(FORMS["low16"], param, master, update)


STEPS = {"float32": _step_whole, "bf16+8": _step_ratio, "low16": _step_low}
"""`_step` by form, each at module level, so that kernels are shared."""


def _inside(slots: Any, count: Any, *, inner: GradientTransformation) -> list[Child]:
    return [Child(inner, _parted(slots)[0], count)]


def _evaluate(
    params: Any, slots: Any, count: Any, *, inner: GradientTransformation, form: str
) -> Any:
    old, kept = _parted(slots)
    found = inner.evaluate_slots(old, _masters(params, kept, form), count)
    return jax.tree.map(lambda value, param: value.astype(param.dtype), found, params)


@definition
def master_weights(inner: TransformationLike, kept: str = "float32") -> GradientTransformation:
    r"""Train parameters in bfloat16 as if they were float32.

    Beside every parameter θ in bfloat16 is kept what makes it a master ϑ in float32. `inner` sees ϑ
    and gradients in float32; then ϑ' = ϑ + u, and the parameter becomes the nearest bfloat16 of ϑ'.
    Other parameters pass through, with nothing kept.

    ========  =====  =======================================================================================================
    kept      bytes  ϑ
    ========  =====  =======================================================================================================
    float32   4      kept whole
    low16     2      exact too: θ is its upper half, rounded, and 16 bits with a sign are the rest
    bf16+8    1      θ + c/127 of half a unit in its last place, c of 8 bits: to 2⁻¹⁶ |ϑ|
    ========  =====  =======================================================================================================

    The updates of such parameters are float32 whatever their gradients are, since the difference of
    two numbers in bfloat16 may need
    that many bits: θ + u is then the new parameter exactly, or, after a step through 0, to the last
    bit that the old one had in float32. Put it outermost, or next to what leaves updates as they
    are: around `accumulate` and `dynamic_loss_scale`, which give updates the dtype of gradients,
    and in bfloat16 that is too little for what is kept to belong to the parameter. What is kept
    follows the parameter that `apply_updates` and `update_params` make. With "float32" a parameter
    that was changed by other hands goes back to its master; with the other two the master goes with
    it. `stored` around it leaves what it keeps as it is.

    When: parameters in bfloat16, whose updates are mostly smaller than half of their last bit. When
    not: no memory for it; round them stochastically, `update_params(..., rounding="stochastic")`,
    which needs none.

    Args:
      inner: the transformation.
      kept: "float32", "low16" or "bf16+8".

    Raises:
      GradtxError: another form; one directly around another.
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
    Ortiz et al. 2026, arXiv:2602.23349."""
    inner = as_transformation(inner)
    if kept not in FORMS:
        raise GradtxError(
            f"master_weights: kept = {kept!r} is none of {', '.join(map(repr, FORMS))}"
        )
    evaluate = _evaluate if inner.has_evaluation else None
    return treewise(
        _init,
        _update,
        form=kept,
        inner=inner,
        needs_params=True,
        children=_inside,
        evaluate=evaluate,
        own_clock=inner.own_clock,
    )
