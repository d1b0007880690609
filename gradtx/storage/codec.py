"""Codecs: how an array is stored in fewer bits, and the codecs by name."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from gradtx.definition.errors import GradtxError
from gradtx.tree.placement import fit_sharding, run_auto


class Codec(NamedTuple):
    """A pair of pure functions on one float32 array: encode and decode."""

    name: str
    encode: Callable[..., Any]
    """`encode(x, random, *, square, block)`: an array or a NamedTuple of arrays.

    `random` holds bits in [0, 2¹⁶); None rounds to the nearest.
    """
    decode: Callable[..., jax.Array]
    """`decode(encoded, shape, *, square, block)`: the float32 array of that shape."""
    bound: str
    """A description of the largest error."""
    kept_dtype: Any = jnp.bfloat16
    """The dtype of an encoded array, if it is one array; it tells encoded slots from others."""
    is_coarse: bool = False
    """Whether errors are relative to the largest entry of a block, not to each entry.

    Embeddings then stay float32 by default.
    """
    is_seen: bool = False
    """Whether the update of the same step uses the encoded slot: memory holds no other copy."""
    parts: type[Any] | None = None
    """The NamedTuple of arrays that `encode` returns; None: it returns one array.

    A state holds each of the arrays under a name of its own, `mu_codes` and `mu_scale`.
    """


def encode_array(
    codec: Codec, x: jax.Array, random: jax.Array | None, *, square: bool, block: int
) -> Any:
    """Encode an array in float32; its codes are cut as it is, where its type says how."""
    encode = functools.partial(codec.encode, square=square, block=block)
    mesh, x = jax.typeof(x).sharding.mesh, x.astype(jnp.float32)
    if not mesh.explicit_axes:
        return encode(x, random)
    plain = (
        None if one is None else jax.ShapeDtypeStruct(one.shape, one.dtype) for one in (x, random)
    )
    like = jax.tree.map(lambda one: fit_sharding(one.shape, x), jax.eval_shape(encode, *plain))
    return run_auto(encode, mesh, like, x, random)


def decode_array(
    codec: Codec, encoded: Any, shape: tuple[int, ...], *, square: bool, block: int
) -> jax.Array:
    """Decode an array to float32, cut as its codes are."""
    decode = functools.partial(codec.decode, shape=shape, square=square, block=block)
    codes = jax.tree.leaves(encoded)[0]
    mesh = jax.typeof(codes).sharding.mesh
    if not mesh.explicit_axes:
        return decode(encoded)
    return run_auto(decode, mesh, fit_sharding(shape, codes), encoded)


OwnCodec = Literal["int8", "int4", "dynamic8", "bf16", "f16", "packed16", "bf16+8", "float32"]
"""The names of gradtx's codecs, and "float32" for none."""
if TYPE_CHECKING:
    CodecName = OwnCodec  # a checker sees a misspelt name
else:
    CodecName = str  # `register_codec` adds names

CODECS: dict[str, Codec] = {}
"""Every codec by name; `register_codec` adds one."""


def register_codec(codec: Codec) -> Codec:
    """Register a codec by its name.

    Args:
      codec: the codec; its functions must be at module level.

    Raises:
      GradtxError: the name is taken.
    """
    if codec.name in CODECS:
        raise GradtxError(
            f"there is a codec {codec.name!r} already; the names are {', '.join(sorted(CODECS))}"
        )
    CODECS[codec.name] = codec
    return codec


def codec_named(name: str, where: str) -> Codec:
    """Return the codec of a name, or raise an error that lists all names."""
    if name not in CODECS:
        # In an order that does not follow which module was imported first.
        own = [one for one in get_args(OwnCodec) if one in CODECS]
        names = dict.fromkeys([*own, *CODECS])
        raise GradtxError(
            f"{where} = {name!r} is not a codec; the codecs are "
            f"{', '.join(map(repr, names))}, and 'float32' for none"
        )
    return CODECS[name]
