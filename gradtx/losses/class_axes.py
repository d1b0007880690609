"""The axes of the classes, the labels along them, and masks of examples or of classes."""

import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx.definition.errors import DtypeError, StructureError
from gradtx.losses.inputs import class_indices

Axes = int | Sequence[int] | None


def index_array(where: str, labels: ArrayLike) -> jax.Array:
    """Class indices, in int32 at least: a narrow dtype may not hold the number of classes."""
    array = class_indices(where, labels)
    return array.astype(jnp.int32) if array.dtype.itemsize < 4 else array


def count_from_zero(index: jax.Array, classes: int) -> jax.Array:
    """Indices that do not count from the end; those out of range are `classes`."""
    index = jnp.where(index < 0, index + classes, index)
    return jnp.where(index < 0, classes, index)


def axes_of(where: str, shape: tuple[int, ...], axis: Axes) -> tuple[int, ...]:
    """The axes as numbers from 0, in the order of the caller; all axes for None."""
    if axis is None:
        return tuple(range(len(shape)))
    numbers = [operator.index(one) for one in ([axis] if isinstance(axis, int) else axis)]
    axes = tuple(one + len(shape) if one < 0 else one for one in numbers)
    if len(set(axes)) < len(axes) or any(not 0 <= one < len(shape) for one in axes):
        raise StructureError(
            f"{where}: axis={axis} does not name different axes of logits of shape {shape}"
        )
    return axes


def class_mask(
    where: str, mask: ArrayLike | None, shape: tuple[int, ...], axes: tuple[int, ...]
) -> jax.Array | None:
    """A mask with as many axes as the logits.

    A mask of fewer axes has one entry per example: it has no class axes.
    """
    if mask is None:
        return None
    array = jnp.asarray(mask)
    if array.dtype != jnp.bool_:
        raise DtypeError(f"{where}: where has dtype {array.dtype}, not bools; pass where != 0")
    full = array
    if array.ndim and array.ndim + len(axes) == len(shape):
        full = jnp.expand_dims(array, axes)
    if common_shape(full.shape, shape) != shape:
        raise StructureError(
            f"{where}: where has shape {array.shape}, which fits neither logits of shape {shape} "
            f"nor those without axis {show_axes(axes)}"
        )
    return full if full.ndim else full.reshape((1,) * len(shape))


def common_shape(*shapes: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape that arrays broadcast to; None: they do not."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        return None


def show_axes(axes: tuple[int, ...]) -> str:
    return str(axes[0] if len(axes) == 1 else axes)
