"""The slots that `init` fills with zeros, whatever the parameter: their codes are known.

So a storage need not encode them, and need not compile an encoder for each shape.
"""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import jax
from jax.extend.core import Jaxpr, Literal

from gradtx.definition.static import Static
from gradtx.engine.matrix_rules import init_matrices
from gradtx.engine.rules import Function
from gradtx.tree.jaxprs import inner_jaxpr

MOVES = frozenset(("broadcast_in_dim", "convert_element_type", "copy", "copy_p", "reshape"))
"""Operations whose results are zeros where their arguments are."""


def zero_slots(
    init: Function, options: Static, layout: Any, param: Any, kwargs: Mapping[str, Any]
) -> frozenset[str]:
    """The names of the slots of an array that are zeros."""
    arrays = {name: one for name, one in kwargs.items() if isinstance(one, jax.Array)}
    types = tuple((name, jax.typeof(one)) for name, one in arrays.items())
    static = Static({name: one for name, one in kwargs.items() if name not in arrays})
    return _zero_slots(init, options, layout, param.shape, param.dtype, types, static)


@functools.lru_cache(maxsize=8192)
def _zero_slots(
    init: Function,
    options: Static,
    layout: Any,
    shape: tuple[int, ...],
    dtype: Any,
    types: tuple[tuple[str, Any], ...],
    static: Static,
) -> frozenset[str]:
    """Trace `init` on shapes alone, and look for constants."""
    kwargs = {
        name: jax.ShapeDtypeStruct(one.shape, one.dtype, weak_type=one.weak_type)
        for name, one in types
    }
    make = functools.partial(init_matrices, init, options, layout, **static.values)
    try:
        closed, slots = jax.make_jaxpr(make, return_shape=True)(
            jax.ShapeDtypeStruct(shape, dtype), **kwargs
        )
    except Exception:  # `init` looks at values: its slots are encoded as usual
        return frozenset()
    leaves = zip(closed.jaxpr.outvars, jax.tree.leaves(slots), strict=True)
    zeros = {id(leaf) for out, leaf in leaves if is_zero(closed.jaxpr, out)}
    return frozenset(name for name, slot in slots._asdict().items() if id(slot) in zeros)


def is_zero(jaxpr: Jaxpr, atom: Any) -> bool:
    """Whether a value in a program is zeros by its definition."""
    if isinstance(atom, Literal):
        return not atom.val
    producer = next((one for one in jaxpr.eqns if atom in one.outvars), None)
    if producer is None:
        return False
    inner = inner_jaxpr(producer)
    if inner is not None:
        return is_zero(inner, inner.outvars[producer.outvars.index(atom)])
    return producer.primitive.name in MOVES and _are_zeros(jaxpr, producer.invars)


def _are_zeros(jaxpr: Jaxpr, atoms: Iterable[Any]) -> bool:
    return all(is_zero(jaxpr, one) for one in atoms)
