"""The dynamic 8-bit code of Dettmers: 256 numbers whose distance grows with their size, for
comparison with `int8`.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.storage.blockwise import Blocks
from gradtx.storage.codec import Codec, register_codec
from gradtx.tree.rounding import fraction


@functools.lru_cache(maxsize=2)
def dynamic_code(signed: bool) -> np.ndarray:
    """The 256 numbers of the code, in order: seven decades, each with twice as many numbers as the
    one below, and 0 and 1.

    Dettmers et al. 2021, 8-bit Optimizers via Block-wise Quantization, arXiv:2110.02861, section
    1.2."""
    found = [0.0, 1.0]
    for decade in range(7):
        count = 2**decade if signed else 2 ** (decade + 1)
        edges = np.linspace(0.1, 1.0, count + 1)
        values = 10.0 ** (decade - 6) * (edges[:-1] + edges[1:]) / 2
        found += [*values, *(-values if signed else ())]
    return np.sort(np.asarray(found, np.float32))


def _blocks(x: jax.Array, block: int) -> jax.Array:
    """The entries in row-major order, in rows of 8 blocks, zeros behind the last."""
    flat = x.reshape(-1)
    return jnp.pad(flat, (0, -flat.size % (8 * block))).reshape(-1, 8 * block)


def _encode(x: jax.Array, random: jax.Array | None, *, square: bool, block: int) -> Blocks:
    """The nearest of the code, or by chance one of the two neighbours; groups of 8 blocks, 256
    entries, as the paper's successors.
    """
    rows, code = _blocks(x, block), jnp.asarray(dynamic_code(not square))
    scale = jnp.max(jnp.where(jnp.isnan(rows), jnp.inf, jnp.abs(rows)), axis=1, keepdims=True)
    ratio = jnp.where((scale > 0) & (scale < jnp.inf), rows / jnp.where(scale > 0, scale, 1), 0)
    above = jnp.clip(jnp.searchsorted(code, ratio, side="left"), 1, 255)
    low, high = code[above - 1], code[above]
    share = 0.5 if random is None else fraction(_blocks(random, block))
    codes = jnp.where(ratio - low > share * (high - low), above, above - 1)
    if square:
        codes = jnp.where(rows > 0, jnp.maximum(codes, 1), codes)
    return Blocks(codes.astype(jnp.uint8).reshape(-1)[: x.size].reshape(x.shape), scale[:, 0])


def _decode(kept: Blocks, shape: tuple[int, ...], *, square: bool, block: int) -> jax.Array:
    values = (
        jnp.asarray(dynamic_code(not square))[_blocks(kept.codes, block).astype(jnp.int32)]
        * kept.scale[:, None]
    )
    return values.reshape(-1)[: math.prod(shape)].reshape(shape)


DYNAMIC8 = register_codec(
    Codec(
        "dynamic8",
        _encode,
        _decode,
        "a tenth of each entry down to 1e-6 of the group's largest",
        is_coarse=True,
    )
)
