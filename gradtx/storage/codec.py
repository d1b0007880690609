"""What a codec is, and the codecs by name."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.definition.errors import GradtxError


class Codec(NamedTuple):
    """A pair of pure functions on one float32 array: how it is kept, and how it is read."""

    name: str
    encode: Callable[..., Any]
    """`encode(x, random, *, square, block)`: an array or a NamedTuple of arrays; `random` in [0,
    2¹⁶), or None to round to the nearest.
    """
    decode: Callable[..., jax.Array]
    """`decode(kept, shape, *, square, block)`: the float32 array of that shape."""
    bound: str
    """The largest error, in words."""
    kept_dtype: Any = jnp.bfloat16
    """The dtype of what is kept, where it is one array: by it a slot in codes is told from one that
    was left as it was.
    """
    is_coarse: bool = False
    """Whether errors are relative to the largest entry of a block, not to each entry; embeddings
    are then kept in float32 by default.
    """
    is_seen: bool = False
    """Whether the update of the same step sees what was kept, so that it is the only copy there is
    in memory.
    """


CODECS: dict[str, Codec] = {}
"""Every codec by name; `register_codec` adds to it."""


def register_codec(codec: Codec) -> Codec:
    """Make a codec known by its name.

    Args:
      codec: the codec; its functions stand at module level.

    Raises:
      GradtxError: the name is taken.
    """
    if codec.name in CODECS:
        raise GradtxError(
            f"there is a codec {codec.name!r} already; the names are {', '.join(CODECS)}"
        )
    CODECS[codec.name] = codec
    return codec


def codec_named(name: str, where: str) -> Codec:
    """The codec of a name, or an error that lists those there are."""
    if name not in CODECS:
        raise GradtxError(
            f"{where} = {name!r} is no codec; the codecs are {', '.join(map(repr, CODECS))}, and 'float32' for none"
        )
    return CODECS[name]
