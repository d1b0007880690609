"""Move arrays between shardings: in a trace, under explicit axes, and outside of `jit`."""

from typing import Any

import jax
from jax.core import Tracer
from jax.sharding import AbstractMesh, AxisType, NamedSharding

try:
    from jax.experimental.shard_alike import shard_alike
except ImportError:  # newer versions of JAX have none
    shard_alike: Any = None


def put(array: Any, sharding: NamedSharding) -> Any:
    """Place an array, or the shape of one, as a sharding says."""
    if isinstance(array, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)
    if sharding.mesh.size == 1:
        return array
    if not isinstance(array, Tracer):
        if not isinstance(sharding.mesh, AbstractMesh):
            return jax.device_put(array, sharding)
        if sharding.mesh != jax.sharding.get_abstract_mesh():
            return array  # without devices it has no other place; else it is a trace's constant
    if has_explicit_axes(sharding.mesh):  # the array stays in its memory
        return jax.sharding.reshard(array, NamedSharding(sharding.mesh, sharding.spec))
    return jax.lax.with_sharding_constraint(array, sharding)


def put_alike(array: Any, like: Any, otherwise: NamedSharding | None = None) -> Any:
    """Place an array as another of its shape lies, also where only XLA knows how that is.

    Where JAX cannot say so, it goes where `otherwise` says; None: where XLA decides.
    """
    if not isinstance(array, Tracer):
        sharding = getattr(like, "sharding", None)
        return array if sharding is None else jax.device_put(array, sharding)
    if not isinstance(like, Tracer):
        return array
    sharding = jax.typeof(like).sharding
    if sharding.mesh.explicit_axes:
        return jax.sharding.reshard(array, sharding)
    if shard_alike is not None:
        return shard_alike(like, array)[1]
    return array if otherwise is None else put(array, otherwise)


def has_explicit_axes(mesh: Any) -> bool:
    """Whether types say how arrays are cut over a mesh."""
    return all(kind == AxisType.Explicit for kind in mesh.axis_types)
