"""Rules on the layers of a stacked array: what a kernel does around a rule on one layer.

A slot in the shape of a layer is stored in the shape of the stack. Any other slot, a number or a
factored moment, has the layers in front.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from gradtx.definition.static import Static
from gradtx.definition.types import Slots
from gradtx.engine.checks import call_rule
from gradtx.engine.layers import LayerAxes
from gradtx.engine.rules import Function, keyword_names, select_kwargs
from gradtx.engine.slot_form import slot_form
from gradtx.tree.kernels import Scalars
from gradtx.tree.placement import run_auto
from gradtx.tree.rounding import positions

if TYPE_CHECKING:
    from gradtx.engine.leaf_rule import LeafRule

Axes = Sequence[int]
BY_LAYER = ("input_grad", "key", "noise")
"""The values of a rule that differ between layers."""


def each_layer(
    function: Callable[..., Any], layers: LayerAxes, are_alike: Sequence[bool], out: Sequence[bool]
) -> Callable[..., Any]:
    """`function` of lists of arrays, over all layers: a list of arrays in, a list of arrays out.

    `are_alike` and `out` say which arrays have the shape of a layer; others have layers in front.
    """
    for axis in reversed(layers.axes):
        ins = [axis if one else 0 for one in are_alike]
        outs = [axis if one else 0 for one in out]
        function = jax.vmap(function, in_axes=(ins,), out_axes=outs)
    return function


def init_layers(
    init: Function, options: Static, layers: LayerAxes, param: Any, **kwargs: Any
) -> Any:
    """The slots of a stack as a NamedTuple, each layer's made by itself."""
    form, like = slot_form(init, options), slots_alike(init, options, layers)
    known = [one for one in like if one is not None]
    if isinstance(param, jax.ShapeDtypeStruct):  # the slots depend on the shape alone
        layer = jax.ShapeDtypeStruct(layers.layer, param.dtype)
        slots = form.from_init(init(layer, **kwargs), init)
        alike = iter(known)
        return type(slots)(*(None if s is None else _repeat(s, layers, next(alike)) for s in slots))

    def make(arrays: list[Any]) -> list[Any]:
        return jax.tree.leaves(form.from_init(init(arrays[0], **kwargs), init))

    make_all, stack = each_layer(make, layers, [True], known), jnp.asarray(param)
    arrays = iter(_on_mesh(make_all, stack, [_like(stack, layers, one) for one in known]))
    return form.kind(*(None if one is None else next(arrays) for one in like))


def _on_mesh(make: Callable[..., Any], stack: jax.Array, like: Sequence[Any]) -> list[Any]:
    """`make([stack])`. On explicit axes it is a program, in which these are automatic."""
    mesh = jax.typeof(stack).sharding.mesh
    if not mesh.explicit_axes:
        return make([stack])
    return jax.jit(functools.partial(run_auto, make, mesh, like))([stack])


def _like(stack: jax.Array, layers: LayerAxes, is_alike: bool) -> Any:
    """An array that is cut as a slot of the stack: as the stack, or along the layers alone."""
    sharding = jax.typeof(stack).sharding
    if is_alike or not sharding.mesh.explicit_axes:
        return stack
    entries = [*sharding.spec]
    cuts = [entries.pop(axis) for axis in layers.axes]
    placed = NamedSharding(sharding.mesh, PartitionSpec(*cuts))
    return jax.ShapeDtypeStruct(layers.lengths, stack.dtype, sharding=placed)


def _repeat(slot: Any, layers: LayerAxes, is_alike: bool) -> jax.Array:
    """The slot of one layer for all layers."""
    array = jnp.asarray(slot)
    for axis, size in layers.innermost_first:
        array = jnp.repeat(jnp.expand_dims(array, axis if is_alike else 0), size, axis * is_alike)
    return array


@functools.lru_cache(maxsize=4096)
def slots_alike(init: Function, options: Static, layers: LayerAxes) -> tuple[bool | None, ...]:
    """Of every slot of a layer, whether it has the layer's shape; None where there is no slot."""
    form, static = slot_form(init, options), select_kwargs(init, options.values)
    missing = keyword_names(init, required=True) - set(static)
    numbers = {name: jax.ShapeDtypeStruct((), jnp.float32) for name in missing}

    def trial(param: Any, **more: Any) -> Any:
        return form.from_init(init(param, **static, **more), init)

    slots = jax.eval_shape(trial, jax.ShapeDtypeStruct(layers.layer, jnp.float32), **numbers)
    return tuple(None if slot is None else slot.shape == layers.layer for slot in slots)


def rule_alike(rule: "LeafRule", slots: Slots) -> list[bool]:
    """Of every array among the slots of a rule, whether it has the shape of the stack."""
    if slots is None or rule.init_array is None or rule.layers is None:
        return []
    alike = slots_alike(rule.init_array, rule.options, rule.layers)
    return [one for one in alike if one is not None]


def call_on_layers(
    rule: "LeafRule", kwargs: Mapping[str, Any], grad: Any, slots: Slots, param: Any, step: Any
) -> tuple[Any, Any]:
    """Call a rule on the layers of one array."""
    layers = rule.layers
    if layers is None or grad.shape != layers.shape:  # a tile: the rule treats entries alike
        function = functools.partial(rule.update_array, **kwargs, **rule.static_kwargs)
        return call_rule(rule, function, grad, slots, param, step)
    shared, own, own_alike = _split(kwargs, layers)
    alike = rule_alike(rule, slots)
    trees = (grad, param, own, slots)
    arrays, treedef = jax.tree.flatten(trees)
    ins = [True] * (1 + (param is not None)) + own_alike + alike

    def one(arrays: list[Any]) -> list[Any]:
        grad, param, own, slots = jax.tree.unflatten(treedef, arrays)
        function = functools.partial(rule.update_array, **shared, **own, **rule.static_kwargs)
        return jax.tree.leaves(call_rule(rule, function, grad, slots, param, step))

    update, *new = each_layer(one, layers, ins, [True, *alike])(arrays)
    return update, jax.tree.unflatten(jax.tree.structure(slots), new)


def _split(
    kwargs: Mapping[str, Any], layers: LayerAxes
) -> tuple[dict[str, Any], dict[str, Any], list[bool]]:
    """The values that all layers share, those of every layer, and which of these are like it."""
    shared = {name: one for name, one in kwargs.items() if name not in BY_LAYER}
    own, alike = dict[str, Any](), list[bool]()
    for name in BY_LAYER:  # in the order of their names, as trees have them
        value = kwargs.get(name)
        if value is None:
            shared |= {name: None} if name in kwargs else {}
        elif name == "key":
            own[name], is_like = _keys(value, layers), [False]
            alike += is_like
        elif name == "noise":
            # Every entry has the bits of its place in the stack, whatever its layer.
            own[name] = value._replace(
                seed=jnp.broadcast_to(value.seed, layers.lengths), position=positions(layers.shape)
            )
            alike += [False, True]
        else:
            own[name] = value
            alike += [True]
    return shared, own, alike


def _keys(key: Any, layers: LayerAxes) -> Any:
    """A key for every layer."""
    is_typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    typed = key if is_typed else jax.random.wrap_key_data(key)
    count = 1
    for length in layers.lengths:
        count *= length
    keys = jax.vmap(jax.random.fold_in, (None, 0))(typed, jnp.arange(count))
    return keys.reshape(layers.lengths)


def measure_layers(
    rule: "LeafRule", measure: Function, grad: Any, slots: Any, param: Any, step: Any, **kwargs: Any
) -> Any:
    """The scalars that a rule measures of every layer, as arrays of one entry per layer."""
    layers = rule.layers
    assert layers is not None
    shared, own, own_alike = _split(kwargs, layers)
    arrays, treedef = jax.tree.flatten((grad, param, own, slots))
    ins = [True] * (1 + (param is not None)) + own_alike + rule_alike(rule, slots)
    kinds: list[Any] = []

    def one(arrays: list[Any]) -> list[Any]:
        grad, param, own, slots = jax.tree.unflatten(treedef, arrays)
        known = slots if rule.form is None else rule.form.to_rule(slots)
        result = measure(grad, known, param, step, **shared, **own)
        kinds.append(type(result))
        return list(result)

    for axis in reversed(layers.axes):
        one = jax.vmap(one, in_axes=([axis if flag else 0 for flag in ins],))
    fields = one(arrays)
    return kinds[-1](*(field.reshape(-1) for field in fields))


def scalars_of_layers(column: Sequence[jax.Array]) -> Scalars:
    """One scalar for every array and for every layer of a stack."""
    return Scalars([jnp.atleast_1d(one) for one in column])


def call_evaluate(rule: "LeafRule", evaluate: Function, kwargs: Any, param: Any, slots: Any) -> Any:
    """The array to evaluate in the place of a parameter."""
    own = slots if rule.form is None else rule.form.to_rule(slots)
    return evaluate(param, own, **kwargs)


def evaluate_layers(
    rule: "LeafRule", evaluate: Function, kwargs: Any, param: Any, slots: Any
) -> Any:
    """The stack to evaluate in the place of a parameter, layer by layer."""
    layers = rule.layers
    assert layers is not None
    arrays, treedef = jax.tree.flatten((param, slots))

    def one(arrays: list[Any]) -> list[Any]:
        param, slots = jax.tree.unflatten(treedef, arrays)
        return [call_evaluate(rule, evaluate, kwargs, param, slots)]

    ins = [True, *rule_alike(rule, slots)]
    return each_layer(one, layers, ins, [True])(arrays)[0]
