"""Parameters as shapes whose types say how a mesh cuts them, as its explicit axes do.

A function that is traced on them returns types that say how its results are cut. Nothing runs, on
no device.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec, Sharding

from gradtx.definition.errors import GradtxError
from gradtx.definition.show import show_array
from gradtx.definition.types import Params, PyTree
from gradtx.engine.selector import Leaves, leaves_of
from gradtx.tree.known_shardings import known_sharding
from gradtx.tree.paths import tree_paths
from gradtx.tree.placement import axes_of, parts_of


def explicit_mesh(mesh: Mesh | AbstractMesh) -> AbstractMesh:
    """A mesh without its devices, whose axes are all explicit."""
    names = mesh.axis_names
    return AbstractMesh(mesh.axis_sizes, names, axis_types=(AxisType.Explicit,) * len(names))


def explicit_shapes(leaves: Leaves, mesh: AbstractMesh, owner: str) -> Params:
    """The parameters as shapes on an explicit mesh; `owner` is who asks, for errors."""
    each = zip(leaves.paths, leaves.values, strict=True)
    shapes = [_on_mesh(path, value, mesh, owner) for path, value in each]
    return jax.tree.unflatten(leaves.treedef, shapes)


def place(
    params: Params, shardings: PyTree, mesh: Mesh | AbstractMesh | None, owner: str
) -> Params:
    """The shapes of parameters, cut as a tree of shardings or specs says."""
    leaves = leaves_of(params)
    try:
        placed = jax.tree.leaves(
            jax.tree.broadcast(shardings, params, is_leaf=_says_sharding), is_leaf=_says_sharding
        )
    except ValueError:
        names = tree_paths(jax.tree.map(lambda _: 0, shardings, is_leaf=_says_sharding))
        raise GradtxError(
            f"{owner}: shardings= must be a tree like the parameters, or a prefix of it; "
            f"its leaves are {_listed(names)}, those of the parameters {_listed(leaves.paths)}"
        ) from None
    each = zip(leaves.paths, leaves.values, placed, strict=True)
    shapes = [_cut(path, value, one, mesh, owner) for path, value, one in each]
    return jax.tree.unflatten(leaves.treedef, shapes)


def _listed(paths: Sequence[str]) -> str:
    shown = [repr(path) for path in paths[:5]]
    return ", ".join([*shown, "..."] if len(paths) > 5 else shown)


def _says_sharding(node: Any) -> bool:
    return node is None or isinstance(node, Sharding | PartitionSpec)


def _cut(path: str, value: Any, sharding: Any, mesh: Mesh | AbstractMesh | None, owner: str) -> Any:
    """The shape of one parameter with its sharding; None and numbers as they are."""
    if not hasattr(value, "shape"):
        return value
    if isinstance(sharding, PartitionSpec):
        sharding = _on(path, sharding, _mesh_in_use() if mesh is None else mesh, owner)
    if isinstance(sharding, NamedSharding):
        _check_fit(path, value, sharding.spec, sharding.mesh.shape, owner)
    return jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=sharding)


def _mesh_in_use() -> Mesh | AbstractMesh:
    """The mesh of `jax.set_mesh`; within a trace without its devices."""
    try:
        return jax.sharding.get_mesh()
    except ValueError:
        return jax.sharding.get_abstract_mesh()


def _on(path: str, spec: PartitionSpec, mesh: Mesh | AbstractMesh, owner: str) -> NamedSharding:
    if mesh.empty:
        raise GradtxError(
            f"{owner}: {path!r} has the spec {spec}, and no mesh is known: give mesh=, or "
            f"call within jax.set_mesh(mesh)"
        )
    names = [name for entry in spec for name in axes_of(entry)]
    if missing := [name for name in names if name not in mesh.axis_names]:
        raise GradtxError(
            f"{owner}: {path!r} has the spec {spec}, and the mesh has no axis "
            f"{missing[0]!r}; its axes are {', '.join(map(repr, mesh.axis_names))}"
        )
    return NamedSharding(mesh, spec)


def mesh_of(leaves: Leaves, owner: str) -> Mesh | AbstractMesh | None:
    """The mesh of all parameters; None where no parameter is on one."""
    meshes = {}
    for path, value in zip(leaves.paths, leaves.values, strict=True):
        if (sharding := known_sharding(value)) is not None:
            meshes.setdefault(_without_types(sharding.mesh), (path, sharding.mesh))
    if len(meshes) > 1:
        (one, first), (other, second), *_ = meshes.values()
        raise GradtxError(
            f"{owner}: {one!r} is on the mesh {dict(first.shape)}, and {other!r} on "
            f"{dict(second.shape)}: put all parameters on one mesh"
        )
    return next((mesh for _, mesh in meshes.values()), None)


def _without_types(mesh: Mesh | AbstractMesh) -> Any:
    """What two meshes have in common that differ in the types of their axes alone."""
    devices = tuple(mesh.devices.flat) if isinstance(mesh, Mesh) else ()
    return mesh.axis_names, mesh.axis_sizes, devices


def _on_mesh(path: str, value: Any, mesh: AbstractMesh, owner: str) -> Any:
    """The shape of a parameter, with a type that says how it is cut."""
    if not hasattr(value, "shape"):
        return value
    sharding = known_sharding(value)
    spec = PartitionSpec() if sharding is None else sharding.spec
    _check_fit(path, value, spec, mesh.shape, owner)
    # XLA would choose an axis that is unconstrained, and a type must be definite.
    spec = PartitionSpec(*(axes_of(entry) or None for entry in spec))
    array = jax.typeof(value)  # NumPy's float64 has the dtype that JAX gives it
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=NamedSharding(mesh, spec))


def _check_fit(
    path: str, value: Any, spec: PartitionSpec, sizes: Mapping[str, int], owner: str
) -> None:
    """Raise where a spec does not fit the shape of a parameter."""
    if len(spec) > len(value.shape):
        raise GradtxError(
            f"{owner}: {path!r} is {show_array(value)}, and its spec {spec} has {len(spec)} axes"
        )
    for size, entry in zip(value.shape, spec, strict=False):
        if size % (parts := parts_of(sizes, entry)):
            raise GradtxError(
                f"{owner}: {path!r} is {show_array(value)}, and {parts} devices, the axis "
                f"{entry!r} of its spec {spec}, do not divide {size}: "
                f"choose another spec"
            )
