"""The runs that two processes save, and one restores: the same arrays wherever they are made."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gradtx

RUNS = {
    "adamw": gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3)),
    "int8": gradtx.stored(gradtx.adamw(1e-3), "int8"),
    "muon": gradtx.guard(gradtx.muon(1e-3)),
}


def run(name: str) -> dict[str, Any]:
    """Parameters, a state in which every array has numbers of its own, and the number of a step."""
    params = {"kernel": jnp.zeros((16, 1024)), "bias": jnp.zeros(32, jnp.bfloat16)}
    shapes = jax.eval_shape(lambda: {"params": params, "state": RUNS[name].init(params)})
    generator = np.random.default_rng(0)

    def numbers(struct: Any) -> Any:
        size, dtype = int(np.prod(struct.shape)), struct.dtype
        if jnp.issubdtype(dtype, jnp.integer):
            return jnp.asarray(generator.integers(0, 100, size).reshape(struct.shape), dtype)
        return jnp.asarray(generator.normal(size=size).reshape(struct.shape), dtype)

    return jax.tree.map(numbers, shapes) | {"step": 7}


def place(tree: Any, mesh: Mesh, spec: PartitionSpec) -> Any:
    """Arrays whose axes divide are cut, others whole on the mesh; counts stay on each process."""

    def put(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or leaf.ndim == 0:
            return leaf
        sharding = NamedSharding(mesh, PartitionSpec(*spec[: leaf.ndim]))
        try:
            sharding.shard_shape(leaf.shape)
        except ValueError:
            sharding = NamedSharding(mesh, PartitionSpec())
        return jax.device_put(np.asarray(leaf), sharding)

    return jax.tree.map(put, tree)
