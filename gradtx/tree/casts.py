"""Dtypes: what counts as a parameter, and the precision that arithmetic runs in."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.tree.cut_along import cut_along, is_decided_later, join_sharding, sharding_along


@functools.lru_cache(maxsize=256)
def is_inexact_dtype(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.inexact))


def is_inexact(leaf: Any) -> bool:
    """Whether a leaf is optimized: a float or complex array; None, integers, keys are left
    alone.
    """
    if isinstance(leaf, float | complex):
        return True
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and is_inexact_dtype(dtype)


@functools.lru_cache(maxsize=256)
def widest(*dtypes: Any) -> np.dtype:
    """The least dtype that holds all of some dtypes, under strict promotion too."""
    # gradtx decides here that dtypes meet, and casts. `strict` forbids JAX to decide it.
    with jax.numpy_dtype_promotion("standard"):
        return np.dtype(functools.reduce(jnp.promote_types, dtypes))


def promote(*values: Any) -> list[Any]:
    """Values in the least dtype that holds all of them, for a comparison of counts and limits.

    Python numbers stay as they are: JAX gives them the dtype of the others.
    """
    dtype = widest(*map(jnp.result_type, values))
    return [value if type(value) in (int, float) else jnp.asarray(value, dtype) for value in values]


@functools.lru_cache(maxsize=256)
def compute_dtype(dtype: Any) -> np.dtype:
    """The dtype of arithmetic on an array: its own, but float32 at least."""
    with jax.numpy_dtype_promotion("standard"):  # not `widest`: one call less in a cold update
        return np.dtype(jnp.promote_types(dtype, jnp.float32))


@functools.lru_cache(maxsize=256)
def real_dtype(dtype: Any) -> np.dtype:
    """The real dtype of arithmetic on an array: `compute_dtype`, without the imaginary part."""
    return np.finfo(compute_dtype(dtype)).dtype


def mixed_promotion() -> Any:
    """A context in which real numbers and complex arrays meet, as equations of complex arrays want.

    `strict` forbids their products outside of it.
    """
    return jax.numpy_dtype_promotion("standard")


ALIKE = contextlib.nullcontext()
"""The context of real arrays, whose numbers have their dtype: whatever the caller chose."""


def as_array(leaf: Any) -> jax.Array:
    """A leaf as an array; one that is an array already costs nothing."""
    return leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf)


def without_wide_numpy(leaf: Any) -> Any:
    """NumPy's float64 as the float of JAX, without a warning, as `jnp.asarray` casts it."""
    is_wide = isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.char in "dD"
    return jnp.asarray(leaf) if is_wide else leaf


def zeros(like: Any, dtype: Any = None) -> jax.Array:
    """Zeros shaped and sharded like an array, in its compute dtype unless another is asked for."""
    return _zeros_like(like, compute_dtype(like.dtype) if dtype is None else dtype)


def real_zeros(like: Any, dtype: Any = None) -> jax.Array:
    """Zeros for a quantity that is real even where the array is complex, such as a second
    moment.
    """
    return _zeros_like(like, real_dtype(like.dtype) if dtype is None else dtype)


def _zeros_like(like: Any, dtype: Any) -> jax.Array:
    """Zeros shaped like an array, and placed where it is if a user placed it."""
    if isinstance(like, Tracer):
        array = jnp.zeros_like(like, dtype=dtype)
        # A constant that nothing ties to the array would be whole on one device.
        return cut_along(array, like) if is_decided_later(like) else array
    if getattr(like, "committed", True):
        return jnp.zeros_like(like, dtype=dtype)
    # `zeros_like` is five times as slow where nothing is traced, and `init` calls it per slot.
    return _zeros_program(like.shape, jnp.dtype(dtype))()


@functools.lru_cache(maxsize=4096)
def _zeros_program(shape: tuple[int, ...], dtype: np.dtype) -> Callable[[], jax.Array]:
    """The compiled program that makes such zeros."""
    return jax.jit(functools.partial(jnp.zeros, shape, dtype))


def float_copy(like: Any) -> jax.Array:
    """An array of its own, in the compute dtype; zeros where only the shape is known."""
    return (
        zeros(like)
        if isinstance(like, jax.ShapeDtypeStruct)
        else jnp.array(like, dtype=compute_dtype(as_array(like).dtype), copy=True)
    )


def real_zeros_along(like: Any, axes: Sequence[int]) -> jax.Array:
    """Real zeros with some axes of an array alone, sharded as the array is along them: for what is
    kept per row or per column.
    """
    return zeros_along(like, tuple(like.shape[axis] for axis in axes), real_dtype(like.dtype), axes)


def zeros_stacked(like: Any, count: int) -> jax.Array:
    """Zeros for a number of arrays like one, along a new first axis, each sharded as that is."""
    return zeros_along(
        like, (count, *like.shape), compute_dtype(like.dtype), (None, *range(like.ndim))
    )


def zeros_along(
    like: Any, shape: tuple[int, ...], dtype: Any, axes: Sequence[int | None]
) -> jax.Array:
    """Zeros of which each axis is sharded as one of an array, or not at all."""
    if jnp.issubdtype(dtype, jax.dtypes.extended):
        return jax.lax.full(shape, 0, dtype)  # random keys
    sharding = sharding_along(shape, like, axes)
    if sharding is None:
        array = jnp.zeros(shape, dtype)
        return join_sharding(array, like, axes) if is_decided_later(like) else array
    return jnp.zeros(shape, dtype, device=sharding)


def full(like: Any, value: Any) -> jax.Array:
    """A real constant, shaped and sharded like an array."""
    return real_zeros(like) + jnp.asarray(value, real_dtype(like.dtype))


def cast_inexact(value: Any, dtype: Any) -> jax.Array:
    """A float or complex array in `dtype`; anything else as it is.

    Real arrays stay real where `dtype` is complex; where it is real, complex ones lose nothing but
    zeros, since a slot of a real parameter may have a complex dtype.
    """
    array = jnp.asarray(value)
    if not is_inexact_dtype(array.dtype):
        return array
    if not jnp.iscomplexobj(array):
        return array.astype(real_dtype(dtype))
    is_complex = jnp.issubdtype(dtype, jnp.complexfloating)
    return array.astype(dtype) if is_complex else array.real.astype(dtype)
