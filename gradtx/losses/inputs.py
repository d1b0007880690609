"""Read the arrays of a loss: dtypes, shapes and masks, with one sentence for each mistake."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.definition.errors import DtypeError, HyperparamError, StructureError
from gradtx.definition.types import ArrayLike
from gradtx.tree.casts import compute_dtype, is_inexact_dtype

Axis = int | Sequence[int] | None
"""One axis, several, or all of them."""


def float_array(function: str, name: str, value: ArrayLike) -> jax.Array:
    """The argument `name` of a loss, which must be real floats."""
    array = jnp.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        cure = "pass its real part" if jnp.iscomplexobj(array) else "cast with .astype(jnp.float32)"
        raise DtypeError(f"{function}: {name} has dtype {array.dtype}, not real floats; {cure}")
    return array


def probabilities(function: str, name: str, value: ArrayLike) -> jax.Array:
    """The probabilities of classes: real floats, because integers may be meant as indices."""
    array = jnp.asarray(value)
    if jnp.issubdtype(array.dtype, jnp.integer):
        raise DtypeError(
            f"{function}: {name} has dtype {array.dtype}, not probabilities; for class indices "
            f"pass jax.nn.one_hot({name}, number_of_classes)"
        )
    return float_array(function, name, array)


def real_array(function: str, name: str, value: ArrayLike) -> jax.Array:
    """The argument `name` of a loss: real floats, integers or bools."""
    array = jnp.asarray(value)
    if jnp.iscomplexobj(array):
        raise DtypeError(
            f"{function}: {name} has dtype {array.dtype}, not real numbers; pass its real part"
        )
    return array


def class_indices(function: str, labels: ArrayLike) -> jax.Array:
    """The labels of a loss, which must be integers."""
    array = jnp.asarray(labels)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise DtypeError(
            f"{function}: labels has dtype {array.dtype}, not class indices; cast with "
            ".astype(jnp.int32), or take jnp.argmax of probabilities"
        )
    return array


def result_dtype(*values: ArrayLike) -> np.dtype:
    """The dtype of a loss: that of its arrays together, floats at least."""
    with jax.numpy_dtype_promotion("standard"):  # `strict` forbids JAX to decide it
        dtype = np.dtype(jnp.result_type(*values))
    return dtype if is_inexact_dtype(dtype) else np.dtype(jnp.result_type(float))


def promoted(*values: ArrayLike) -> tuple[list[jax.Array], np.dtype]:
    """Arrays in the precision of their arithmetic, float32 at least; and the dtype of the loss.

    All of them have the same number of axes, which `jax_numpy_rank_promotion="raise"` asks for.
    """
    dtype = result_dtype(*values)
    wide = [jnp.asarray(value).astype(compute_dtype(dtype)) for value in values]
    return [with_axes(array, max(one.ndim for one in wide)) for array in wide], dtype


def with_axes(array: jax.Array, count: int) -> jax.Array:
    """The array with axes of size 1 in front, `count` axes at least."""
    return array.reshape((1,) * (count - array.ndim) + array.shape)


def number_like(value: ArrayLike, like: jax.Array) -> jax.Array:
    """A number, or an array that broadcasts, in the dtype and with the axes of another array."""
    return with_axes(jnp.asarray(value).astype(like.dtype), like.ndim)


def check_equal_shapes(function: str, **arrays: jax.Array) -> None:
    """Raise if arrays that are compared entry by entry have different shapes."""
    shapes = [array.shape for array in arrays.values()]
    if any(shape != shapes[0] for shape in shapes):
        cure = "broadcast one with jnp.broadcast_to if that is meant"
        raise StructureError(f"{function}: {_show(arrays)}, not one shape; {cure}")


def common_shape(function: str, **arrays: jax.Array) -> tuple[int, ...]:
    """The shape that arrays broadcast to."""
    try:
        return np.broadcast_shapes(*(array.shape for array in arrays.values()))
    except ValueError:
        raise StructureError(
            f"{function}: {_show(arrays)}, which do not broadcast; the sizes of each axis, "
            "counted from the last, must be equal or 1"
        ) from None


def check_equal_axes(function: str, axes: tuple[int, ...], **arrays: jax.Array) -> None:
    """Raise if arrays differ in size along axes that are counted from the last."""
    for axis in axes:
        sizes = {array.shape[axis] if array.ndim >= -axis else 1 for array in arrays.values()}
        if len(sizes) > 1:
            raise StructureError(
                f"{function}: {_show(arrays)}, whose sizes along axis {axis} differ; the loss sums "
                "along it, so they must be equal"
            )


def axes_of(function: str, axis: Axis, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Axes that a loss reduces, counted from the last: -1, -2, ...

    Arrays with fewer axes then have the same ones.
    """
    count = len(shape)
    axes = range(count) if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)
    for one in axes:
        if not -count <= one < count:
            raise HyperparamError(
                f"{function}: axis {one} is not an axis of an array of shape {shape}; pass one in "
                f"[{-count}, {count})"
            )
    return tuple(sorted({one if one < 0 else one - count for one in axes}))


def mask_of(function: str, where: ArrayLike | None, shape: tuple[int, ...]) -> jax.Array | None:
    """The mask `where` in the shape of the entries that it selects; None selects all."""
    if where is None:
        return None
    mask = jnp.asarray(where)
    if mask.dtype != jnp.bool_:
        raise DtypeError(f"{function}: where has dtype {mask.dtype}, not bools; pass where != 0")
    try:
        return jnp.broadcast_to(mask, shape)
    except ValueError:
        raise StructureError(
            f"{function}: where has shape {mask.shape}, which does not broadcast to {shape}, the "
            "shape of the entries; one bool per entry, or a size of 1 along an axis"
        ) from None


def _show(arrays: dict[str, jax.Array]) -> str:
    return " and ".join(f"{name} has shape {array.shape}" for name, array in arrays.items())
