"""Sums over devices inside `shard_map` and `pmap`, where a device holds a part of an array."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from gradtx.tree.errors import GradtxError, StructureError

Names = tuple[str, ...]
AxisSpec = str | Sequence[str] | PartitionSpec | None
"""The mesh axes that cut an array: a name, several, or the entry of each axis of the array."""


_WHOLE: ContextVar[Any] = ContextVar("whole", default=None)


@contextlib.contextmanager
def whole_arrays(axis_names: Any) -> Iterator[None]:
    """Trace a function of whole arrays, which `axis_names` cuts later."""
    token = _WHOLE.set((axis_names,))
    try:
        yield
    finally:
        _WHOLE.reset(token)


def outer_axis_names() -> tuple[Any, ...]:
    """The `axis_names` for which a function of whole arrays is traced, alone; () for no such."""
    return _WHOLE.get() or ()


def varying(array: Any) -> frozenset[str]:
    """The manual axes over which a value differs, as its type says; none without `check_vma`."""
    return jax.typeof(array).manual_axis_type.varying


def manual_axes() -> Names:
    """The axes of the `shard_map` or `pmap` that is traced, where they may cut arrays."""
    return () if outer_axis_names() else tuple(jax.sharding.get_abstract_mesh().manual_axes)


def is_checked() -> bool:
    """Whether types say over which axes a value differs: `check_vma=True`."""
    manual = jax.sharding.get_abstract_mesh().manual_axes
    return bool(manual) and bool(varying(lax.axis_index(manual[0])))


def is_names(value: Any) -> bool:
    """Whether a value is the name of a mesh axis, or several."""
    return isinstance(value, str) or (
        isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)
    )


def is_spec(value: Any) -> bool:
    """Whether a value says how one array is cut."""
    return value is None or isinstance(value, PartitionSpec) or is_names(value)


def spec_names(spec: AxisSpec) -> Names:
    """The mesh axes in the spec of one array, in order."""
    if spec is None or isinstance(spec, str):
        return () if spec is None else (spec,)
    return tuple(dict.fromkeys(name for entry in spec for name in spec_names(entry)))


def leaf_axes(owner: str, tree: Any, arrays: Sequence[Any], axis_names: Any) -> list[Names]:
    """For every array of a tree the mesh axes that cut it, where a function of the tree sums.

    Raise where that is unknown, and types say that an array differs over devices.
    """
    if axis_names is None:
        _check_whole(owner, arrays)
        return [()] * len(arrays)
    specs = [axis_names] * len(arrays)
    if not is_spec(axis_names):
        specs = jax.tree.leaves(axis_names, is_leaf=is_spec)
        if len(specs) != len(arrays):
            raise StructureError(
                f"{owner}: axis_names has {len(specs)} specs, and the tree has {len(arrays)} "
                f"arrays: give names of mesh axes, or a tree with one PartitionSpec for each array"
            )
    checked = is_checked()
    return [_axes(owner, one, spec, checked) for one, spec in zip(arrays, specs, strict=True)]


def _axes(owner: str, array: Any, spec: AxisSpec, checked: bool) -> Names:
    names, bound = spec_names(spec), manual_axes()
    if bound and (lacking := [name for name in names if name not in bound]):
        raise GradtxError(
            f"{owner}: axis_names has {lacking[0]!r}, and the axes of this shard_map or pmap are "
            f"{', '.join(map(repr, bound))}: name one of these"
        )
    if checked:
        return tuple(name for name in names if name in varying(array))
    return names if bound and jnp.shape(array) else ()


def _check_whole(owner: str, arrays: Sequence[Any]) -> None:
    """Raise where a device has a part of an array; warn where types do not tell."""
    axes = manual_axes()
    if not axes or not arrays:
        return
    shown = ", ".join(map(repr, axes))
    cure = f"write {owner}(tree, axis_names={axes[0]!r}), or axis_names=() for"
    if not is_checked():
        warnings.warn(
            f"{owner}: if the axes ({shown}) of this shard_map or pmap cut the arrays, this is a "
            f"number of each device's part: {cure} whole arrays",
            stacklevel=4,
        )
    elif any(map(varying, arrays)):
        raise GradtxError(
            f"{owner}: the axes ({shown}) of this shard_map cut the arrays, and each device would "
            f"get a number of its own part: {cure} that number"
        )


def reduce_over(
    scalars: Sequence[Any],
    names: Sequence[Names],
    join: Callable[[Sequence[Any]], Any],
    over: Callable[[Any, Names], Any] = lax.psum,
) -> Any:
    """Join one number for each array, over the devices that divide it: one collective for all
    arrays that are cut alike.
    """
    parts = []
    for axes in dict.fromkeys(names):
        group = [one for one, own in zip(scalars, names, strict=True) if own == axes]
        parts.append(over(join(group), axes) if axes else join(group))
    return parts[0] if len(parts) == 1 else join(parts)
