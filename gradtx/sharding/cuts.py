"""How ZeRO-1 cuts each array: the axis, the padding, and the reason; as a table, too."""

import contextlib
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.core import Tracer
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from gradtx.compose.transformation import GradientTransformation
from gradtx.definition.errors import GradtxError
from gradtx.definition.show import show_table
from gradtx.definition.types import Params
from gradtx.engine.selector import Leaves, leaves_of
from gradtx.sharding.placing import has_explicit_axes
from gradtx.tree.casts import is_inexact
from gradtx.tree.known_shardings import known_sharding

Axes = str | tuple[str, ...]
MeshLike = Mesh | AbstractMesh | Mapping[str, int]
"""A mesh, or the sizes of its axes by name."""

TILE = (8, 128)
"""A TPU stores the last two axes of an array in tiles of this size, and fills up the last one."""


class Split(NamedTuple):
    """The arguments of `sharded` that say how arrays are cut."""

    axes: tuple[str, ...]
    mesh: Any
    min_size: int
    pad_size: int | None


class Cut(NamedTuple):
    """How one array is cut between steps of the optimizer."""

    path: str
    shape: tuple[int, ...]
    before: PartitionSpec | None
    """How the parameter is cut; None where only XLA knows."""
    sharding: NamedSharding
    """How the optimizer's arrays of its shape are cut."""
    reason: str
    padding: tuple[tuple[int, int], ...] | None = None
    """What fills up each axis of a slot, so that the devices divide it; None: nothing."""

    @property
    def spec(self) -> PartitionSpec:
        """The spec of the optimizer's arrays."""
        return self.sharding.spec

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape of a slot as the state holds it."""
        if self.padding is None:
            return self.shape
        return tuple(size + more for size, (_, more) in zip(self.shape, self.padding, strict=True))

    @property
    def without_axes(self) -> NamedSharding:
        """Whole over the axes that are known, for a parameter of which only XLA knows more."""
        free = PartitionSpec.UNCONSTRAINED
        spec = (one if one is free else None for one in self.spec)
        return NamedSharding(self.sharding.mesh, PartitionSpec(*spec))

    @property
    def is_known(self) -> bool:
        """Whether the whole layout is known, or XLA decides a part of it."""
        return not any(one is PartitionSpec.UNCONSTRAINED for one in self.spec)


class Cuts(tuple[Cut, ...]):
    """How each array is cut; prints as a table of path, shape, specs and reason."""

    def __str__(self) -> str:
        rows = [
            (one.path, str(one.shape), _shown(one.before), _shown(one.spec), one.reason)
            for one in self
        ]
        head = ("parameter", "shape", "its spec", "spec of the state", "reason")
        return show_table([head, *rows], len(head))


def _shown(spec: PartitionSpec | None) -> str:
    if spec is None:
        return "?"
    parts = ["?" if one is PartitionSpec.UNCONSTRAINED else repr(one) for one in spec]
    return f"P({', '.join(parts)})"


def cuts(tx: GradientTransformation, params: Params) -> Cuts:
    """Show how `sharded` (ZeRO-1) cuts the state and the update of each parameter.

    A row holds the path, the shape, the spec of the parameter, the spec of slots of its shape, and
    the reason. `print` shows a table.

    When: before a run, to see the arrays that stay whole on every device. When not: the placement
    of each slot of a state that exists; `jax.debug.visualize_array_sharding` and `.sharding` show
    it.

    Args:
      tx: a definition that contains `sharded`.
      params: the parameters, or `jax.ShapeDtypeStruct`s with shardings.

    Raises:
      GradtxError: the definition contains no `sharded`; no mesh is known, or it has no such axis.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> tx = gradtx.sharded(gradtx.adamw(1e-3), "data", mesh={"data": 4})
    >>> params = {"embed": jnp.ones((10, 8)), "scale": jnp.ones(())}
    >>> with jax.set_mesh(jax.make_mesh((1,), ("data",))):
    ...     print(gradtx.sharding.cuts(tx, params))
    parameter  shape    its spec  spec of the state  reason
    embed      (10, 8)  ?         P('data')          axis 0 over 'data'
    scale      ()       ?         P()                whole: no axis

    See also: `sharded`.
    """
    split = _split_of(tx)
    if split is None:
        raise GradtxError(
            f"cuts: {tx.name} contains no sharded: pass the definition that "
            f"sharded(tx, axes) returned"
        )
    return Cuts(one for one in plan_cuts(leaves_of(params), split) if one is not None)


def _split_of(tx: GradientTransformation) -> Split | None:
    """The arguments of the first `sharded` in a definition."""
    for rule in rules_inside(tx):
        if rule.name == "sharded":
            return split_of(**rule.options)
    return None


def rules_inside(tx: GradientTransformation) -> list[Any]:
    """The rules of a definition, and those of the members of each."""
    own = [bound.rule for bound in tx.rules]
    members = [one for rule in own for one in getattr(rule, "members", {}).values()]
    inside = (rules_inside(one) for one in members if isinstance(one, GradientTransformation))
    return [*own, *itertools.chain.from_iterable(inside)]


def split_of(axes: Axes, mesh: Any, min_size: int, pad_size: int | None, **_: Any) -> Split:
    """The arguments of `sharded` in one form."""
    return Split((axes,) if isinstance(axes, str) else tuple(axes), mesh, min_size, pad_size)


def plan_cuts(leaves: Leaves, split: Split) -> list[Cut | None]:
    """How each leaf is cut; None for a leaf that is not an array of floats."""
    pairs = list(zip(leaves.paths, leaves.values, strict=True))
    known = {
        path: sharding
        for path, value in pairs
        if is_inexact(value) and (sharding := known_sharding(value, path)) is not None
    }
    mesh = find_mesh(split, known.values(), leaves.values)
    return [
        _plan(path, value, known.get(path), mesh, split) if is_inexact(value) else None
        for path, value in pairs
    ]


def find_mesh(split: Split, known: Any, values: Sequence[Any]) -> Any:
    """The mesh: the one of the trace, of the arrays, of `jax.set_mesh`, or the argument."""
    current = jax.sharding.get_abstract_mesh()
    if not current.empty and not any(isinstance(one, Tracer) for one in values):
        with contextlib.suppress(ValueError):  # a trace of constants has none
            current = jax.sharding.get_mesh()  # arrays outside of a trace need its devices
    meshes = [current, *(one.mesh for one in known), as_mesh(split.mesh)]
    mesh = next((one for one in meshes if one is not None and not one.empty), None)
    if mesh is None:
        raise GradtxError(
            f"sharded: no mesh is known here, and axes = {_names(split.axes)} are axes of one: "
            f"place the parameters by jax.device_put, or call within jax.set_mesh(mesh), or give "
            f"mesh={{'data': 8}}, the sizes of its axes by name"
        )
    for name in split.axes:
        if name not in mesh.axis_names:
            raise GradtxError(
                f"sharded: the mesh has no axis {name!r}; its axes are {_names(mesh.axis_names)}: "
                f"give axes= one of them"
            )
        if mesh.axis_types[mesh.axis_names.index(name)] == AxisType.Manual:
            raise GradtxError(
                f"sharded: the axis {name!r} is manual here, within a shard_map over it, where "
                f"norms and matrices inside would see the part of one device: call tx.update "
                f"outside of the shard_map, in the same jit, on the gradients that it returns"
            )
    return mesh


def as_mesh(mesh: Any) -> Any:
    """A mesh from the sizes of its axes."""
    if isinstance(mesh, Mapping):
        automatic = (AxisType.Auto,) * len(mesh)  # the default differs between versions of JAX
        return AbstractMesh(tuple(mesh.values()), tuple(mesh), axis_types=automatic)
    return mesh


def _names(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


def _plan(
    path: str,
    value: Any,
    known: NamedSharding | None,
    mesh: Any,
    split: Split,
) -> Cut:
    """How one array is cut: along the axes as it is, and those of `split` where they fit."""
    shape = value.shape
    before = None if known is None else _filled(known.spec, len(shape))
    sizes = dict(mesh.shape)
    is_alone = all(name in split.axes or size == 1 for name, size in sizes.items())
    # An array outside of a trace, or on explicit axes, that says nothing of its cut is whole.
    is_open = isinstance(value, Tracer | jax.ShapeDtypeStruct) and not has_explicit_axes(mesh)
    other = PartitionSpec.UNCONSTRAINED if is_open and not is_alone else None
    spec: tuple[Any, ...] = (other,) * len(shape) if before is None else before
    used = {name for one in (before or ()) for name in _parts(one)}
    free = tuple(name for name in split.axes if name not in used)
    cut = functools.partial(Cut, path, shape, None if known is None else known.spec)
    whole = NamedSharding(mesh, _trimmed(spec))
    if not free:
        return cut(whole, f"as the parameter, over {_names(split.axes)}")
    if (why := _why_whole(shape, split)) is not None:
        return cut(whole, f"whole: {why}")
    placed, left = _spread(shape, spec, free, sizes)
    if len(left) < len(free):
        where = NamedSharding(mesh, _trimmed(placed))
        return cut(where, _reason(spec, placed, left))
    return _padded(cut, shape, spec, free, mesh, split)


def _why_whole(shape: tuple[int, ...], split: Split) -> str | None:
    """Why an array stays whole whatever its axes are."""
    if not shape:
        return "no axis"
    size = math.prod(shape)
    return f"{size} entries, fewer than {split.min_size}" if size < split.min_size else None


def _filled(spec: PartitionSpec, ndim: int) -> tuple[Any, ...]:
    return (*spec, *(None for _ in range(ndim)))[:ndim]


def _trimmed(spec: Sequence[Any]) -> PartitionSpec:
    """A spec as XLA returns it: `jit` compiles anew for one that ends with None."""
    size = len(spec)
    while size and spec[size - 1] is None:
        size -= 1
    return PartitionSpec(*spec[:size])


def _parts(axis: Any) -> tuple[str, ...]:
    """The mesh axes over which one axis of an array is cut."""
    if isinstance(axis, str):
        return (axis,)
    return axis if isinstance(axis, tuple) else ()


def _spread(
    shape: tuple[int, ...], spec: tuple[Any, ...], free: tuple[str, ...], sizes: Mapping[str, int]
) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    """The spec with as many of the mesh axes as fit, all on one axis first; and those left."""
    whole = _with_axes(shape, spec, free, sizes)
    if whole is not None:
        return whole, ()
    left: list[str] = []
    for name in free:
        more = _with_axes(shape, spec, (name,), sizes)
        left += [name] * (more is None)
        spec = spec if more is None else more
    return spec, tuple(left)


def _with_axes(
    shape: tuple[int, ...], spec: tuple[Any, ...], names: tuple[str, ...], sizes: Mapping[str, int]
) -> tuple[Any, ...] | None:
    """The spec with mesh axes on the axis of the array that suits them best; None: on none."""
    new = {
        axis: (*_parts(spec[axis]), *names)
        for axis, size in enumerate(shape)
        if size and size % _count((*_parts(spec[axis]), *names), sizes) == 0
    }
    if not new:
        return None
    # An axis that is whole so far moves nothing of what the parameter's own spec says.
    best = min(new, key=lambda axis: (len(new[axis]), _wastes_tiles(shape, axis, new, sizes), axis))
    parts = new[best][0] if len(new[best]) == 1 else new[best]
    return (*spec[:best], parts, *spec[best + 1 :])


def _wastes_tiles(
    shape: tuple[int, ...], axis: int, new: Mapping[int, tuple[str, ...]], sizes: Mapping[str, int]
) -> float:
    """Whether parts along an axis are smaller than a tile of a TPU."""
    place = axis - len(shape)
    return place >= -2 and len(shape) > 1 and shape[axis] // _count(new[axis], sizes) < TILE[place]


def _count(names: Sequence[str], sizes: Mapping[str, int]) -> int:
    return math.prod(sizes[name] for name in names)


def _reason(spec: Sequence[Any], placed: Sequence[Any], left: Sequence[str]) -> str:
    changes = [
        f"axis {axis} over {_names([one for one in _parts(new) if one not in _parts(old)])}"
        for axis, (old, new) in enumerate(zip(spec, placed, strict=True))
        if old != new
    ]
    more = f"; {_names(left)} divides no axis" if left else ""
    return ", ".join(changes) + more


def _padded(
    cut: Any,
    shape: tuple[int, ...],
    spec: tuple[Any, ...],
    free: tuple[str, ...],
    mesh: Any,
    split: Split,
) -> Cut:
    """An array that no axis divides: its slots are filled up along its longest axis, or whole."""
    whole = NamedSharding(mesh, _trimmed(spec))
    longest = max(range(len(shape)), key=lambda axis: shape[axis])
    parts = (*_parts(spec[longest]), *free)
    count = _count(parts, mesh.shape)
    more = -shape[longest] % count
    is_small = split.pad_size is None or math.prod(shape) < split.pad_size
    if is_small or shape[longest] < count or has_explicit_axes(mesh):
        return cut(whole, f"whole: {_names(free)} ({_count(free, mesh.shape)}) divides no axis")
    padding = tuple((0, more if axis == longest else 0) for axis in range(len(shape)))
    own = parts[0] if len(parts) == 1 else parts
    placed = NamedSharding(mesh, _trimmed((*spec[:longest], own, *spec[longest + 1 :])))
    size = shape[longest]
    return cut(
        placed, f"axis {longest} over {_names(free)}, padded from {size} to {size + more}", padding
    )
