"""The arrays of a training run on a mesh, and the bytes of each on one device."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import AbstractMesh, Mesh, PartitionSpec

from gradtx.definition.show import show_array
from gradtx.definition.types import Params, State
from gradtx.engine.selector import leaves_of
from gradtx.inspect.patterns import common_pattern, stars
from gradtx.inspect.plan_cuts import parts, typed_cut
from gradtx.inspect.summary import split_path
from gradtx.sharding.explicit_shapes import explicit_mesh, explicit_shapes, mesh_of, place
from gradtx.tree.paths import path_text, tree_paths

MeshLike = Mesh | AbstractMesh | Mapping[str, int]
"""A mesh, or the size of each of its axes by name."""


class ArrayRow(NamedTuple):
    """Similar arrays of one kind: the parameters, the gradients, or one slot of the state."""

    kind: str
    """`parameters`, `gradients`, or the slot, `scale_by_adam/mu`."""
    path: str
    """The parameters, `layers/*/kernel`; empty for slots without a parameter."""
    array: str
    """The shape and dtype of each, `f32[768,3072]`."""
    arrays: int
    """The number of arrays."""
    spec: PartitionSpec
    """The mesh axes that cut each array axis."""
    bytes: int
    """The bytes of all arrays, counted once."""
    device_bytes: int
    """The bytes that one device holds of them."""
    reason: str
    """Why every device holds all of them; empty where they are cut."""


def placed_shapes(
    params: Params, shardings: Any, mesh: MeshLike | None
) -> tuple[AbstractMesh, Params]:
    """The mesh with explicit axes, and the parameters as shapes on it."""
    if isinstance(mesh, Mapping):
        mesh = AbstractMesh(tuple(mesh.values()), tuple(mesh))
    if shardings is not None:
        params = place(params, shardings, mesh, "plan")
    leaves = leaves_of(params)
    grid = explicit_mesh(mesh or mesh_of(leaves, "plan") or AbstractMesh((1,), ("device",)))
    return grid, explicit_shapes(leaves, grid, "plan")


def shares(leaf: Any, mesh: AbstractMesh) -> int:
    """How many different parts of an array the devices of its mesh hold."""
    return parts((name for axes in typed_cut(leaf) for name in axes), mesh.shape)


def array_rows(params: Params, state: Any, mesh: AbstractMesh) -> tuple[ArrayRow, ...]:
    """The rows of parameters, gradients and state, in this order."""
    paths = tree_paths(params)
    leaves = [
        (path, leaf)
        for path, leaf in zip(paths, jax.tree.leaves(params), strict=True)
        if hasattr(leaf, "dtype")
    ]
    cuts = {path: leaf.sharding.spec for path, leaf in leaves}
    named = [(kind, *one) for kind in ("parameters", "gradients") for one in leaves]
    return tuple(_grouped([*named, *_slots(state, paths)], cuts, mesh))


def _slots(state: Any, paths: Sequence[str]) -> Iterable[tuple[str, str, Any]]:
    """The arrays of a state: slot, parameter, array."""
    known = {tuple(path.split("/")) for path in paths}
    for keys, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        path = tuple(path_text(keys).split("/"))
        path = path[1:] if isinstance(state, State) and path[0] == "slots" else path
        member, slot, rest = split_path(path, known)
        yield "/".join(filter(None, (member, slot))), rest, leaf


def _grouped(
    named: Sequence[tuple[str, str, Any]],
    cuts: Mapping[str, PartitionSpec],
    mesh: AbstractMesh,
) -> Iterable[ArrayRow]:
    """Similar arrays in one row, in the order of the first array."""
    groups: dict[Any, list[tuple[str, Any]]] = {}
    for kind, path, leaf in named:
        groups.setdefault((kind, stars(path), show_array(leaf), _cut(leaf)), []).append(
            (path, leaf)
        )
    for (kind, _, array, spec), group in groups.items():
        path, leaf = group[0]
        size = sum(math.prod(one.shape) * one.dtype.itemsize for _, one in group)
        yield ArrayRow(
            kind,
            common_pattern([one for one, _ in group]),
            array,
            len(group),
            PartitionSpec(*spec),
            size,
            size // shares(leaf, mesh),
            _reason(leaf, cuts.get(path), mesh) if shares(leaf, mesh) == 1 else "",
        )


def _cut(leaf: Any) -> tuple[Any, ...]:
    spec = getattr(getattr(leaf, "sharding", None), "spec", ())
    return (*spec,)


def _reason(leaf: Any, param: PartitionSpec | None, mesh: AbstractMesh) -> str:
    """Why every device holds the whole of an array."""
    if mesh.size == 1:
        return "one device"
    if leaf.ndim == 0:
        return "a scalar"
    if param is None:
        return "of no single parameter"
    if not any(param):
        return "its parameter is whole"
    return "its own axes, which no axis of the mesh cuts"
