"""Which codec keeps which slot of which leaf: the `Storage` that rules are given."""

import dataclasses
import functools
import itertools
import typing
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from gradtx.definition.types import PRECISE, SQUARES
from gradtx.engine.selector import Leaves, Selector
from gradtx.storage import trees
from gradtx.storage.codec import CODECS, Codec
from gradtx.storage.packing import packed, packed_type, slots_type, unpacked
from gradtx.storage.tiles import run_by_tiles
from gradtx.tree.casts import is_inexact_dtype
from gradtx.tree.roles import is_table
from gradtx.tree.rounding import Noise

ROOM, ALONE = 16, 4096
"""Room for the numbers of the slots of one rule, and where those begin that share no random bits."""


@dataclasses.dataclass(frozen=True)
class Policy:
    """How slots are kept. Policies that differ only in which leaves they are for share kernels."""

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
        """The codec of a slot; None: it stays as it is."""
        named = dict(self.by_slot)
        name = named.get(slot, self.default)
        if name is None or name == "float32":
            return None
        found, mark = CODECS[name], self.marks(kind, slot)
        if slot not in named and mark == PRECISE:
            return None
        return CODECS["int8"] if name == "int4" and mark == SQUARES else found

    def leaf_policy(self, leaves: Leaves) -> Sequence[Any]:
        """For every leaf the codecs that may be used: "all", the "fine" ones for an embedding, or
        None.
        """
        masks = [True] * len(leaves.values) if self.where is None else self.where(leaves)
        large = [getattr(value, "size", 0) >= self.min_size for value in leaves.values]
        kinds = [
            "fine" if self.where is None and is_table(path) else "all" for path in leaves.paths
        ]
        return [
            kind if chosen and size else None
            for chosen, size, kind in zip(masks, large, kinds, strict=True)
        ]

    def stored_type(self, kind: type[Any]) -> type[Any]:
        return packed_type(kind, self._pairs(kind))

    def _pairs(self, kind: type[Any]) -> tuple[tuple[str, str], ...]:
        """The slots that are packed two by two."""
        both = [
            name
            for name in kind._fields
            if (codec := self.codec(kind, name)) is not None and codec.name == "packed16"
        ]
        return tuple(itertools.pairwise(both))[::2]

    def encode_init(self, slots: Any, like: Any, chosen: Any) -> Any:
        kind = type(slots)
        made = [
            self._first(kind, name, slot, like, chosen)
            for name, slot in zip(kind._fields, slots, strict=True)
        ]
        return packed(kind(*made), self._pairs(kind))

    def _first(self, kind: type[Any], name: str, slot: Any, like: Any, chosen: Any) -> Any:
        codec = self.codec(kind, name)
        if (
            codec is None
            or chosen is None
            or (codec.is_coarse and chosen == "fine")
            or not self.fits(slot, like.shape)
        ):
            return slot
        return codec.encode(
            slot.astype(jnp.float32),
            None,
            square=self.marks(kind, name) == SQUARES,
            block=self.block,
        )

    def decode(self, kept: Any, shape: tuple[int, ...]) -> Any:
        kind, fields = slots_type(type(kept)), unpacked(kept)
        return kind(*(self._decode(kind, name, fields[name], shape) for name in kind._fields))

    def _decode(self, kind: type[Any], name: str, kept: Any, shape: tuple[int, ...]) -> Any:
        codec = self.codec(kind, name)
        if codec is None or not self.is_encoded(kept, codec):
            return kept
        return codec.decode(kept, shape, square=self.marks(kind, name) == SQUARES, block=self.block)

    def encode(self, new: Any, kept: Any, noise: Noise | None, number: int) -> Any:
        kind, old = type(new), unpacked(kept)
        each = enumerate(zip(kind._fields, new, strict=True), start=number * ROOM)
        made = [
            self._encode(kind, name, value, old[name], noise, place)
            for place, (name, value) in each
        ]
        return packed(kind(*made), self._pairs(kind))

    def _encode(
        self, kind: type[Any], name: str, new: Any, old: Any, noise: Noise | None, place: int
    ) -> Any:
        codec = self.codec(kind, name)
        if new is None:
            return None
        if codec is None or not self.is_encoded(old, codec):
            return new.astype(old.dtype)
        number = (
            place if codec.name == "packed16" else ALONE + 2 * place
        )  # what is packed together shares bits, since it shares a kernel
        random = noise.sixteen(new.shape, number) if noise is not None and self.stochastic else None
        return codec.encode(
            new.astype(jnp.float32),
            random,
            square=self.marks(kind, name) == SQUARES,
            block=self.block,
        )

    def visible_slots(self, kept: Any, slots: Any) -> Any:
        kind, fields = type(slots), unpacked(kept)
        return kind(
            *(
                self._seen(kind, name, fields[name], slot)
                for name, slot in zip(kind._fields, slots, strict=True)
            )
        )

    def _seen(self, kind: type[Any], name: str, kept: Any, slot: Any) -> Any:
        codec = self.codec(kind, name)
        is_seen = codec is not None and codec.is_seen and self.is_encoded(kept, codec)
        return self._decode(kind, name, kept, slot.shape) if is_seen else None

    def run(self, function: Callable[..., Any], rules: Sequence[Any], shared: Any, row: Any) -> Any:
        return run_by_tiles(function, rules, shared, row, self.block, self.fused)

    def encode_init_tree_slots(self, rule: str, skip: frozenset[str], own: Any) -> Any:
        return trees.map_fields(self, rule, skip, functools.partial(trees.first_fields, self), own)

    def decode_tree(self, rule: str, skip: frozenset[str], kept: Any) -> Any:
        return trees.map_fields(
            self, rule, skip, functools.partial(trees.decoded_fields, self), kept
        )

    def encode_tree(self, rule: str, skip: frozenset[str], new: Any, kept: Any, step: Any) -> Any:
        return trees.map_fields(
            self, rule, skip, functools.partial(trees.encoded_fields, self, step), kept, new
        )

    @staticmethod
    def marks(kind: type[Any], slot: str) -> Any:
        """What the annotation of a slot says that it holds: SQUARES, PRECISE, or None."""
        return _marks(kind)[slot]

    @staticmethod
    def fits(slot: Any, shape: tuple[int, ...]) -> bool:
        """Whether a slot can be kept in fewer bits: a real array of floats in the shape of its
        parameter.
        """
        real = (
            hasattr(slot, "dtype")
            and is_inexact_dtype(slot.dtype)
            and not jnp.issubdtype(slot.dtype, jnp.complexfloating)
        )
        return real and slot.shape == tuple(shape) and slot.ndim > 0 and slot.size > 0

    @staticmethod
    def is_encoded(kept: Any, codec: Codec) -> bool:
        """Whether a slot is in the form of a codec, rather than left as it was."""
        return kept is not None and (
            trees.is_node(kept) or getattr(kept, "dtype", None) == codec.kept_dtype
        )


@functools.lru_cache(maxsize=256)
def _marks(kind: type[Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {name: getattr(hints.get(name), "__metadata__", (None,))[0] for name in kind._fields}
