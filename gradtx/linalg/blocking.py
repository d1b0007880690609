"""Blocks of a matrix: long axes cut evenly into k blocks of ⌈n/k⌉, the last padded with zeros."""

import jax
import jax.numpy as jnp

from gradtx.definition.errors import HyperparamError, StructureError
from gradtx.definition.types import ArrayLike


def block_grid(shape: tuple[int, ...], max_dim: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the number of blocks along rows and columns, and the shape of one block.

    Blocks are as few and as even as `max_dim` allows.

    Args:
      shape: shape of the matrix, or of a batch of them; the last two axes count.
      max_dim: the longest side of a block, 1 or more.

    Raises:
      HyperparamError: max_dim below 1.
      StructureError: fewer than two axes.

    >>> from gradtx.linalg import block_grid
    >>> block_grid((768, 3072), 1024), block_grid((5, 7), 4)
    (((1, 3), (768, 1024)), ((2, 2), (3, 4)))

    See also: `split_blocks`.
    """
    if len(shape) < 2:
        raise StructureError(
            f"block_grid: shape = {shape} is not that of a matrix; give (..., rows, columns)"
        )
    if max_dim < 1:
        raise HyperparamError(f"block_grid: max_dim = {max_dim!r} is below 1")
    rows, columns = (max(1, -(-side // max_dim)) for side in shape[-2:])
    return (rows, columns), (-(-shape[-2] // rows), -(-shape[-1] // columns))


def split_blocks(x: ArrayLike, max_dim: int) -> jax.Array:
    """Split a matrix into blocks whose sides are at most `max_dim` long.

    (..., n, m) becomes (..., k_n, k_m, ⌈n/k_n⌉, ⌈m/k_m⌉). The last blocks are padded with zeros.
    Zero rows and columns add zero to Gram matrices, and stay zero in `orthogonalize` and in
    products with inverse roots. `join_blocks` removes them, so they change nothing. Where the sides
    divide evenly the split is a reshape, and a transposition if columns are cut.

    When: Shampoo and its kin on long axes; roots cost the cube of a side. When not: the whole
    matrix matters, as in Muon.

    Args:
      x: X, (..., n, m), any dtype.
      max_dim: the longest side of a block; 1024 to 8192.

    Raises:
      HyperparamError: max_dim below 1.
      StructureError: fewer than two axes.

    >>> import jax.numpy as jnp
    >>> from gradtx.linalg import join_blocks, split_blocks
    >>> blocks = split_blocks(jnp.arange(6).reshape(2, 3), max_dim=2)
    >>> blocks.tolist()
    [[[[0, 1], [3, 4]], [[2, 0], [5, 0]]]]
    >>> join_blocks(blocks, (2, 3)).tolist()
    [[0, 1, 2], [3, 4, 5]]

    See also: `join_blocks`, `block_grid`.

    Anil and others 2020, arXiv 2002.09018, section 5.
    """
    array = jnp.asarray(x)
    (rows, columns), (height, width) = block_grid(array.shape, max_dim)
    missing = (rows * height - array.shape[-2], columns * width - array.shape[-1])
    if any(missing):
        array = jnp.pad(array, [(0, 0)] * (array.ndim - 2) + [(0, count) for count in missing])
    return array.reshape(*array.shape[:-2], rows, height, columns, width).swapaxes(-3, -2)


def join_blocks(blocks: ArrayLike, shape: tuple[int, ...]) -> jax.Array:
    """Join the blocks of a matrix, without their padding: the inverse of `split_blocks`.

    Args:
      blocks: (..., k_n, k_m, height, width).
      shape: shape of the matrix, (..., n, m).

    Raises:
      StructureError: blocks that are not those of a matrix of this shape.

    >>> import jax.numpy as jnp
    >>> from gradtx.linalg import join_blocks
    >>> join_blocks(jnp.ones((2, 1, 2, 1)), (3, 1)).tolist()
    [[1.0], [1.0], [1.0]]

    See also: `split_blocks`.
    """
    array = jnp.asarray(blocks)
    if array.ndim != len(shape) + 2 or array.ndim < 4 or not _belongs(array.shape, shape):
        raise StructureError(
            f"join_blocks: blocks of shape {array.shape} are not those of a matrix of shape "
            f"{shape}; give the shape before the split"
        )
    *batch, rows, columns, height, width = array.shape
    whole = array.swapaxes(-3, -2).reshape(*batch, rows * height, columns * width)
    return whole[..., : shape[-2], : shape[-1]]


def _belongs(blocks: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether blocks of this shape are an even split of a matrix of that shape."""
    even = all(
        length == -(-side // count)
        for side, count, length in zip(shape[-2:], blocks[-4:-2], blocks[-2:])
        if count
    )
    return blocks[:-4] == tuple(shape[:-2]) and all(blocks[-4:-2]) and even
