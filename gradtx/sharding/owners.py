"""`owners`: over which devices matrices are spread, with what the parameters' shardings say."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jax.sharding import Mesh, NamedSharding

from gradtx.definition.errors import GradtxError
from gradtx.definition.show import show
from gradtx.engine.program import leaves_of


@dataclasses.dataclass(frozen=True)
class Owners:
    """Axes of a mesh, and how each parameter lies on it, by path."""

    axes: tuple[str, ...]
    mesh: Mesh
    shardings: dict[str, NamedSharding]

    def __hash__(self) -> int:
        return hash((self.axes, self.mesh))


def owners(params: Any, axes: str | Sequence[str]) -> Owners:
    """What `shard=` of a rule on matrices needs: the axes to spread over, and how parameters, or
    their shapes with shardings, lie.

    In a program whose shardings XLA works out nobody knows how a parameter lies; so it is looked up
    here, once. Matrices then go to the devices that work on them, and come back, with one
    all-to-all each way.

    When: parameters that are cut over several devices, under `jit`. When not: `jax.set_mesh` with
    explicit axes, where types say how arrays lie, or parameters on one device; a name of axes, or
    nothing, will do.

    Args:
      params: arrays, or `jax.ShapeDtypeStruct`s, with `NamedSharding`s on one mesh; leaves without
        are left to XLA.
      axes: of that mesh, a name or several.

    Raises:
      GradtxError: no leaf has a `NamedSharding`, meshes differ, or the mesh has no such axes.

    >>> import jax, jax.numpy as jnp, numpy as np
    >>> from jax.sharding import Mesh, NamedSharding, PartitionSpec
    >>> import gradtx
    >>> mesh = Mesh(np.array(jax.devices()[:1]), ("x",))
    >>> params = {"kernel": jax.device_put(jnp.ones((4, 4)), NamedSharding(mesh, PartitionSpec("x")))}
    >>> tx = gradtx.muon(0.02, shard=gradtx.sharding.owners(params, "x"))
    >>> updates, _ = jax.jit(tx.update)(params, tx.init(params), params)
    >>> updates["kernel"].shape
    (4, 4)

    See also: `matrixwise`.
    """
    names = (axes,) if isinstance(axes, str) else tuple(axes)
    leaves = leaves_of(params)
    found = {
        path: getattr(value, "sharding", None)
        for path, value in zip(leaves.paths, leaves.values, strict=True)
    }
    known = {
        path: one
        for path, one in found.items()
        if isinstance(one, NamedSharding) and isinstance(one.mesh, Mesh)
    }
    meshes = {one.mesh for one in known.values()}
    if len(meshes) != 1:
        raise GradtxError(
            f"owners: the parameters lie on {len(meshes)} meshes; give arrays with a NamedSharding on one: {show(params)}"
        )
    (mesh,) = meshes
    if missing := [name for name in names if name not in mesh.axis_names]:
        raise GradtxError(
            f"owners: the mesh has no axis {missing[0]!r}; its axes are {', '.join(map(repr, mesh.axis_names))}"
        )
    return Owners(names, mesh, known)  # pyright: ignore[reportArgumentType]
