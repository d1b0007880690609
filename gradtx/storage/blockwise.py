r"""Block-wise codes of 8 and 4 bits: integers, and one bfloat16 scale for every group of `block`
entries.

With s = max |x| over the group, rounded up to bfloat16:

    first moments        z = 2 |x|/s / (1 + |x|/s),   code = ± round(n z),        read  |x| = s z / (2 − z)      n = 127 or 7
    squares              code = round(255 √x / √s),                               read  x = s (code/255)²

The map of first moments is steeper at 0, where most entries are. A square that is not 0 gets no
code of 0, so that what is divided by its root never explodes. Groups lie along the last axis but
one, or several of them beside each other in a long vector: there a group's maximum is taken across
rows, which moves no data on a TPU and runs in full vectors on a CPU."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.storage.codec import Codec, register_codec
from gradtx.tree.rounding import HIGH_HALF, float_of, fraction, word_of

LANES = 128
"""How many groups of a long vector lie beside each other."""


class Blocks(NamedTuple):
    """An array in codes."""

    codes: Any
    """One or half a byte for every entry; in the shape of the array, where that is one byte."""
    scale: Any
    """Bfloat16, one for every group."""


class Layout(NamedTuple):
    """How an array is divided into groups: it is seen as `view`, with `block` entries along `axis`
    in a group.
    """

    shape: tuple[int, ...]
    """Of the array, or of the rows of LANES that a long vector is seen as."""
    axis: int
    block: int

    @property
    def groups(self) -> int:
        return math.ceil(self.shape[self.axis] / self.block)

    @property
    def view(self) -> tuple[int, ...]:
        return (*self.shape[: self.axis], self.groups, self.block, *self.shape[self.axis + 1 :])

    @property
    def padding(self) -> int:
        """How many entries the last group lacks."""
        return self.groups * self.block - self.shape[self.axis]

    def grouped(self, array: jax.Array) -> jax.Array:
        """The array with an axis of groups and one of entries in a group; zeros where the last
        group lacks entries.
        """
        array = array.reshape(self.shape)
        if self.padding:
            array = jnp.pad(
                array, [(0, self.padding if axis == self.axis else 0) for axis in range(array.ndim)]
            )
        return array.reshape(self.view)

    def joined(self, array: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The inverse of `grouped`."""
        whole = array.reshape(
            *self.shape[: self.axis], self.groups * self.block, *self.shape[self.axis + 1 :]
        )
        if self.padding:
            whole = jax.lax.slice_in_dim(whole, 0, self.shape[self.axis], axis=self.axis)
        return whole.reshape(shape)


@functools.lru_cache(maxsize=1024)
def layout(shape: tuple[int, ...], block: int) -> Layout:
    """The axis to group along: the last but one if it divides, else the last if that does; else the
    longer of the two, padded.
    """
    if len(shape) == 1 and shape[0] % (block * LANES) == 0:
        return Layout((shape[0] // LANES, LANES), 0, block)
    axes = [axis for axis in (len(shape) - 2, len(shape) - 1) if axis >= 0]
    whole = [axis for axis in axes if shape[axis] % block == 0]
    return Layout(shape, whole[0] if whole else max(axes, key=lambda axis: shape[axis]), block)


def _scale(magnitudes: jax.Array, axis: int) -> jax.Array:
    """The largest of each group, up to the next bfloat16; inf where one is inf or nan."""
    largest = jnp.max(
        jnp.where(jnp.isnan(magnitudes), jnp.inf, magnitudes), axis=axis, keepdims=True
    )
    return float_of((word_of(largest) + np.uint32(0xFFFF)) & HIGH_HALF)


def _inverse(scale: jax.Array) -> jax.Array:
    return jnp.where((scale > 0) & (scale < jnp.inf), 1 / scale, 0)


def _rounded(x: jax.Array, random: jax.Array | None) -> jax.Array:
    """To an integer; half up to the nearest, the form that every compiler knows."""
    return jnp.floor(x + (np.float32(0.5) if random is None else fraction(random)))


def _encode(
    x: jax.Array, random: jax.Array | None, *, square: bool, block: int, levels: int
) -> Blocks:
    where = layout(x.shape, block)
    grouped = where.grouped(x)
    noise = None if random is None else where.grouped(random)
    root = jnp.sqrt(grouped) if square else jnp.abs(grouped)
    scale = _scale(root, where.axis + 1)
    ratio = root * _inverse(scale)
    if square:
        codes = jnp.clip(_rounded(ratio * 255, noise), 0, 255)
        codes = (
            jnp.where(root > 0, jnp.maximum(codes, 1), codes).astype(jnp.int32).astype(jnp.uint8)
        )
    else:
        companded = jnp.where(grouped < 0, -1.0, 1.0) * (2 * levels * ratio / (1 + ratio))
        codes = (
            jnp.clip(_rounded(companded, noise), -levels, levels).astype(jnp.int32).astype(jnp.int8)
        )
    return Blocks(codes, jnp.squeeze(scale, where.axis + 1).astype(jnp.bfloat16))


def _decode(
    codes: jax.Array, scale: jax.Array, where: Layout, *, square: bool, levels: int
) -> jax.Array:
    per_matrix = jnp.expand_dims(scale.astype(jnp.float32), where.axis + 1)
    if square:
        root = codes.astype(jnp.int32).astype(jnp.float32) * np.float32(1 / 255) * per_matrix
        return root * root
    z = codes.astype(jnp.int32).astype(jnp.float32) * np.float32(1 / levels)
    return per_matrix * (z / (2 - jnp.abs(z)))


def _encode_int8(x: jax.Array, random: jax.Array | None, *, square: bool, block: int) -> Blocks:
    kept = _encode(x, random, square=square, block=block, levels=127)
    return kept._replace(codes=layout(x.shape, block).joined(kept.codes, x.shape))


def _decode_int8(kept: Blocks, shape: tuple[int, ...], *, square: bool, block: int) -> jax.Array:
    where = layout(shape, block)
    return where.joined(
        _decode(where.grouped(kept.codes), kept.scale, where, square=square, levels=127), shape
    )


def _encode_int4(x: jax.Array, random: jax.Array | None, *, square: bool, block: int) -> Blocks:
    """Two codes in a byte: of the first and the second half of a group."""
    where = layout(x.shape, block)
    kept = _encode(x, random, square=square, block=block, levels=7)
    halves = (kept.codes.astype(jnp.int32) & 15).reshape(_in_halves(where))
    codes = jnp.sum(halves << _shifts(where), axis=where.axis + 1).astype(jnp.uint8)
    return kept._replace(codes=codes.reshape(_halved(where)))


def _in_halves(where: Layout) -> tuple[int, ...]:
    """The view of an array with the two halves of each group along an axis of their own."""
    view, axis = where.view, where.axis + 1
    return (*view[:axis], 2, where.block // 2, *view[axis + 1 :])


def _shifts(where: Layout) -> jax.Array:
    """By how many bits each half stands to the left: 0, 4."""
    axis, shape = where.axis + 1, _in_halves(where)
    return 4 * jax.lax.broadcasted_iota(
        jnp.int32, (*(1 for _ in shape[:axis]), 2, *(1 for _ in shape[axis + 1 :])), axis
    )


def _halved(where: Layout) -> tuple[int, ...]:
    """The shape of the bytes: the array's, with half as many along the axis of groups."""
    return (
        *where.shape[: where.axis],
        where.groups * where.block // 2,
        *where.shape[where.axis + 1 :],
    )


def _decode_int4(kept: Blocks, shape: tuple[int, ...], *, square: bool, block: int) -> jax.Array:
    where = layout(shape, block)
    halves, axis = _in_halves(where), where.axis + 1
    bytes_ = jnp.expand_dims(
        kept.codes.reshape(*halves[:axis], *halves[axis + 1 :]).astype(jnp.int32), axis
    )
    both = ((bytes_ >> _shifts(where)) & 15).reshape(where.view)
    codes = jnp.where(both > 7, both - 16, both)
    return where.joined(_decode(codes, kept.scale, where, square=False, levels=7), shape)


INT8 = register_codec(
    Codec(
        "int8",
        _encode_int8,
        _decode_int8,
        "2/127 of the group's largest entry, half of it to the nearest, near 0 a quarter; of the root for squares 1/255",
        is_coarse=True,
    )
)
INT4 = register_codec(
    Codec(
        "int4",
        _encode_int4,
        _decode_int4,
        "2/7 of the group's largest entry, half of it to the nearest",
        is_coarse=True,
    )
)
