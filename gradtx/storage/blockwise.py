r"""Block-wise codes of 8 and 4 bits: integers, and one bfloat16 scale per group of `block` entries.

With s = max |x| over the group, rounded up to bfloat16, and n = 127 or 7:

    first moments   z = 2 |x|/s / (1 + |x|/s),   code = ± round(n z),   decoded |x| = s z / (2 − z)
    squares         code = round(255 √x / √s),                          decoded x = s (code/255)²

The map of first moments is steeper at 0, where most entries are. A square that is not 0 never has
the code 0, so that a division by its root stays bounded. Groups lie along the last axis but one. In
a long vector several groups lie side by side, so that the maximum of a group runs across rows. This
moves no data on a TPU, and runs in full vectors on a CPU.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.storage.codec import Codec, register_codec
from gradtx.storage.two_passes import mark_scale
from gradtx.tree.arithmetic import sqrt
from gradtx.tree.rounding import EXPONENT, HIGH_HALF, float_of, fraction

LANES = 128
"""The number of groups of a long vector that lie side by side."""


class Blocks(NamedTuple):
    """An array in codes."""

    codes: Any
    """One or half a byte per entry; one byte codes have the shape of the array."""
    scale: Any
    """Bfloat16, one per group."""


class Layout(NamedTuple):
    """The groups of an array: in `view`, each has `block` entries along its own axis."""

    shape: tuple[int, ...]
    """The shape of the array, or of a long vector as rows of LANES."""
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
        """The number of entries that the last group lacks."""
        return self.groups * self.block - self.shape[self.axis]

    def grouped(self, array: jax.Array) -> jax.Array:
        """The array with an axis of groups and an axis of entries, padded with zeros."""
        array = array.reshape(self.shape)
        if self.padding:
            widths = [(0, self.padding if axis == self.axis else 0) for axis in range(array.ndim)]
            array = jnp.pad(array, widths)
        return array.reshape(self.view)

    def joined(self, array: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The inverse of `grouped`."""
        before, after = self.shape[: self.axis], self.shape[self.axis + 1 :]
        whole = array.reshape(*before, self.groups * self.block, *after)
        if self.padding:
            whole = jax.lax.slice_in_dim(whole, 0, self.shape[self.axis], axis=self.axis)
        return whole.reshape(shape)


@functools.lru_cache(maxsize=1024)
def layout(shape: tuple[int, ...], block: int) -> Layout:
    """Choose the axis of groups: the last but one, or the last, if `block` divides its length.

    If it divides neither, the longer of the two is padded.
    """
    if len(shape) == 1 and shape[0] % (block * LANES) == 0:
        return Layout((shape[0] // LANES, LANES), 0, block)
    axes = [axis for axis in (len(shape) - 2, len(shape) - 1) if axis >= 0]
    whole = [axis for axis in axes if shape[axis] % block == 0]
    return Layout(shape, whole[0] if whole else max(axes, key=lambda axis: shape[axis]), block)


def _scale(magnitudes: jax.Array, axis: int) -> jax.Array:
    """The largest entry of each group, rounded up to bfloat16; inf where one is inf or nan."""
    # Rounded up, so that no ratio exceeds 1.
    word = (largest_word(magnitudes, axis) + np.uint32(0xFFFF)) & HIGH_HALF
    return mark_scale(float_of(word).astype(jnp.bfloat16))


def largest_word(x: jax.Array, axis: int) -> jax.Array:
    """The bits of the largest magnitude along an axis, float32; inf where one is inf or nan."""
    # Without the sign, floats are in the order of their bits, nan after inf. So the maximum reads
    # each entry once; where it also compared with nan, XLA would write the entries to memory.
    words = jax.lax.bitcast_convert_type(x, jnp.int32) & np.int32(0x7FFFFFFF)
    return jnp.minimum(jnp.max(words, axis=axis), np.int32(EXPONENT)).astype(jnp.uint32)


def _inverse(scale: jax.Array) -> jax.Array:
    return jnp.where((scale > 0) & (scale < jnp.inf), 1 / scale, 0)


def _rounded(x: jax.Array, random: jax.Array | None) -> jax.Array:
    # Half up, in the form that every compiler supports.
    return jnp.floor(x + (np.float32(0.5) if random is None else fraction(random)))


def _encode(
    x: jax.Array, random: jax.Array | None, *, square: bool, block: int, levels: int
) -> Blocks:
    view = layout(x.shape, block)
    grouped = view.grouped(x)
    noise = None if random is None else view.grouped(random)
    root = sqrt(grouped) if square else jnp.abs(grouped)
    scale = _scale(root, view.axis + 1)
    ratio = root * _inverse(jnp.expand_dims(scale, view.axis + 1).astype(jnp.float32))
    if square:
        codes = jnp.clip(_rounded(ratio * 255, noise), 0, 255)
        # A square that is not 0 keeps a root to divide by.
        codes = jnp.where(root > 0, jnp.maximum(codes, 1), codes)
    else:
        sign = jnp.where(grouped < 0, -1.0, 1.0)
        companded = sign * (2 * levels * ratio / (1 + ratio))
        codes = jnp.clip(_rounded(companded, noise), -levels, levels)
    codes = codes.astype(jnp.int32).astype(jnp.uint8 if square else jnp.int8)
    return Blocks(codes, scale)


def _decode(
    codes: jax.Array, scale: jax.Array, view: Layout, *, square: bool, levels: int
) -> jax.Array:
    scale = jnp.expand_dims(scale.astype(jnp.float32), view.axis + 1)
    codes = codes.astype(jnp.int32).astype(jnp.float32)
    if square:
        root = codes * np.float32(1 / 255) * scale
        return root * root
    z = codes * np.float32(1 / levels)
    return scale * (z / (2 - jnp.abs(z)))


def _encode_int8(x: jax.Array, random: jax.Array | None, *, square: bool, block: int) -> Blocks:
    blocks = _encode(x, random, square=square, block=block, levels=127)
    return blocks._replace(codes=layout(x.shape, block).joined(blocks.codes, x.shape))


def _decode_int8(blocks: Blocks, shape: tuple[int, ...], *, square: bool, block: int) -> jax.Array:
    view = layout(shape, block)
    grouped = view.grouped(blocks.codes)
    return view.joined(_decode(grouped, blocks.scale, view, square=square, levels=127), shape)


def _encode_int4(x: jax.Array, random: jax.Array | None, *, square: bool, block: int) -> Blocks:
    """Put two codes in a byte: of the first and of the second half of a group."""
    view = layout(x.shape, block)
    blocks = _encode(x, random, square=square, block=block, levels=7)
    halves = (blocks.codes.astype(jnp.int32) & 15).reshape(_in_halves(view))
    codes = jnp.sum(halves << _shifts(view), axis=view.axis + 1).astype(jnp.uint8)
    # The shape of the bytes is that of the array, with half as many along the axis of groups.
    before, after = view.shape[: view.axis], view.shape[view.axis + 1 :]
    return blocks._replace(codes=codes.reshape(*before, view.groups * view.block // 2, *after))


def _in_halves(view: Layout) -> tuple[int, ...]:
    """The shape of the view with the two halves of each group along an axis of their own."""
    shape, axis = view.view, view.axis + 1
    return (*shape[:axis], 2, view.block // 2, *shape[axis + 1 :])


def _shifts(view: Layout) -> jax.Array:
    """The shift of each half to the left, in bits: 0, 4."""
    axis, ndim = view.axis + 1, len(_in_halves(view))
    shape = tuple(2 if index == axis else 1 for index in range(ndim))
    return 4 * jax.lax.broadcasted_iota(jnp.int32, shape, axis)


def _decode_int4(blocks: Blocks, shape: tuple[int, ...], *, square: bool, block: int) -> jax.Array:
    view = layout(shape, block)
    halves, axis = _in_halves(view), view.axis + 1
    pairs = blocks.codes.reshape(*halves[:axis], *halves[axis + 1 :]).astype(jnp.int32)
    nibbles = (jnp.expand_dims(pairs, axis) >> _shifts(view)) & 15
    codes = nibbles.reshape(view.view)
    codes = jnp.where(codes > 7, codes - 16, codes)  # the sign of 4 bits
    return view.joined(_decode(codes, blocks.scale, view, square=False, levels=7), shape)


INT8 = register_codec(
    Codec(
        "int8",
        _encode_int8,
        _decode_int8,
        "2/127 of the group's largest entry, half of it to the nearest, near 0 a quarter; "
        "of the root for squares 1/255",
        is_coarse=True,
        parts=Blocks,
    )
)
INT4 = register_codec(
    Codec(
        "int4",
        _encode_int4,
        _decode_int4,
        "2/7 of the group's largest entry, half of it to the nearest",
        is_coarse=True,
        parts=Blocks,
    )
)
