"""`owners`: the devices over which matrices are spread, and the shardings of the parameters."""

import dataclasses
from collections.abc import Sequence

from jax.sharding import NamedSharding

from gradtx.definition.errors import GradtxError
from gradtx.definition.show import show
from gradtx.definition.types import Params
from gradtx.engine.owner_plan import MeshSizes, axes_of_spec, mesh_sizes
from gradtx.engine.selector import leaves_of


@dataclasses.dataclass(frozen=True)
class Owners:
    """Axes of a mesh, and the axes that cut each parameter, by path: data, without devices."""

    axes: tuple[str, ...]
    """The axes over which matrices are spread."""
    sizes: dict[str, int]
    """How many devices each axis of the mesh counts, in its order."""
    cuts: dict[str, tuple[tuple[str, ...], ...]]
    """For each axis of a parameter the axes of the mesh that cut it."""

    def __hash__(self) -> int:
        return hash((self.axes, tuple(self.sizes.items())))

    @property
    def mesh(self) -> MeshSizes:
        return MeshSizes(tuple(self.sizes), tuple(self.sizes.values()))


def owners(params: Params, axes: str | Sequence[str]) -> Owners:
    """Read the shardings of parameters, for `shard=` of an optimizer of matrices.

    The result holds names of axes, sizes and paths, no devices: a definition with it pickles, goes
    to JSON, and fits any mesh of these axes and sizes. One all-to-all sends matrices to the devices
    that work on them, and another brings them back.

    When: parameters that are sharded over several devices, in a `jax.jit` of your own with
    automatic axes, whose trace does not see how parameters are sharded. When not: explicit axes,
    `make_step`, `gradtx.sharded`, or steps outside of `jax.jit`: there the shardings are known
    without a word.

    Args:
      params: arrays, or `jax.ShapeDtypeStruct`s, with `NamedSharding`s on one mesh, which may be a
        `jax.sharding.AbstractMesh`; leaves without one are taken to be cut by rows.
      axes: one name of an axis of that mesh, or several. Axes that cut a parameter are always
        used; others spread the work of parameters that they do not cut.

    Raises:
      GradtxError: no leaf has a `NamedSharding`, meshes differ, or the mesh has no such axes.

    >>> import jax, jax.numpy as jnp, numpy as np
    >>> from jax.sharding import Mesh, NamedSharding, PartitionSpec
    >>> import gradtx
    >>> mesh = Mesh(np.array(jax.devices()[:1]), ("x",))
    >>> sharding = NamedSharding(mesh, PartitionSpec("x"))
    >>> params = {"kernel": jax.device_put(jnp.ones((4, 4)), sharding)}
    >>> tx = gradtx.muon(0.02, shard=gradtx.sharding.owners(params, "x"))
    >>> updates, _ = jax.jit(tx.update)(params, tx.init(params), params)
    >>> updates["kernel"].shape
    (4, 4)

    See also: `matrixwise`.
    """
    names = (axes,) if isinstance(axes, str) else tuple(axes)
    leaves = leaves_of(params)
    shardings: dict[str, NamedSharding] = {}
    for path, value in zip(leaves.paths, leaves.values, strict=True):
        sharding = getattr(value, "sharding", None)
        if isinstance(sharding, NamedSharding):
            shardings[path] = sharding
    meshes = {sharding.mesh for sharding in shardings.values()}
    if len(meshes) != 1:
        raise GradtxError(
            f"owners: the parameters are on {len(meshes)} meshes; give arrays with a "
            f"NamedSharding on one: {show(params)}"
        )
    (mesh,) = meshes
    if missing := [name for name in names if name not in mesh.axis_names]:
        raise GradtxError(
            f"owners: the mesh has no axis {missing[0]!r}; its axes are "
            f"{', '.join(map(repr, mesh.axis_names))}"
        )
    cuts = {
        path: tuple(axes_of_spec(shardings[path], len(value.shape)))
        for path, value in zip(leaves.paths, leaves.values, strict=True)
        if path in shardings
    }
    return Owners(names, mesh_sizes(mesh).sizes, cuts)
