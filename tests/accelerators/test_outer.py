"""`outer` as the TPU compiler sees it, on 16 chips in two groups: what crosses between them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import gradtx
from tests.support.collectives import collectives
from tests.support.conditionals import split_conditionals
from tests.support.replica_groups import collectives_across

P = PartitionSpec
SHAPES = {"w1": (256, 512), "b": (512,), "w2": (512, 128)}
ENTRIES = sum(int(np.prod(shape)) for shape in SHAPES.values())


def loss(params: Any, x: Any, y: Any) -> jax.Array:
    hidden = jnp.tanh(x @ params["w1"] + params["b"][None])
    return jnp.mean((hidden @ params["w2"] - y) ** 2)


@functools.cache
def compiled_text(compress: Any) -> str:
    """One step of two replicas on v5e:4x4, eight chips each."""
    chips = topologies.get_topology_desc(platform="tpu", topology_name="v5e:4x4").devices
    mesh = Mesh(np.array(chips).reshape(2, 8), ("replica", "data"), axis_types=(AxisType.Auto,) * 2)
    outer = gradtx.sgd(0.7, momentum=0.5, nesterov=True)
    tx = gradtx.outer(gradtx.muon(1e-2), outer, every=30, replicas=2, compress=compress)

    def step(params: Any, state: Any, x: Any, y: Any) -> Any:
        grads = jax.grad(lambda params: jax.vmap(loss)(params, x, y).sum())(params)
        updates, state = tx.update(grads, state, params)
        return gradtx.apply_updates(params, updates), state

    def placed(shape: Any, *names: str, dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, P(*names)))

    params = {name: placed((2, *shape), "replica") for name, shape in SHAPES.items()}

    def placed_slot(slot: Any) -> Any:
        names = ("replica",) if slot.shape[:1] == (2,) else ()
        return placed(slot.shape, *names, dtype=slot.dtype)

    state = jax.tree.map(placed_slot, jax.eval_shape(tx.init, params))
    x, y = (placed((2, 64, size), "replica", "data") for size in (256, 128))
    with jax.set_mesh(mesh):
        traced = jax.jit(step, donate_argnums=(0, 1)).trace(params, state, x, y)
        return str(traced.lower(lowering_platforms=("tpu",)).compile().as_text())


@pytest.mark.parametrize("compress", [None, "int8"])
def test_only_synchronisations_cross(compress: str | None) -> None:
    """Nothing crosses outside of conditionals; inside, float32, or a byte an entry and its scales.

    XLA:TPU sends the 16 scales of a vector as a sum of 512 bytes.
    """
    always, branches = split_conditionals(compiled_text(compress))
    assert collectives_across(always, boundary=8) == ""
    sizes = collectives(collectives_across(branches, boundary=8)).bytes
    if compress is None:
        assert sizes == {"all-reduce": 4 * ENTRIES}
    else:
        codes = 2 * (ENTRIES + 2 * ENTRIES // 32)
        assert codes <= sum(sizes.values()) <= codes + 512
