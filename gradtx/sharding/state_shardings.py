"""`state_shardings`: where each array of a state lies, from the shardings of the parameters.

`init` is traced on shapes whose types hold the shardings, as the explicit axes of a mesh do. Each
result then has a type that says along which axes it is cut. Nothing runs, on no device.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import (
    AbstractMesh,
    AxisType,
    Mesh,
    NamedSharding,
    PartitionSpec,
    Sharding,
    SingleDeviceSharding,
)

from gradtx.compose.transformation import TransformationLike, as_transformation
from gradtx.definition.errors import GradtxError
from gradtx.definition.show import show, show_array
from gradtx.definition.types import Params, PyTree
from gradtx.engine.selector import Leaves, leaves_of
from gradtx.tree.known_shardings import known_sharding
from gradtx.tree.paths import tree_paths
from gradtx.tree.placement import axes_of, parts_of


def state_shardings(
    tx: TransformationLike,
    params: Params,
    shardings: PyTree = None,
    *,
    mesh: Mesh | AbstractMesh | None = None,
) -> Any:
    """The shardings of an optimizer's state, from the shardings of the parameters.

    A slot shaped like its parameter is cut as the parameter. A slot with some axes of it (the rows
    of Adafactor, the Kronecker factors of SOAP) is cut along those. All else is replicated over the
    mesh: the count, scalars, and slots whose sizes the devices do not divide. `init` is traced on
    shapes, so no device computes or stores anything, and a mesh of 256 devices needs none.

    When: `jax.jit(tx.init, out_shardings=...)` of a model that one device cannot hold, and
    restoring a checkpoint onto another mesh. When not: arrays that exist; `array.sharding` says it.

    Args:
      tx: the transformation, of any library.
      params: arrays, or `jax.ShapeDtypeStruct`s, with `NamedSharding`s on one mesh. The mesh may
        be a `jax.sharding.AbstractMesh`. A leaf without a sharding is replicated.
      shardings: shardings in place of those of `params`: `NamedSharding`s, or `PartitionSpec`s on
        `mesh`; a tree like `params`, or a prefix of it. None: those of `params`.
      mesh: the mesh of the `PartitionSpec`s. None: that of `jax.set_mesh`.

    Returns: a tree like `tx.init(params)` with a `NamedSharding` for each array; parameters that
      all lie on one device give the sharding of that device.

    Raises:
      GradtxError: no parameter has a sharding; meshes differ; a mesh has no such axis, or its
        devices do not divide an axis of an array; `shardings` is no prefix of `params`.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec
    >>> mesh = AbstractMesh((8, 4), ("data", "model"))
    >>> cut = NamedSharding(mesh, PartitionSpec("data", "model"))
    >>> params = {"w": jax.ShapeDtypeStruct((512, 256), jnp.float32, sharding=cut)}
    >>> shardings = gradtx.state_shardings(gradtx.scale_by_factored_rms(), params)
    >>> jax.tree.map(lambda one: one.spec, shardings.slots["scale_by_factored_rms"])
    Factored(nu_row={'w': P('model',)}, nu_col={'w': P('data',)}, nu={'w': None})

    See also: `sharding.owners`, `restore_state`.
    """
    tx = as_transformation(tx)
    if shardings is not None:
        params = _place(params, shardings, mesh)
    leaves = leaves_of(params)
    mesh = _mesh_of(leaves)
    if mesh is None:
        device = _device_of(leaves)
        return jax.tree.map(lambda _: device, jax.eval_shape(tx.init, params))
    explicit = AbstractMesh(
        mesh.axis_sizes, mesh.axis_names, axis_types=(AxisType.Explicit,) * len(mesh.axis_names)
    )
    each = zip(leaves.paths, leaves.values, strict=True)
    shapes = [_on_mesh(path, value, explicit) for path, value in each]
    # Another mesh may be set here, and `init` must not meet both.
    with jax.sharding.use_abstract_mesh(explicit):
        state = jax.eval_shape(tx.init, jax.tree.unflatten(leaves.treedef, shapes))
    return jax.tree.map(functools.partial(_sharding_of, mesh), state)


def _place(params: Params, shardings: PyTree, mesh: Mesh | AbstractMesh | None) -> Any:
    """The shapes of parameters, cut as a tree of shardings or specs says."""
    leaves = leaves_of(params)
    try:
        placed = jax.tree.leaves(
            jax.tree.broadcast(shardings, params, is_leaf=_says_sharding), is_leaf=_says_sharding
        )
    except ValueError:
        names = tree_paths(jax.tree.map(lambda _: 0, shardings, is_leaf=_says_sharding))
        raise GradtxError(
            f"state_shardings: shardings= must be a tree like the parameters, or a prefix of it; "
            f"its leaves are {_listed(names)}, those of the parameters {_listed(leaves.paths)}"
        ) from None
    each = zip(leaves.paths, leaves.values, placed, strict=True)
    shapes = [_cut(path, value, one, mesh) for path, value, one in each]
    return jax.tree.unflatten(leaves.treedef, shapes)


def _listed(paths: Sequence[str]) -> str:
    shown = [repr(path) for path in paths[:5]]
    return ", ".join([*shown, "..."] if len(paths) > 5 else shown)


def _says_sharding(node: Any) -> bool:
    return node is None or isinstance(node, Sharding | PartitionSpec)


def _cut(path: str, value: Any, sharding: Any, mesh: Mesh | AbstractMesh | None) -> Any:
    """The shape of one parameter with its sharding; None and numbers as they are."""
    if not hasattr(value, "shape"):
        return value
    if isinstance(sharding, PartitionSpec):
        sharding = _on(path, sharding, _mesh_in_use() if mesh is None else mesh)
    if isinstance(sharding, NamedSharding):
        _check_fit(path, value, sharding.spec, sharding.mesh.shape)
    return jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=sharding)


def _mesh_in_use() -> Mesh | AbstractMesh:
    """The mesh of `jax.set_mesh`; within a trace without its devices."""
    try:
        return jax.sharding.get_mesh()
    except ValueError:
        return jax.sharding.get_abstract_mesh()


def _on(path: str, spec: PartitionSpec, mesh: Mesh | AbstractMesh) -> NamedSharding:
    if mesh.empty:
        raise GradtxError(
            f"state_shardings: {path!r} has the spec {spec}, and no mesh is known: give mesh=, or "
            f"call within jax.set_mesh(mesh)"
        )
    names = [name for entry in spec for name in axes_of(entry)]
    if missing := [name for name in names if name not in mesh.axis_names]:
        raise GradtxError(
            f"state_shardings: {path!r} has the spec {spec}, and the mesh has no axis "
            f"{missing[0]!r}; its axes are {', '.join(map(repr, mesh.axis_names))}"
        )
    return NamedSharding(mesh, spec)


def _mesh_of(leaves: Leaves) -> Mesh | AbstractMesh | None:
    """The mesh of all parameters; None where no parameter is on one."""
    meshes = {}
    for path, value in zip(leaves.paths, leaves.values, strict=True):
        if (sharding := known_sharding(value)) is not None:
            meshes.setdefault(_without_types(sharding.mesh), (path, sharding.mesh))
    if len(meshes) > 1:
        (one, first), (other, second), *_ = meshes.values()
        raise GradtxError(
            f"state_shardings: {one!r} is on the mesh {dict(first.shape)}, and {other!r} on "
            f"{dict(second.shape)}: put all parameters on one mesh"
        )
    return next((mesh for _, mesh in meshes.values()), None)


def _without_types(mesh: Mesh | AbstractMesh) -> Any:
    """What two meshes have in common that differ in the types of their axes alone."""
    devices = tuple(mesh.devices.flat) if isinstance(mesh, Mesh) else ()
    return mesh.axis_names, mesh.axis_sizes, devices


def _device_of(leaves: Leaves) -> Sharding:
    """The one device on which all parameters lie."""
    shardings = {getattr(one, "sharding", None) for one in leaves.values}
    placed = {one for one in shardings if isinstance(one, SingleDeviceSharding)}
    if len(placed) != 1:
        raise GradtxError(
            f"state_shardings: the parameters are on no mesh; give arrays, or "
            f"jax.ShapeDtypeStructs, with a NamedSharding, or shardings=: {show(leaves.tree)}"
        )
    return placed.pop()


def _on_mesh(path: str, value: Any, mesh: AbstractMesh) -> Any:
    """The shape of a parameter, with a type that says how it is cut."""
    if not hasattr(value, "shape"):
        return value
    sharding = known_sharding(value)
    spec = PartitionSpec() if sharding is None else sharding.spec
    _check_fit(path, value, spec, mesh.shape)
    # XLA would choose an axis that is unconstrained, and a type must be definite.
    spec = PartitionSpec(*(axes_of(entry) or None for entry in spec))
    array = jax.typeof(value)  # NumPy's float64 has the dtype that JAX gives it
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=NamedSharding(mesh, spec))


def _check_fit(path: str, value: Any, spec: PartitionSpec, sizes: Mapping[str, int]) -> None:
    """Raise where a spec does not fit the shape of a parameter."""
    if len(spec) > len(value.shape):
        raise GradtxError(
            f"state_shardings: {path!r} is {show_array(value)}, and its spec {spec} has "
            f"{len(spec)} axes"
        )
    for size, entry in zip(value.shape, spec, strict=False):
        if size % (parts := parts_of(sizes, entry)):
            raise GradtxError(
                f"state_shardings: {path!r} is {show_array(value)}, and {parts} devices, the axis "
                f"{entry!r} of its spec {spec}, do not divide {size}"
            )


def _sharding_of(mesh: Mesh | AbstractMesh, array: Any) -> NamedSharding:
    """The sharding that the type of an array says, on the mesh of the parameters."""
    spec = list(() if array.sharding is None else array.sharding.spec)
    # XLA leaves out the None at the end, and JAX compiles again where one array has it.
    while spec and spec[-1] is None:
        spec.pop()
    return NamedSharding(mesh, PartitionSpec(*spec))
