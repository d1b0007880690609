"""Rules on matrices as rules on arrays: what a kernel does around one."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from gradtx.definition.static import Static
from gradtx.definition.types import Slots
from gradtx.engine.checks import call_rule
from gradtx.engine.layer_calls import init_layers
from gradtx.engine.layers import LayerAxes
from gradtx.engine.matrix_layout import Layout
from gradtx.engine.rules import Function, keyword_names, select_kwargs
from gradtx.engine.slot_form import slot_form

if TYPE_CHECKING:
    from gradtx.engine.leaf_rule import MatrixRule

Change = Callable[[Any], Any]


def init_matrices(
    init: Function, options: Static, layout: Layout | LayerAxes | None, param: Any, **kwargs: Any
) -> Any:
    """The slots of one array as a NamedTuple; those like its matrices in the array's shape."""
    form = slot_form(init, options)
    if isinstance(layout, LayerAxes):
        return init_layers(init, options, layout, param, **kwargs)
    if layout is None:
        return form.from_init(init(param, **kwargs), init)
    slots = form.from_init(init(layout.matrix(param), **kwargs), init)
    is_alike = [slot is not None and slot.shape == layout.shape for slot in slots]
    return _change(slots, [layout.array if one else _same for one in is_alike])


def _same(slot: Any) -> Any:
    return slot


def _change(slots: Slots, changes: list[Change]) -> Any:
    pairs = zip(slots, changes, strict=True)
    return type(slots)(*(None if slot is None else change(slot) for slot, change in pairs))


@functools.lru_cache(maxsize=4096)
def _alike(init: Function, options: Static, layout: Layout) -> tuple[bool, ...]:
    """Of every slot, whether it has the shape of the matrices."""
    static = select_kwargs(init, options.values)
    missing = keyword_names(init, required=True) - set(static)
    numbers = {name: jax.ShapeDtypeStruct((), jnp.float32) for name in missing}
    trial = functools.partial(init_matrices, init, options, None, **static)
    slots = jax.eval_shape(trial, jax.ShapeDtypeStruct(layout.shape, jnp.float32), **numbers)
    return tuple(slot is not None and slot.shape == layout.shape for slot in slots)


def slots_alike(rule: "MatrixRule") -> tuple[bool, ...]:
    """Of every slot of a rule for one layout, whether it has the shape of the matrices."""
    if rule.init_array is None or rule.layout is None:
        return ()
    return _alike(rule.init_array, rule.options, rule.layout)


def slots_of_type(rule: "MatrixRule", array: jax.ShapeDtypeStruct) -> Any:
    """The types of a rule's slots for an array of a type, whose axes may say how they are cut."""
    init, layout, options = rule.init_array, rule.layout, rule.options
    if init is None or layout is None:
        return None
    static = select_kwargs(init, options.values)
    missing = keyword_names(init, required=True) - set(static)
    numbers = {name: jax.ShapeDtypeStruct((), jnp.float32) for name in missing}
    make = functools.partial(init_matrices, init, options, layout, **static)
    return jax.eval_shape(make, array, **numbers)


def as_matrices(rule: "MatrixRule", slots: Slots) -> Any:
    """Slots as a rule on matrices sees them."""
    return _reshaped(rule, slots, "matrix")


def as_arrays(rule: "MatrixRule", slots: Slots) -> Any:
    """Slots as a state holds them."""
    return _reshaped(rule, slots, "array")


def _reshaped(rule: "MatrixRule", slots: Slots, change: str) -> Any:
    if slots is None or rule.init_array is None or rule.layout is None:
        return None
    alike = _alike(rule.init_array, rule.options, rule.layout)
    return _change(slots, [getattr(rule.layout, change) if one else _same for one in alike])


def matrix_kwargs(rule: "MatrixRule", kwargs: Mapping[str, Any], offsets: Any) -> dict[str, Any]:
    """The values of a rule on matrices: arrays as matrices, their turns, and a key for each."""
    layout, values = rule.layout, dict(kwargs)
    if layout is None:
        return values
    if "input_grad" in values:
        values["input_grad"] = layout.matrix(values["input_grad"])
    if "key" in values:
        values["key"] = _key_of_each(values["key"], layout.batch)
    if rule.asks_for("refresh_offset"):
        values["refresh_offset"] = jnp.asarray(offsets)
    return values


def _key_of_each(key: jax.Array, batch: tuple[int, ...]) -> jax.Array:
    """A key for every matrix of a leaf."""
    is_typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    typed = key if is_typed else jax.random.wrap_key_data(key)
    if not batch:
        return jax.random.fold_in(typed, 0)
    numbers = jnp.arange(math.prod(batch))
    return jax.vmap(jax.random.fold_in, (None, 0))(typed, numbers).reshape(batch)


def call_on_matrices(
    rule: "MatrixRule",
    kwargs: Mapping[str, Any],
    offsets: Any,
    grad: Any,
    slots: Slots,
    param: Any,
    step: Any,
) -> tuple[Any, Any]:
    """Call a rule on the matrices of one array."""
    layout, values = rule.layout, matrix_kwargs(rule, kwargs, offsets)
    if layout is None:
        raise ValueError(f"{rule.name} has no layout")
    matrix = None if param is None else layout.matrix(param)
    function = functools.partial(rule.update_array, **values, **rule.static_kwargs)
    grads, own_slots = layout.matrix(grad), as_matrices(rule, slots)
    update, new = call_rule(rule, function, grads, own_slots, matrix, step)
    return layout.array(update), as_arrays(rule, new)
