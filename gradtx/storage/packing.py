"""Packing: two slots of 16 bits in one array of 32-bit words.

XLA then writes both in one kernel, on a CPU too.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

HALF = np.uint32(16)


class Packing(NamedTuple):
    """The origin of a packed type: the NamedTuple of slots, and the pairs in it."""

    kind: type[Any]
    pairs: tuple[tuple[str, str], ...]


@functools.lru_cache(maxsize=256)
def packed_type(kind: type[Any], pairs: tuple[tuple[str, str], ...]) -> type[Any]:
    """The slots of a rule with one more field, `mu_nu`, per pair that shares words."""
    if not pairs:
        return kind
    fields = [(name, Any) for name in (*kind._fields, *map("_".join, pairs))]
    base = NamedTuple(kind.__name__, fields)  # pyright: ignore[reportCallIssue]
    # Pickle cannot find a type that is made here; `__reduce__` makes it again from its origin.
    return type(
        kind.__name__,
        (base,),
        {"__slots__": (), "packing": Packing(kind, pairs), "__reduce__": _reduce},
    )


def _reduce(packed: Any) -> Any:
    return _rebuilt, (*packed.packing, *packed)


def _rebuilt(kind: type[Any], pairs: tuple[tuple[str, str], ...], *values: Any) -> Any:
    return packed_type(kind, pairs)(*values)


def slots_type(kind: type[Any]) -> type[Any]:
    """The slots of the rule, for the type in a state."""
    return kind.packing.kind if hasattr(kind, "packing") else kind


def packed(slots: Any, pairs: tuple[tuple[str, str], ...]) -> Any:
    """Pack each pair of slots into one array of words, if both are bfloat16."""
    fields, words = slots._asdict(), []
    for one, other in pairs:
        both = [fields[one], fields[other]]
        fits = all(getattr(slot, "dtype", None) == jnp.bfloat16 for slot in both)
        words.append(_pack(*both) if fits else None)
        fields |= {one: None, other: None} if fits else {}
    return packed_type(type(slots), pairs)(*fields.values(), *words)


def unpacked(stored: Any) -> dict[str, Any]:
    """Every slot by name; those that share words as two arrays of bfloat16."""
    fields = stored._asdict()
    for one, other in type(stored).packing.pairs if hasattr(stored, "packing") else ():
        words = fields.pop(f"{one}_{other}")
        if words is not None:
            fields |= {one: _upper(words), other: _upper(words << HALF)}
    return fields


def _upper(words: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type((words >> HALF).astype(jnp.uint16), jnp.bfloat16)


def _pack(one: jax.Array, other: jax.Array) -> jax.Array:
    first, second = (
        jax.lax.bitcast_convert_type(half, jnp.uint16).astype(jnp.uint32) for half in (one, other)
    )
    return (first << HALF) | second
