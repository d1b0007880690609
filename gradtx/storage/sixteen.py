"""The 16-bit codecs: half the memory, at an error relative to each entry."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.storage.codec import Codec, register_codec
from gradtx.tree.arithmetic import sqrt
from gradtx.tree.rounding import EXPONENT, float_of, to_bfloat16, to_float16, word_of


def _encode_bf16(x: jax.Array, random: jax.Array | None, *, square: bool, block: int) -> jax.Array:
    return to_bfloat16(x, random)


def _decode_bf16(
    encoded: jax.Array, shape: tuple[int, ...], *, square: bool, block: int
) -> jax.Array:
    return encoded.astype(jnp.float32)


def _encode_f16(x: jax.Array, random: jax.Array | None, *, square: bool, block: int) -> jax.Array:
    # The root for squares: float16 ends at 6e-8, and second moments are smaller than that.
    return to_float16(sqrt(x) if square else x, random)


def _decode_f16(
    encoded: jax.Array, shape: tuple[int, ...], *, square: bool, block: int
) -> jax.Array:
    value = encoded.astype(jnp.float32)
    return value * value if square else value


class Corrected(NamedTuple):
    """A bfloat16 and its error: together 16 bits of precision."""

    value: Any
    correction: Any
    """Int8: the rest over half a unit in the last place of `value`, times 127."""


def half_unit(value: jax.Array) -> jax.Array:
    """Half a unit in the last place of a bfloat16, as a float32.

    It is a power of two, and 0 where that would be subnormal.
    """
    return float_of(word_of(value) & EXPONENT) * np.float32(2.0**-8)


def _encode_corrected(
    x: jax.Array, random: jax.Array | None, *, square: bool, block: int
) -> Corrected:
    value = to_bfloat16(x)
    near = value.astype(jnp.float32)
    half = half_unit(near)
    # An infinite value has no error, and the inner `where` avoids a division by 0.
    usable = (half > 0) & jnp.isfinite(near)
    ratio = jnp.where(usable, (x - near) / jnp.where(half > 0, half, 1), 0)
    return Corrected(value, jnp.clip(jnp.round(ratio * 127), -127, 127).astype(jnp.int8))


def _decode_corrected(
    encoded: Corrected, shape: tuple[int, ...], *, square: bool, block: int
) -> jax.Array:
    near = encoded.value.astype(jnp.float32)
    error = encoded.correction.astype(jnp.float32) * np.float32(1 / 127) * half_unit(near)
    return jnp.where(jnp.isfinite(near), near + error, near)


BF16 = register_codec(
    Codec(
        "bf16",
        _encode_bf16,
        _decode_bf16,
        "2⁻⁷ of each entry; half of it to the nearest",
        is_seen=True,
    )
)
F16 = register_codec(
    Codec(
        "f16",
        _encode_f16,
        _decode_f16,
        "2⁻¹⁰ of each entry, or 2⁻²⁴, beyond ±65504 it saturates; of the root for squares",
        jnp.float16,
        is_seen=True,
    )
)
PACKED16 = register_codec(BF16._replace(name="packed16"))
CORRECTED = register_codec(
    Codec("bf16+8", _encode_corrected, _decode_corrected, "2⁻¹⁶ of each entry", parts=Corrected)
)
