"""The codes of zeros, which a state starts with: constants, cut as the array is."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from gradtx.storage.codec import Codec
from gradtx.tree.known_shardings import known_sharding

SMALL = 2**20
"""The most bytes of a constant that the host makes."""


def zero_codes(codec: Codec, slot: jax.Array, square: bool, block: int) -> Any:
    """The codes of an array of zeros; None where they are not alike everywhere."""
    values = _values(codec, square, block)
    if values is None:
        return None
    shapes = _shapes(codec, square, block, slot.shape)
    return jax.tree.map(functools.partial(_full, slot), shapes, values)


@functools.lru_cache(maxsize=1024)
def _values(codec: Codec, square: bool, block: int) -> Any:
    """The number that each array of the codes consists of, by a trial on a few blocks."""
    encode = functools.partial(codec.encode, random=None, square=square, block=block)
    with jax.ensure_compile_time_eval():
        trial = jnp.zeros((2 * block, 16 * block), jnp.float32)
        codes = jax.device_get(jax.jit(encode)(trial))
    parts = jax.tree.leaves(codes)
    if any((one != one.flat[0]).any() for one in parts):
        return None
    return jax.tree.map(lambda one: np.asarray(one).flat[0], codes)


@functools.lru_cache(maxsize=8192)
def _shapes(codec: Codec, square: bool, block: int, shape: tuple[int, ...]) -> Any:
    encode = functools.partial(codec.encode, random=None, square=square, block=block)
    return jax.eval_shape(encode, jax.ShapeDtypeStruct(shape, jnp.float32))


def _full(slot: jax.Array, like: jax.ShapeDtypeStruct, value: Any) -> jax.Array:
    """A constant where the slot is: cut along the same axes, where the sizes allow it."""
    sharding = known_sharding(slot)
    if sharding is not None:
        spec = _fitted(like.shape, slot.ndim, sharding)
        placed = NamedSharding(sharding.mesh, spec)
    else:
        placed = slot.sharding if getattr(slot, "committed", False) else None
    if like.size * like.dtype.itemsize <= SMALL and slot.is_fully_addressable:
        # A transfer takes less time than the compilation of a program for each shape.
        return jax.device_put(np.full(like.shape, value, like.dtype), placed)
    return _program(like.shape, like.dtype, value.item(), placed)()


@functools.lru_cache(maxsize=4096)
def _program(shape: tuple[int, ...], dtype: Any, value: float, placed: Any) -> Any:
    """The compiled program that makes the constant."""
    return jax.jit(functools.partial(jnp.full, shape, value, dtype), out_shardings=placed)


def _fitted(shape: tuple[int, ...], ndim: int, sharding: NamedSharding) -> PartitionSpec:
    if len(shape) != ndim:
        return PartitionSpec()
    axes = (*sharding.spec, *(None,) * ndim)[:ndim]
    cut = zip(shape, axes, strict=True)
    return PartitionSpec(
        *(one if _divides(sharding.mesh, one, size) else None for size, one in cut)
    )


def _divides(mesh: Any, axes: Any, size: int) -> bool:
    names = axes if isinstance(axes, tuple) else () if axes is None else (axes,)
    return size % int(np.prod([mesh.shape[name] for name in names], dtype=int)) == 0
