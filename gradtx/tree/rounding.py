"""Rounding float32 to fewer bits, to the nearest or stochastically, with random bits from a
counter-based hash.

Stochastic rounding goes up with the probability that makes it right in the mean: for x between
neighbours a < b it gives b with probability (x − a)/(b − a). Its bits are a hash of step, leaf, and
position in the leaf, so that there is no key to keep, and the result is the same however the array
is divided among devices."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

EXPONENT, HIGH_HALF = np.uint32(0x7F800000), np.uint32(0xFFFF0000)
"""Of a float32 word: the bits of its exponent, and those that bfloat16 keeps."""
GOLDEN = np.uint32(0x9E3779B1)
"""2³² over the golden ratio, made odd: its multiples fill the range evenly."""


OF_PARAMS = 1022
"""The number of the random bits that new parameters are rounded with; slots have smaller ones."""


class Noise(NamedTuple):
    """Random bits for one array at one step."""

    seed: Any
    """A uint32 that depends on step and leaf."""
    position: Any = None
    """Where each entry is in the whole array, uint32; None: this is the whole array."""

    def sixteen(self, shape: tuple[int, ...], number: int) -> jax.Array:
        """Uniform integers in [0, 2¹⁶) as uint32, for slot `number` of the leaf: two slots share
        one hash, each with half of its bits.
        """
        where = positions(shape) if self.position is None else self.position
        word = _mixed(
            where * GOLDEN + (self.seed + np.uint32((number // 2) * 0x632BE5AB & 0xFFFFFFFF))
        )
        return word >> np.uint32(16) if number % 2 else word & np.uint32(0xFFFF)


def noise(step: Any, leaf: Any) -> Noise:
    """The noise of one leaf, by the hash of its path, at one step."""
    first = _mixed(jnp.asarray(step).astype(jnp.uint32) * GOLDEN + np.uint32(1))
    return Noise(
        _mixed((first ^ jnp.asarray(leaf, jnp.uint32)) * np.uint32(0x85EBCA77) + np.uint32(1))
    )


def _mixed(word: jax.Array) -> jax.Array:
    """The bits of a word, every one of the upper half an odd mixture of all."""
    word = (word ^ (word >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
    return word ^ (word >> np.uint32(16))


def positions(
    shape: tuple[int, ...],
    offsets: tuple[Any, ...] | None = None,
    whole: tuple[int, ...] | None = None,
) -> jax.Array:
    """The number of every entry in row-major order, modulo 2³²; of a part of an array, its offsets
    and the shape of the whole are given.
    """
    whole = shape if whole is None else whole
    strides = [
        int(np.prod(whole[axis + 1 :], dtype=np.uint64)) & 0xFFFFFFFF for axis in range(len(shape))
    ]
    total = jnp.zeros(shape, jnp.uint32)
    for axis, stride in enumerate(strides):
        along = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        along = along if offsets is None else along + jnp.asarray(offsets[axis]).astype(jnp.uint32)
        total = total + along * np.uint32(stride)
    return total


def word_of(x: jax.Array) -> jax.Array:
    """The bits of a float32."""
    return jax.lax.bitcast_convert_type(x, jnp.uint32)


def float_of(word: jax.Array) -> jax.Array:
    """The float32 that has these bits."""
    return jax.lax.bitcast_convert_type(word, jnp.float32)


def bfloat16_word(x: jax.Array, random: jax.Array | None) -> jax.Array:
    """x rounded to bfloat16, as the float32 word whose lower half is 0; `random` in [0, 2¹⁶), or
    None for the nearest, ties to even.

    Inf and nan stay what they are. Error: at most one unit in the last place, 2⁻⁷ |x|, and half of
    it to the nearest."""
    word = word_of(x)
    up = np.uint32(0x7FFF) + ((word >> np.uint32(16)) & np.uint32(1)) if random is None else random
    return (
        word + jnp.where(jnp.isnan(x), jnp.zeros_like(up), up)
    ) & HIGH_HALF  # inf has a lower half of 0, which nothing carries out of


def to_bfloat16(x: jax.Array, random: jax.Array | None = None) -> jax.Array:
    """x in bfloat16, rounded as `bfloat16_word` says."""
    return jax.lax.bitcast_convert_type(
        (bfloat16_word(x, random) >> np.uint32(16)).astype(jnp.uint16), jnp.bfloat16
    )


def to_float16(x: jax.Array, random: jax.Array | None = None) -> jax.Array:
    """x in float16; finite numbers beyond ±65504 become that. Inf and nan stay what they are.

    Error: at most one unit in the last place, 2⁻¹⁰ |x| or 2⁻²⁴, and half of it to the nearest.
    """
    power = float_of(word_of(x) & EXPONENT)
    unit = jnp.maximum(power * np.float32(2.0**-10), np.float32(2.0**-24))
    rounded = jnp.round(x / unit) if random is None else jnp.floor(x / unit + fraction(random))
    return jnp.where(jnp.isfinite(x), jnp.clip(rounded * unit, -65504.0, 65504.0), x).astype(
        jnp.float16
    )


def rounded_to(x: jax.Array, dtype: Any, random: jax.Array | None) -> jax.Array:
    """x in a dtype; stochastically rounded if it is one of 16 bits and random bits are given."""
    if random is None or x.dtype != jnp.float32 or dtype not in (jnp.bfloat16, jnp.float16):
        return x.astype(dtype)
    return to_bfloat16(x, random) if dtype == jnp.bfloat16 else to_float16(x, random)


@jax.custom_jvp
def order_after(array: jax.Array, other: jax.Array) -> jax.Array:
    """A 16-bit array that XLA:CPU writes after another.

    It works out new parameters from the old slots, not from the new ones in memory; were these
    written first, it would copy the old."""
    return jax.lax.platform_dependent(array, other, cpu=add_opaque_zero, default=_same)


@order_after.defjvp
def _written_after_jvp(
    arrays: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    return order_after(*arrays), tangents[0]


def _same(array: jax.Array, other: jax.Array) -> jax.Array:
    return array


def add_opaque_zero(array: jax.Array, other: jax.Array) -> jax.Array:
    """The bits of an array plus 0, which depends on the first entry of the other in a way that no
    compiler sees through.
    """
    first = word_of(other[(0,) * other.ndim].astype(jnp.float32))
    bits = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint64}[array.dtype.itemsize]
    nothing = jnp.minimum((first >> np.uint32(1)).astype(jnp.int32), 0).astype(bits)
    return jax.lax.bitcast_convert_type(
        jax.lax.bitcast_convert_type(array, bits) + nothing, array.dtype
    )


@jax.custom_jvp
def straight_through(rounded: jax.Array, exact: jax.Array) -> jax.Array:
    """A rounded array that has the derivatives of the exact one, rounding having none."""
    return rounded


@straight_through.defjvp
def _in_place_of_jvp(
    arrays: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    return straight_through(*arrays), tangents[1]


def fraction(random: jax.Array) -> jax.Array:
    """Integers in [0, 2¹⁶) as numbers in (0, 1), evenly about 1/2."""
    return (random.astype(jnp.int32).astype(jnp.float32) + np.float32(0.5)) * np.float32(2.0**-16)
