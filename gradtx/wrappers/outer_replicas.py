"""Replicas as a first axis of the parameters: the inner optimizer runs on each by itself."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from gradtx.compose.transformation import GradientTransformation
from gradtx.definition.errors import StructureError
from gradtx.definition.types import Params, Slots, Updates
from gradtx.engine.selector import leaves_of
from gradtx.tree.known_shardings import known_sharding, without_shardings


def check_replicas(params: Params, replicas: int) -> None:
    """Raise where a parameter has no first axis of replicas."""
    leaves = leaves_of(params)
    for path, leaf in zip(leaves.paths, leaves.values, strict=True):
        shape = tuple(getattr(leaf, "shape", ()))
        if leaf is not None and shape[:1] != (replicas,):
            raise StructureError(
                f"outer: replicas = {replicas}, and the shape of {path!r} is {shape}: stack the "
                f"replicas' parameters along a first axis of {replicas}"
            )


def first_replica(params: Params) -> Any:
    """The parameters of the first replica."""
    return jax.tree.map(_first, params)


def _first(leaf: Any) -> Any:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)
    sharding = known_sharding(leaf)
    if sharding is None or not jax.typeof(leaf).sharding.mesh.explicit_axes:
        return leaf[0]
    # The first replica goes to all devices, which a type must say.
    return leaf.at[0].get(out_sharding=NamedSharding(sharding.mesh, P(*sharding.spec[1:])))


def init_inner(inner: GradientTransformation, params: Params, replicas: int | None) -> Any:
    """The slots of the inner optimizer, one after another along a first axis for replicas."""
    if replicas is None:
        return inner.init_slots(params)
    shapes = [isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(params)]
    # Within jit, so that arrays that are made there find the mesh of the parameters.
    init = jax.jit(jax.vmap(inner.init_slots, axis_size=replicas), keep_unused=True)
    with without_shardings():
        return jax.eval_shape(init, params) if any(shapes) else init(params)


def update_inner(
    inner: GradientTransformation,
    updates: Updates,
    slots: Slots,
    params: Params,
    step: Any,
    extra: Mapping[str, Any],
    replicas: int | None,
) -> tuple[Any, Any]:
    """One inner step, of every replica by itself: no number of another one enters."""
    if replicas is None:
        return inner.update_slots(updates, slots, params, step, extra)[:2]
    own = {name: one for name, one in extra.items() if _is_stacked(one, replicas)}
    alike = {name: one for name, one in extra.items() if name not in own}
    run = jax.vmap(functools.partial(_update_one, inner, step, alike), axis_size=replicas)
    with without_shardings():
        return run(updates, slots, params, own)


def _update_one(
    inner: GradientTransformation,
    step: Any,
    alike: Mapping[str, Any],
    updates: Updates,
    slots: Slots,
    params: Params,
    own: Mapping[str, Any],
) -> tuple[Any, Any]:
    return inner.update_slots(updates, slots, params, step, {**alike, **own})[:2]


def _is_stacked(value: Any, replicas: int) -> bool:
    """Whether an extra argument has a value for each replica."""
    leaves = jax.tree.leaves(value)
    return bool(leaves) and all(getattr(one, "shape", ())[:1] == (replicas,) for one in leaves)
