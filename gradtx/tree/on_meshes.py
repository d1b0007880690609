"""Trees on a mesh: the leaves that someone said how to cut, and the leaves that nobody cuts."""

import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding

from gradtx.tree.known_shardings import said_shardings
from gradtx.tree.paths import flatten, leaf_paths
from gradtx.tree.placement import parts_of, sharding_as_returned


def put_as_said(tree: Any) -> Any:
    """A tree, each leaf cut as `known_shardings` says of its path."""
    said = said_shardings()
    if not said:
        return tree
    leaves, treedef = flatten(tree)
    paths = leaf_paths(treedef, tree)
    cut = [_put(leaf, said.get(path)) for path, leaf in zip(paths, leaves, strict=True)]
    return jax.tree.unflatten(treedef, cut)


def _put(leaf: Any, sharding: NamedSharding | None) -> Any:
    # A rule may hold smaller arrays at the path of a parameter: its cut need not fit them.
    if sharding is None or not _fits(getattr(leaf, "shape", ()), sharding):
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
    if isinstance(leaf, Tracer) and jax.typeof(leaf).sharding.mesh.explicit_axes:
        return jax.sharding.reshard(leaf, sharding)
    if isinstance(leaf, Tracer):
        return jax.lax.with_sharding_constraint(leaf, sharding)
    return jax.device_put(leaf, sharding) if isinstance(sharding.mesh, Mesh) else leaf


def _fits(shape: tuple[int, ...], sharding: NamedSharding) -> bool:
    parts = [parts_of(sharding.mesh.shape, entry) for entry in sharding.spec]
    return len(parts) <= len(shape) and all(
        size % count == 0 for size, count in zip(shape, parts, strict=False)
    )


def replicate_rest(tree: Any, arrays: Iterable[Any]) -> Any:
    """A tree whose arrays on one device are on every device of the mesh of other arrays.

    A count on one device is on all of them after a step: another program for the second step.
    Tracers, and trees beside arrays on no mesh, do not change.
    """
    mesh = next((one for one in map(_mesh, arrays) if one is not None), None)
    if mesh is None:
        return tree
    return jax.tree.map(functools.partial(_replicate, mesh), tree)


def _mesh(array: Any) -> Mesh | None:
    """The mesh on which an array lies; None where it is traced, or on no mesh."""
    if isinstance(array, Tracer) or not isinstance(array, jax.Array):
        return None
    sharding = array.sharding
    if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh):
        return sharding.mesh
    return None


def _replicate(mesh: Mesh, leaf: Any) -> Any:
    if not isinstance(leaf, jax.Array) or isinstance(leaf, Tracer):
        return leaf
    if isinstance(leaf.sharding, NamedSharding):
        return leaf
    whole = sharding_as_returned(mesh, [None] * leaf.ndim)
    if leaf.is_fully_addressable and not whole.is_fully_addressable and _is_number(leaf):
        # `device_put` would compare the values of all hosts first.
        values = np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, whole, values.__getitem__)
    return jax.device_put(leaf, whole)


def _is_number(leaf: jax.Array) -> bool:
    return not jnp.issubdtype(leaf.dtype, jax.dtypes.extended)
