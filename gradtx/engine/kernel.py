"""The kernels: everything in this file is traced by JAX, and nothing outside of it is.

A kernel receives the arrays of one leaf (`LeafArgs`) and the values that all leaves share: the
step, the gate, and the hyperparameters. It brings them into compute precision, runs the rules,
checks what they return, and casts back. Leaves of equal shapes share one trace.
"""

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.definition.errors import GradtxError
from gradtx.definition.types import DTypeLike, Slots
from gradtx.engine.checks import describe_result, describe_value, explain
from gradtx.engine.gate import gated_update
from gradtx.engine.layer_calls import call_evaluate, evaluate_layers, measure_layers
from gradtx.engine.multipliers import multiply
from gradtx.engine.rules import Function, select_kwargs
from gradtx.engine.storage import Storage, store_slots
from gradtx.tree.casts import ALIKE, cast_inexact, compute_dtype, mixed_promotion, real_dtype
from gradtx.tree.jaxprs import settle_slots
from gradtx.tree.keys import leaf_key
from gradtx.tree.maps import choose
from gradtx.tree.placement import run_auto
from gradtx.tree.rounding import OF_PARAMS, Noise, noise, order_after, rounded_to

if TYPE_CHECKING:
    from gradtx.engine.leaf_rule import LeafRule


class LeafArgs(NamedTuple):
    """The arrays of one leaf that its kernel reads."""

    grad: jax.Array
    slots: tuple[Any, ...]
    """The slots of every rule, as the state holds them."""
    param: jax.Array | None
    """None where no rule reads it."""
    leaf: np.uint32 | None
    """A hash of the leaf's path, where a rule draws random numbers."""
    input_grad: jax.Array | None
    """The gradient before the first rule, where a rule reads it."""
    offsets: tuple[Any, ...]
    """For every rule on matrices, the step at which each matrix is refreshed."""


class Shared(NamedTuple):
    """What the kernels of all leaves receive alike."""

    step: Any
    gate: Any
    kwargs: tuple[dict[str, Any], ...]
    """For every rule, its hyperparameters and tree statistics by name."""


def run_rules(
    rules: "tuple[LeafRule, ...]", shared: Shared, args: LeafArgs, position: Any = None
) -> tuple[jax.Array, tuple[Any, ...]]:
    """Run every rule on one leaf: its update, and the slots of each rule.

    `position` says where the entries of a tile are in the leaf; None: this is the whole leaf.
    """
    if position is None and (mesh := jax.typeof(args.grad).sharding.mesh).explicit_axes:
        return _run_auto(run_rules, mesh, rules, shared, args)
    update = args.grad.astype(compute_dtype(args.grad.dtype))
    draws = None if args.leaf is None else noise(shared.step, args.leaf)._replace(position=position)
    new_slots: list[Any] = []
    for number, rule in enumerate(rules):
        if rule.returns_params:  # it must see the update as the caller would: rounded
            update = update.astype(args.grad.dtype).astype(update.dtype)
        update, slots = run_rule(rule, number, update, draws, shared, args)
        new_slots.append(slots)
    if not rules[-1].returns_params or args.param is None:
        return update.astype(args.grad.dtype), tuple(new_slots)
    is_stochastic = draws is not None and rules[-1].asks_for("noise")
    param = _new_param(update, args.param.dtype, draws if is_stochastic else None)
    if position is not None:
        return param, tuple(new_slots)
    return param, jax.tree.map(functools.partial(_write_after, param), tuple(new_slots))


def run_stored(
    rules: "tuple[LeafRule, ...]", shared: Shared, args: LeafArgs
) -> tuple[jax.Array, tuple[Any, ...]]:
    """`run_rules` where slots are in a storage, which may run the kernel tile by tile."""
    if (mesh := jax.typeof(args.grad).sharding.mesh).explicit_axes:
        return _run_auto(run_stored, mesh, rules, shared, args)
    for rule, slots in zip(rules, args.slots, strict=True):
        if rule.storage is not None and slots is not None:
            return rule.storage.run(run_rules, rules, shared, args)
    return run_rules(rules, shared, args)


def _run_auto(
    run: Function, mesh: Any, rules: "tuple[LeafRule, ...]", shared: Shared, args: LeafArgs
) -> tuple[jax.Array, tuple[Any, ...]]:
    """Run the kernel of a leaf on an explicit mesh: a rule need not say how its results are cut."""
    like = args.param if rules[-1].returns_params and args.param is not None else args.grad
    return run_auto(functools.partial(run, rules), mesh, (like, args.slots), shared, args)


def run_rule(
    rule: "LeafRule", number: int, update: jax.Array, draws: Any, shared: Shared, args: LeafArgs
) -> tuple[jax.Array, Any]:
    """Run one rule in compute precision, under its name; its slots come back as the state has
    them.
    """
    dtype, stored = update.dtype, args.slots[number]
    values = {**shared.kwargs[number], "noise": draws}
    kwargs = array_kwargs(rule, rule.update_array, values, shared.step, args)
    call = rule.bind(kwargs, args.offsets[number] if args.offsets else None)
    param = None if args.param is None else cast_inexact(args.param, dtype)
    step = shared.step.astype(real_dtype(dtype))
    with jax.named_scope(rule.name), ALIKE if dtype.kind != "c" else mixed_promotion():
        if stored is None:
            return call(update, None, param, step)[0], None
        slots = decode_slots(rule, stored, args.grad.shape, dtype)
        if rule.storage is None:
            gate = shared.gate
            run = call if gate is None else functools.partial(gated_update, gate, call)
            update, new = run(update, slots, param, step)
            return update, cast_slots(new, stored)
        encode = functools.partial(_encode, rule.storage, stored, slots, draws, number, shared.gate)
        return settle_slots(call, encode, update, slots, param, step)


def array_kwargs(
    rule: "LeafRule", function: Function, values: Mapping[str, Any], step: Any, args: LeafArgs
) -> dict[str, Any]:
    """The values that a function asks for by name, as arrays in compute precision."""
    real, kwargs = real_dtype(args.grad.dtype), select_kwargs(function, values)
    for name, value in kwargs.items():
        if name == "key":
            kwargs[name] = leaf_key(value, step, args.leaf)
        elif type(value) is tuple:  # the numbers of a momentum kernel
            kwargs[name] = tuple(jnp.asarray(one, real) for one in value)
        elif name != "noise":
            kwargs[name] = jnp.asarray(value, real)
    if rule.factors:
        multiply(kwargs, rule.factors)
    if args.input_grad is not None:
        dtype = compute_dtype(args.grad.dtype)
        kwargs |= select_kwargs(function, {"input_grad": args.input_grad.astype(dtype)})
    return kwargs


def decode_slots(rule: "LeafRule", stored: Slots, shape: tuple[int, ...], dtype: DTypeLike) -> Any:
    """The slots of a leaf as its rule knows them, in compute precision."""
    slots = stored if rule.storage is None else rule.storage.decode(stored, shape)
    return type(slots)(*(None if slot is None else cast_inexact(slot, dtype) for slot in slots))


def cast_slots(new: Any, old: Any) -> Any:
    """New slots in the dtypes of the old."""
    return type(old)(
        *(
            None if theirs is None else jnp.asarray(mine).astype(theirs.dtype)
            for mine, theirs in zip(new, old, strict=True)
        )
    )


def _encode(
    storage: Storage, stored: Slots, slots: Slots, draws: Any, number: int, gate: Any, new: Any
) -> tuple[Any, Any]:
    """Encode the new slots of a stored rule."""
    return store_slots(storage, stored, slots, draws, number, gate, cast_slots(new, slots))


def _new_param(update: jax.Array, dtype: jax.typing.DTypeLike, draws: Noise | None) -> jax.Array:
    """The new parameter in its own dtype, in the place of the update."""
    bits = None if draws is None else draws.sixteen(update.shape, OF_PARAMS)
    return rounded_to(update, dtype, bits)


def _write_after(param: jax.Array, slot: jax.Array) -> jax.Array:
    """A slot of 16 bits, written after the parameter."""
    # XLA:CPU computes the new parameter from the old slot, and copies that if it is overwritten
    # first.
    is_half = slot.dtype in (jnp.bfloat16, jnp.float16)
    return order_after(slot, param) if is_half and slot.shape == param.shape and slot.size else slot


def measure_array(rule: "LeafRule", measure: Function, shared: Any, args: LeafArgs) -> Any:
    """The scalars that a rule measures of one leaf, before it runs on any."""
    if (mesh := jax.typeof(args.grad).sharding.mesh).explicit_axes:
        run = functools.partial(measure_array, rule, measure)
        return run_auto(run, mesh, 0, shared, args)
    step, values = shared
    dtype, (stored,) = compute_dtype(args.grad.dtype), args.slots
    kwargs = array_kwargs(rule, measure, values, step, args)
    slots = None if stored is None else decode_slots(rule, stored, args.grad.shape, dtype)
    param = None if args.param is None else cast_inexact(args.param, dtype)
    kwargs |= select_kwargs(measure, rule.options.values)
    own = slots if rule.form is None or rule.layers else rule.form.to_rule(slots)
    call = functools.partial(measure_layers, rule, measure) if rule.layers else measure
    try:
        with jax.named_scope(rule.name), ALIKE if dtype.kind != "c" else mixed_promotion():
            grad, now = args.grad.astype(dtype), step.astype(real_dtype(dtype))
            result = call(grad, own, param, now, **kwargs)
    except Exception as error:
        explain(error, rule, measure, param)
        raise
    if not hasattr(result, "_fields"):
        raise GradtxError(
            f"{rule.name}: {measure.__name__} returned {describe_value(result)}: return a "
            f"NamedTuple of scalars"
        )
    return result


def conclude_tree(
    rule: "LeafRule", conclude: Function, dtype: DTypeLike, shared: Any, given: Any
) -> tuple[dict[str, Any], Any]:
    """The statistics that follow from all measures, in the widest precision of any leaf."""
    (step, gate, values), (measures, tree_slots) = shared, given
    cast = functools.partial(cast_inexact, dtype=dtype)
    measures, values = jax.tree.map(cast, (measures, values))
    options = select_kwargs(conclude, rule.options.values)
    try:
        with jax.named_scope(rule.name):
            result = conclude(measures, tree_slots, step.astype(dtype), **values, **options)
    except Exception as error:
        explain(error, rule, conclude, step)
        raise
    if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[0], dict):
        raise GradtxError(
            f"{rule.name}: {conclude.__name__} returned {describe_result(result)}: return a "
            f"pair, (statistics by name, tree slots or None)"
        )
    stats, new = result
    new = None if tree_slots is None else cast_slots(new, tree_slots)
    return stats, choose(gate, new, tree_slots)


def evaluate_array(
    rule: "LeafRule", evaluate: Function, values: Mapping[str, Any], given: tuple[jax.Array, Any]
) -> jax.Array:
    """The array to evaluate in the place of a parameter, computed in float32 at least."""
    param, stored = given
    if (mesh := jax.typeof(param).sharding.mesh).explicit_axes:
        run = functools.partial(evaluate_array, rule, evaluate)
        return run_auto(run, mesh, param, values, given)
    dtype = compute_dtype(param.dtype)
    slots = None if stored is None else decode_slots(rule, stored, param.shape, dtype)
    kwargs = {**values, **select_kwargs(evaluate, rule.options.values)}
    call = call_evaluate if rule.layers is None else evaluate_layers
    return call(rule, evaluate, kwargs, param.astype(dtype), slots).astype(param.dtype)
