"""Rules on matrices as rules on arrays: what a kernel does around one."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType

from gradtx.definition.definition import Static
from gradtx.engine.matrix_layout import Layout
from gradtx.engine.rules import Function, Rule, keyword_names, select_kwargs


def init_matrices(init: Function, layout: Layout | None, param: Any, **given: Any) -> Any:
    """The slots of one array; those in the shape of its matrices in the shape of the array."""
    if layout is None:
        return init(param, **given)
    slots = init(layout.matrix(param), **given)
    return _put(
        slots,
        [
            layout.array if slot is not None and slot.shape == layout.shape else _same
            for slot in slots
        ],
    )


def _same(slot: Any) -> Any:
    return slot


def _put(slots: Any, changes: Any) -> Any:
    return type(slots)(
        *(
            None if slot is None else change(slot)
            for slot, change in zip(slots, changes, strict=True)
        )
    )


@functools.lru_cache(maxsize=4096)
def _alike(init: Function, options: Static, layout: Layout) -> tuple[bool, ...]:
    """Of every slot whether it has the shape of the matrices."""
    given = select_kwargs(init, options.values)
    numbers = {
        name: jax.ShapeDtypeStruct((), jnp.float32)
        for name in keyword_names(init, required=True) - set(given)
    }
    slots = jax.eval_shape(
        functools.partial(init, **given), jax.ShapeDtypeStruct(layout.shape, jnp.float32), **numbers
    )
    return tuple(slot is not None and slot.shape == layout.shape for slot in slots)


def changes_of(rule: Rule, change: str) -> list[Callable[[Any], Any]]:
    """For every slot how it becomes matrices ("matrix"), or an array again ("array")."""
    assert rule.init is not None and rule.layout is not None
    return [
        getattr(rule.layout, change) if alike else _same
        for alike in _alike(rule.init, rule.options, rule.layout)
    ]


def as_matrices(rule: Rule, slots: Any) -> Any:
    """Slots as a rule on matrices sees them."""
    return None if slots is None else _put(slots, changes_of(rule, "matrix"))


def as_arrays(rule: Rule, slots: Any) -> Any:
    """Slots as they are kept."""
    return None if slots is None else _put(slots, changes_of(rule, "array"))


def bind_rule(rule: Rule, named: Mapping[str, Any], turns: Any) -> Callable[..., Any]:
    """`update(grad, slots, param, step)` of a rule that is told all that it asked for by name."""
    if rule.layout is None:
        return functools.partial(
            rule.update, **named, **select_kwargs(rule.update, rule.options.values)
        )
    return functools.partial(_on_matrices, rule, matrix_kwargs(rule, named, turns))


def matrix_kwargs(rule: Rule, named: Mapping[str, Any], turns: Any) -> dict[str, Any]:
    """What a rule on matrices is told: arrays as matrices, their turns, and a key for each."""
    layout, told = rule.layout, dict(named)
    assert layout is not None
    if "input_grad" in told:
        told["input_grad"] = layout.matrix(told["input_grad"])
    if "key" in told:
        told["key"] = _key_of_each(told["key"], layout.batch)
    if "refresh_offset" in keyword_names(rule.update):
        told["refresh_offset"] = jnp.asarray(turns)
    return told


def _key_of_each(key: jax.Array, batch: tuple[int, ...]) -> jax.Array:
    """A key for every matrix of a leaf."""
    typed = key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)
    if not batch:
        return jax.random.fold_in(typed, 0)
    return jax.vmap(jax.random.fold_in, (None, 0))(typed, jnp.arange(math.prod(batch))).reshape(
        batch
    )


def _on_matrices(
    rule: Rule, told: Mapping[str, Any], grad: Any, slots: Any, param: Any, step: Any
) -> tuple[Any, Any]:
    options = select_kwargs(rule.update, rule.options.values)
    run = functools.partial(_run, rule, options)
    if any(kind == AxisType.Explicit for kind in jax.typeof(grad).sharding.mesh.axis_types):
        likes = jax.tree.map(lambda array: jax.typeof(array).sharding, (grad, slots))
        spread: Any = jax.sharding.auto_axes  # its type is that of a decorator
        run = spread(run, out_sharding=likes)
    return run(told, grad, slots, param, step)


def _run(
    rule: Rule,
    options: Mapping[str, Any],
    told: Mapping[str, Any],
    grad: Any,
    slots: Any,
    param: Any,
    step: Any,
) -> tuple[Any, Any]:
    """The rule itself, on matrices; a type that says how an array is cut over devices would have to
    be said anew of every product.
    """
    layout = rule.layout
    assert layout is not None
    param = None if param is None else layout.matrix(param)
    update, new = rule.update(
        layout.matrix(grad), as_matrices(rule, slots), param, step, **told, **options
    )
    if jnp.shape(update) != layout.shape:
        raise ValueError(
            f"the update of a rule on matrices must keep their shape {layout.shape}, and became {jnp.shape(update)}"
        )
    return layout.array(update), as_arrays(rule, new)
