"""Encoded slots in a state: each array of theirs is a slot of its own, named `mu_codes`, `mu_nu`.

So a path leads to one array, and shardings, Orbax and nnx follow it. Two slots of 16 bits may share
one array of 32-bit words: XLA then writes both in one kernel, on a CPU too.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.definition.types import PyTree, Slots

HALF = np.uint32(16)
Pairs = tuple[tuple[str, str], ...]
"""The slots that share words, two by two."""
Parts = tuple[tuple[str, type[Any]], ...]
"""The slots that several arrays encode, each with the NamedTuple of these arrays."""


class Packing(NamedTuple):
    """The origin of a packed type: the NamedTuple of slots, and how they are encoded."""

    kind: type[Any]
    pairs: Pairs
    parts: Parts


@functools.lru_cache(maxsize=256)
def packed_type(kind: type[Any], pairs: Pairs, parts: Parts) -> type[Any]:
    """The slots of a rule with more fields: `mu_nu` of a pair; `mu_codes`, `mu_scale` of parts."""
    if not pairs and not parts:
        return kind
    arrays = [f"{name}_{array}" for name, node in parts for array in node._fields]
    fields = [(name, Any) for name in (*kind._fields, *map("_".join, pairs), *arrays)]
    base = NamedTuple(kind.__name__, fields)  # pyright: ignore[reportCallIssue]
    # Pickle cannot find a type that is made here; `__reduce__` makes it again from its origin.
    return type(
        kind.__name__,
        (base,),
        {"__slots__": (), "packing": Packing(kind, pairs, parts), "__reduce__": _reduce},
    )


def _reduce(packed: Any) -> Any:
    return _rebuilt, (*packed.packing, *packed)


def _rebuilt(kind: type[Any], pairs: Pairs, parts: Parts, *values: Any) -> Any:
    return packed_type(kind, pairs, parts)(*values)


def slots_type(kind: type[Any]) -> type[Any]:
    """The slots of the rule, for the type in a state."""
    return kind.packing.kind if hasattr(kind, "packing") else kind


def packed(slots: Slots, pairs: Pairs, parts: Parts) -> Any:
    """Pack each pair of slots into one array of words, if both are bfloat16; spread out parts.

    A slot is one array, or a tree of arrays.
    """
    fields, more = slots._asdict(), list[Any]()
    for one, other in pairs:
        both = [fields[one], fields[other]]
        fits = all(getattr(slot, "dtype", None) == jnp.bfloat16 for slot in both)
        more.append(_pack(*both) if fits else None)
        fields |= {one: None, other: None} if fits else {}
    for name, node in parts:
        fields[name], *arrays = _spread(fields[name], node)
        more += arrays
    return packed_type(type(slots), pairs, parts)(*fields.values(), *more)


def unpacked(stored: Slots) -> dict[str, Any]:
    """Every slot by name, as its codec encoded it."""
    fields = stored._asdict()
    if not hasattr(stored, "packing"):
        return fields
    _, pairs, parts = type(stored).packing
    for one, other in pairs:
        words = fields.pop(f"{one}_{other}")
        if words is not None:
            fields |= {one: _upper(words), other: _upper(words << HALF)}
    for name, node in parts:
        arrays = [fields.pop(f"{name}_{array}") for array in node._fields]
        fields[name] = _gather(fields[name], arrays, node)
    return fields


def _spread(tree: PyTree, node: type[Any]) -> list[Any]:
    """A tree without the leaves that are encoded, and one tree for each array of theirs."""
    leaves, treedef = jax.tree.flatten(
        tree, is_leaf=lambda leaf: leaf is None or isinstance(leaf, node)
    )
    rest = (None,) * len(node._fields)
    rows = [(None, *one) if isinstance(one, node) else (one, *rest) for one in leaves]
    columns = zip(*rows, strict=True) if rows else [()] * (1 + len(rest))
    return [jax.tree.unflatten(treedef, column) for column in columns]


def _gather(tree: PyTree, arrays: list[Any], node: type[Any]) -> Any:
    """The tree that `_spread` spread out."""
    leaves, treedef = jax.tree.flatten(tree, is_leaf=lambda leaf: leaf is None)
    rows = zip(leaves, *map(treedef.flatten_up_to, arrays), strict=True)
    return jax.tree.unflatten(
        treedef, [one if parts[0] is None else node(*parts) for one, *parts in rows]
    )


def _upper(words: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type((words >> HALF).astype(jnp.uint16), jnp.bfloat16)


def _pack(one: jax.Array, other: jax.Array) -> jax.Array:
    first, second = (
        jax.lax.bitcast_convert_type(half, jnp.uint16).astype(jnp.uint32) for half in (one, other)
    )
    return (first << HALF) | second
