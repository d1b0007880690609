"""The policy of storage: the codec of each slot of each leaf."""

import dataclasses
import functools
import itertools
import typing
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from gradtx.definition.types import PRECISE, SQUARES, Slots
from gradtx.engine.roles import leaf_roles
from gradtx.engine.selector import Leaves, Selector
from gradtx.storage import trees
from gradtx.storage.codec import CODECS, Codec, decode_array, encode_array
from gradtx.storage.packing import Parts, packed, packed_type, slots_type, unpacked
from gradtx.storage.tiles import run_by_tiles
from gradtx.storage.zero_codes import zero_codes
from gradtx.tree.casts import is_inexact_dtype
from gradtx.tree.kernels import kernel
from gradtx.tree.rounding import Noise

ROOM, ALONE = 16, 4096
"""How many numbers one rule has for its slots, and the first number of slots with random bits of
their own."""


@dataclasses.dataclass(frozen=True)
class Policy:
    """The `Storage` of `stored`. Policies that differ in their leaves alone share kernels."""

    default: str | None
    by_slot: tuple[tuple[str, str], ...]
    stochastic: bool
    block: int
    fused: bool | None
    min_size: int = dataclasses.field(compare=False, default=0)
    where: Selector | None = dataclasses.field(compare=False, default=None)

    @property
    def is_random(self) -> bool:
        return self.stochastic

    def codec(self, kind: type[Any], slot: str) -> Codec | None:
        """The codec of a slot; None: it is not encoded."""
        named = dict(self.by_slot)
        name = named.get(slot, self.default)
        if name is None or name == "float32":
            return None
        mark = self.marks(kind, slot)
        if slot not in named and mark == PRECISE:
            return None
        # int4 is for first moments alone: squares are then stored in int8.
        return CODECS["int8" if name == "int4" and mark == SQUARES else name]

    def leaf_policy(self, leaves: Leaves) -> Sequence[Any]:
        """The allowed codecs of every leaf: "all", "fine" for an embedding, or None."""
        masks = [True] * len(leaves.values) if self.where is None else self.where(leaves)
        large = [getattr(value, "size", 0) >= self.min_size for value in leaves.values]
        roles = leaf_roles(leaves)
        tables = [self.where is None and role is not None and role.is_table for role in roles]
        return [
            ("fine" if table else "all") if mask and fits else None
            for mask, fits, table in zip(masks, large, tables, strict=True)
        ]

    def stored_type(self, kind: type[Any]) -> type[Any]:
        return packed_type(kind, self._pairs(kind), self._parts(kind))

    def _parts(self, kind: type[Any]) -> Parts:
        """The slots whose codecs encode them as several arrays."""
        codecs = ((name, self.codec(kind, name)) for name in kind._fields)
        return tuple((name, one.parts) for name, one in codecs if one is not None and one.parts)

    def _pairs(self, kind: type[Any]) -> tuple[tuple[str, str], ...]:
        """The pairs of slots that are packed together."""
        names = [
            name
            for name in kind._fields
            if (codec := self.codec(kind, name)) is not None and codec.name == "packed16"
        ]
        return tuple(itertools.pairwise(names))[::2]

    def encode_init(
        self, slots: Slots, like: Any, policy: Any, zeros: frozenset[str] = frozenset()
    ) -> Any:
        kind = type(slots)
        pairs = zip(kind._fields, slots, strict=True)
        stored = [
            self._first(kind, name, slot, like, policy, name in zeros) for name, slot in pairs
        ]
        return packed(kind(*stored), self._pairs(kind), self._parts(kind))

    def _first(
        self, kind: type[Any], name: str, slot: Any, like: Any, policy: Any, is_zero: bool
    ) -> Any:
        codec = self.codec(kind, name)
        if codec is None or policy is None or (codec.is_coarse and policy == "fine"):
            return slot
        if not self.fits(slot, like.shape):
            return slot
        square = self.marks(kind, name) == SQUARES
        if is_zero and (codes := zero_codes(codec, slot, square, self.block)) is not None:
            return codes
        encode = _first_encoding(codec, square, self.block)
        # Outside of jit a codec is some twenty dispatches for every slot, and one as a kernel.
        return encode((), slot) if isinstance(slot, Tracer) else kernel(encode)((), slot)

    def decode(self, stored: Slots, shape: tuple[int, ...]) -> Any:
        kind, fields = slots_type(type(stored)), unpacked(stored)
        return kind(*(self._decode(kind, name, fields[name], shape) for name in kind._fields))

    def _decode(self, kind: type[Any], name: str, stored: Slots, shape: tuple[int, ...]) -> Any:
        codec = self.codec(kind, name)
        if codec is None or not self.is_encoded(stored, codec):
            return stored
        square = self.marks(kind, name) == SQUARES
        return decode_array(codec, stored, shape, square=square, block=self.block)

    def encode(self, new: Any, stored: Slots, noise: Noise | None, number: int) -> Any:
        kind, old = type(new), unpacked(stored)
        numbered = enumerate(zip(kind._fields, new, strict=True), start=number * ROOM)
        stored = [
            self._encode(kind, name, value, old[name], noise, index)
            for index, (name, value) in numbered
        ]
        return packed(kind(*stored), self._pairs(kind), self._parts(kind))

    def _encode(
        self, kind: type[Any], name: str, new: Any, old: Any, noise: Noise | None, index: int
    ) -> Any:
        codec = self.codec(kind, name)
        if new is None:
            return None
        if codec is None or not self.is_encoded(old, codec):
            return new.astype(old.dtype)
        # Packed slots share one kernel, so they share random bits too.
        number = index if codec.name == "packed16" else ALONE + 2 * index
        random = noise.sixteen(new.shape, number) if noise is not None and self.stochastic else None
        square = self.marks(kind, name) == SQUARES
        return encode_array(codec, new, random, square=square, block=self.block)

    def visible_slots(self, stored: Slots, slots: Slots) -> Any:
        kind, fields = type(slots), unpacked(stored)
        pairs = zip(kind._fields, slots, strict=True)
        return kind(*(self._visible(kind, name, fields[name], slot) for name, slot in pairs))

    def _visible(self, kind: type[Any], name: str, stored: Slots, slot: Any) -> Any:
        codec = self.codec(kind, name)
        is_visible = codec is not None and codec.is_seen and self.is_encoded(stored, codec)
        return self._decode(kind, name, stored, slot.shape) if is_visible else None

    def run(self, function: Callable[..., Any], rules: Sequence[Any], shared: Any, row: Any) -> Any:
        return run_by_tiles(function, rules, shared, row, self.block, self.fused)

    def encode_init_tree_slots(self, rule: str, skip: frozenset[str], own: Slots) -> Any:
        function = functools.partial(trees.first_fields, self)
        encoded = trees.map_fields(self, rule, skip, function, own)
        return packed(encoded, (), trees.parts(self, rule, skip, type(own)))

    def decode_tree(self, rule: str, skip: frozenset[str], stored: Slots) -> Any:
        function = functools.partial(trees.decoded_fields, self)
        own = slots_type(type(stored))(**unpacked(stored))
        return trees.map_fields(self, rule, skip, function, own)

    def encode_tree(
        self, rule: str, skip: frozenset[str], new: Any, stored: Slots, step: Any
    ) -> Any:
        function = functools.partial(trees.encoded_fields, self, step)
        old = type(new)(**unpacked(stored))
        encoded = trees.map_fields(self, rule, skip, function, old, new)
        return packed(encoded, (), trees.parts(self, rule, skip, type(new)))

    @staticmethod
    def marks(kind: type[Any], slot: str) -> Any:
        """The mark in the annotation of a slot: SQUARES, PRECISE, or None."""
        return _marks(kind)[slot]

    @staticmethod
    def fits(slot: Any, shape: tuple[int, ...]) -> bool:
        """Whether a slot can be encoded: a real float array in the shape of its parameter."""
        if not hasattr(slot, "dtype") or not is_inexact_dtype(slot.dtype):
            return False
        is_real = not jnp.issubdtype(slot.dtype, jnp.complexfloating)
        return is_real and slot.shape == tuple(shape) and slot.ndim > 0 and slot.size > 0

    @staticmethod
    def is_encoded(stored: Slots, codec: Codec) -> bool:
        """Whether a slot is encoded by a codec."""
        if codec.parts is not None:
            return isinstance(stored, codec.parts)
        return getattr(stored, "dtype", None) == codec.kept_dtype


@functools.lru_cache(maxsize=256)
def _marks(kind: type[Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {name: getattr(hints.get(name), "__metadata__", (None,))[0] for name in kind._fields}


@functools.lru_cache(maxsize=1024)
def _first_encoding(codec: Codec, square: bool, block: int) -> Callable[..., Any]:
    """The encoding of a first slot, one function for all slots that share a kernel."""
    return functools.partial(_encode_first, codec, square, block)


def _encode_first(codec: Codec, square: bool, block: int, shared: Any, slot: jax.Array) -> Any:
    return encode_array(codec, slot, None, square=square, block=block)
