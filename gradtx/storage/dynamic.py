"""The dynamic 8-bit code of Dettmers, for comparison with `int8`.

The distance between its 256 numbers grows with their size.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.storage.blockwise import Blocks, largest_word
from gradtx.storage.codec import Codec, register_codec
from gradtx.storage.two_passes import mark_scale
from gradtx.tree.rounding import float_of, fraction


@functools.lru_cache(maxsize=2)
def dynamic_code(signed: bool) -> np.ndarray:
    """The 256 numbers of the code, in order.

    They are 0, 1, and seven decades, each with twice as many numbers as the one below. Dettmers et
    al. 2021, 8-bit Optimizers via Block-wise Quantization, arXiv:2110.02861, section 1.2.
    """
    numbers = [0.0, 1.0]
    for decade in range(7):
        count = 2**decade if signed else 2 ** (decade + 1)
        edges = np.linspace(0.1, 1.0, count + 1)
        values = 10.0 ** (decade - 6) * (edges[:-1] + edges[1:]) / 2
        numbers += [*values, *(-values if signed else ())]
    return np.sort(np.asarray(numbers, np.float32))


def _blocks(x: jax.Array, block: int) -> jax.Array:
    """The entries in row-major order, in rows of 8 blocks, padded with zeros."""
    flat = x.reshape(-1)
    return jnp.pad(flat, (0, -flat.size % (8 * block))).reshape(-1, 8 * block)


def _encode(x: jax.Array, random: jax.Array | None, *, square: bool, block: int) -> Blocks:
    """Round to the nearest number of the code, or randomly to one of the two neighbors.

    A group has 8 blocks, 256 entries, as in the successors of the paper.
    """
    rows, code = _blocks(x, block), jnp.asarray(dynamic_code(not square))
    scale = mark_scale(float_of(largest_word(rows, 1)))[:, None]
    # A group of zeros and a group with inf have ratios of 0; the inner `where` avoids 0/0.
    ratio = jnp.where((scale > 0) & (scale < jnp.inf), rows / jnp.where(scale > 0, scale, 1), 0)
    above = jnp.clip(jnp.searchsorted(code, ratio, side="left"), 1, 255)
    low, high = code[above - 1], code[above]
    share = 0.5 if random is None else fraction(_blocks(random, block))
    codes = jnp.where(ratio - low > share * (high - low), above, above - 1)
    if square:
        # A square that is not 0 keeps a root to divide by.
        codes = jnp.where(rows > 0, jnp.maximum(codes, 1), codes)
    return Blocks(codes.astype(jnp.uint8).reshape(-1)[: x.size].reshape(x.shape), scale[:, 0])


def _decode(blocks: Blocks, shape: tuple[int, ...], *, square: bool, block: int) -> jax.Array:
    code = jnp.asarray(dynamic_code(not square))
    values = code[_blocks(blocks.codes, block).astype(jnp.int32)] * blocks.scale[:, None]
    return values.reshape(-1)[: math.prod(shape)].reshape(shape)


DYNAMIC8 = register_codec(
    Codec(
        "dynamic8",
        _encode,
        _decode,
        "a tenth of each entry down to 1e-6 of the group's largest",
        is_coarse=True,
        parts=Blocks,
    )
)
