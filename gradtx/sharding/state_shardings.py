"""`state_shardings`: where each array of a state lies, from the shardings of the parameters.

`init` is traced on shapes whose types hold the shardings, as the explicit axes of a mesh do. Each
result then has a type that says along which axes it is cut. Nothing runs, on no device.
"""

from typing import Any

import jax
from jax.sharding import (
    AbstractMesh,
    Mesh,
    NamedSharding,
    Sharding,
    SingleDeviceSharding,
)

from gradtx.compose.transformation import TransformationLike, as_transformation
from gradtx.definition.errors import GradtxError
from gradtx.definition.show import show
from gradtx.definition.types import Params, PyTree
from gradtx.engine.selector import Leaves, leaves_of
from gradtx.sharding.explicit_shapes import explicit_mesh, explicit_shapes, mesh_of, place
from gradtx.tree.host_memory import PINNED_HOST
from gradtx.tree.placement import sharding_as_returned

OWNER = "state_shardings"


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
        devices do not divide an axis of an array; `shardings` is not a prefix of `params`.

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
        params = place(params, shardings, mesh, OWNER)
    leaves = leaves_of(params)
    mesh = mesh_of(leaves, OWNER)
    if mesh is None:
        device = _device_of(leaves)
        return jax.tree.map(lambda _: device, jax.eval_shape(tx.init, params))
    explicit = explicit_mesh(mesh)
    # Another mesh may be set here, and `init` must not meet both.
    with jax.sharding.use_abstract_mesh(explicit):
        # Not `eval_shape`, whose results do not say in which memory they are.
        init = jax.make_jaxpr(tx.init, return_shape=True)
        closed, state = init(explicit_shapes(leaves, explicit, OWNER))
    types = [_sharding_of(mesh, one) for one in closed.out_avals]
    return jax.tree.unflatten(jax.tree.structure(state), types)


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


def _sharding_of(mesh: Mesh | AbstractMesh, array: Any) -> NamedSharding:
    """The sharding that the type of an array says, on the mesh of the parameters."""
    entries = (None,) * array.ndim if array.sharding is None else array.sharding.spec
    placed = sharding_as_returned(mesh, [*entries])
    is_on_host = array.memory_space == jax.memory.Space.Host
    return placed.with_memory_kind(PINNED_HOST) if is_on_host else placed
