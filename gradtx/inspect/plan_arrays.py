"""The arrays of a training run on a mesh, and the bytes of each on one device."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from gradtx.definition.errors import GradtxError, StructureError
from gradtx.definition.show import show_array
from gradtx.definition.types import Params, State
from gradtx.inspect.patterns import common_pattern, stars
from gradtx.inspect.plan_cuts import parts, typed_cut
from gradtx.inspect.summary import split_path
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


def explicit_mesh(mesh: MeshLike | None, params: Params) -> AbstractMesh:
    """The mesh without its devices, whose axes the types of arrays show."""
    known = mesh if mesh is not None else _mesh_of(params)
    if isinstance(known, Mapping):
        names, sizes = tuple(known), tuple(known.values())
    else:
        names, sizes = known.axis_names, known.axis_sizes
    return AbstractMesh(sizes, names, axis_types=(AxisType.Explicit,) * len(names))


def _mesh_of(params: Params) -> Any:
    """The mesh that the parameters are on; one device where they are on none."""
    meshes = {
        leaf.sharding.mesh
        for leaf in jax.tree.leaves(params)
        if isinstance(getattr(leaf, "sharding", None), NamedSharding)
    }
    if len(meshes) > 1:
        raise GradtxError(f"plan: the parameters are on {len(meshes)} meshes; give mesh=")
    return meshes.pop() if meshes else {"device": 1}


def explicit_shapes(params: Params, specs: Any, mesh: AbstractMesh) -> Params:
    """The parameters as shapes whose types say how the mesh cuts them."""
    leaves, treedef = jax.tree.flatten(params)
    if specs is None:
        cuts = [
            getattr(getattr(leaf, "sharding", None), "spec", PartitionSpec()) for leaf in leaves
        ]
    else:
        cuts = _broadcast(specs, params)
    each = zip(tree_paths(params), leaves, cuts, strict=True)
    return jax.tree.unflatten(treedef, [_shape(*one, mesh) for one in each])


def _broadcast(specs: Any, params: Params) -> list[PartitionSpec]:
    """The spec of each leaf, from a tree like the parameters or a prefix of it."""
    try:
        tree = jax.tree.broadcast(specs, params, is_leaf=_is_spec)
    except ValueError:
        raise StructureError(
            f"plan: specs, {jax.tree.structure(specs, is_leaf=_is_spec)}, is not a prefix of the "
            f"tree of the parameters, {jax.tree.structure(params)}: give one PartitionSpec for "
            f"each parameter, or for all below a node"
        ) from None
    cuts = jax.tree.leaves(tree, is_leaf=_is_spec)
    return [PartitionSpec() if one is None else PartitionSpec(*_spec(one)) for one in cuts]


def _is_spec(node: Any) -> bool:
    return node is None or isinstance(node, PartitionSpec | NamedSharding)


def _spec(cut: Any) -> PartitionSpec:
    return cut.spec if isinstance(cut, NamedSharding) else cut


def _shape(
    path: str, leaf: Any, spec: PartitionSpec, mesh: AbstractMesh
) -> jax.ShapeDtypeStruct | float:
    if not hasattr(leaf, "dtype"):
        return leaf
    for size, axes in zip(leaf.shape, spec, strict=False):
        count = _parts(mesh, axes, path)
        if size % count:
            raise StructureError(
                f"plan: {path!r} is {show_array(leaf)}, and its spec {tuple(spec)} cuts its axis "
                f"of {size} into {count} parts, which do not divide it: choose another spec for it"
            )
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))


def _parts(mesh: AbstractMesh, axes: Any, path: str) -> int:
    """How many parts some axes of a mesh cut an array axis into."""
    names = axes if isinstance(axes, tuple) else () if axes is None else (axes,)
    for name in names:
        if name not in mesh.axis_names:
            raise GradtxError(
                f"plan: the spec of {path!r} names the axis {name!r}, and the mesh has "
                f"{', '.join(map(repr, mesh.axis_names))}"
            )
    return parts(names, mesh.shape)


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
