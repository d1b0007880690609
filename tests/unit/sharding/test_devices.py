"""Several devices: shardings are kept, shard_map and jit give the numbers of one device, leaves may
be spread.
"""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gradtx

TX = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(0.1, weight_decay=0.1))
PARAMS = {"w": jnp.arange(32.0).reshape(8, 4) / 10, "v": jnp.arange(8.0)}


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    assert len(jax.devices()) == 8
    return Mesh(np.array(jax.devices()), ("x",))


def train(params: Any, steps: int = 3) -> Any:
    """Steps in a scan whose gradients are the parameters."""

    def body(carry: Any, _: None) -> Any:
        params, state = carry
        updates, state = TX.update(params, state, params)
        return (gradtx.apply_updates(params, updates), state), None

    return jax.lax.scan(body, (params, TX.init(params)), None, length=steps)[0]


def test_sharded_parameters_give_the_numbers_of_one_device(mesh: Mesh) -> None:
    sharded = jax.device_put(PARAMS, NamedSharding(mesh, PartitionSpec("x")))
    ours, expected = jax.jit(train)(sharded), jax.jit(train)(PARAMS)
    chex.assert_trees_all_close(
        ours, expected, rtol=1e-5, atol=1e-8
    )  # the norm is summed in another order


def test_eager_steps_keep_the_sharding(mesh: Mesh) -> None:
    sharding = NamedSharding(mesh, PartitionSpec("x"))
    params = jax.device_put(PARAMS, sharding)
    state = TX.init(params)
    updates, state = TX.update(params, state, params)
    for leaf in jax.tree.leaves((updates, state.slots, gradtx.apply_updates(params, updates))):
        assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim)


def test_shard_map_over_a_replicated_model_with_sharded_batches(mesh: Mesh) -> None:
    """Data parallelism by hand: gradients are averaged, every device takes the same step."""
    batch = jnp.linspace(0.0, 1.0, 8)

    def loss(params: Any, x: jax.Array) -> jax.Array:
        return jnp.mean(x) * (jnp.sum(params["w"] ** 2) + jnp.sum(params["v"]))

    def step(params: Any, state: Any, x: jax.Array) -> Any:
        grads = jax.lax.pmean(jax.grad(loss)(params, x), "x")
        updates, state = replicated.update(grads, state, params)
        return gradtx.apply_updates(params, updates), state

    replicated = gradtx.over_axes(TX, ())  # without types, nothing else says that arrays are whole
    spec = PartitionSpec()
    mapped = jax.jit(
        jax.shard_map(
            step,
            mesh=mesh,
            in_specs=(spec, spec, PartitionSpec("x")),
            out_specs=spec,
            check_vma=False,
        )
    )
    ours, _ = mapped(PARAMS, TX.init(PARAMS), batch)
    updates, _ = TX.update(jax.grad(loss)(PARAMS, batch), TX.init(PARAMS), PARAMS)
    chex.assert_trees_all_close(ours, gradtx.apply_updates(PARAMS, updates), rtol=1e-5)


def test_shard_map_over_a_sharded_model(mesh: Mesh) -> None:
    """Elementwise methods run on shards as they are; the scan's carry keeps its types."""
    tx = gradtx.adamw(0.1)

    def steps(params: Any) -> Any:
        def body(carry: Any, _: None) -> Any:
            params, state = carry
            updates, state = tx.update(params, state, params)
            return (gradtx.apply_updates(params, updates), state), None

        return jax.lax.scan(body, (params, tx.init(params)), None, length=3)[0][0]

    spec = PartitionSpec("x")
    chex.assert_trees_all_close(
        jax.jit(jax.shard_map(steps, mesh=mesh, in_specs=spec, out_specs=spec))(PARAMS),
        jax.jit(steps)(PARAMS),
        rtol=1e-6,
    )


def test_leaves_on_different_devices_step_eagerly() -> None:
    """Like leaves are bundled by device, so a model spread over devices by hand works without
    jit.
    """
    tx = gradtx.sgd(0.1, momentum=0.9)
    params = {
        f"w{i}": jax.device_put(jnp.ones(3), device) for i, device in enumerate(jax.devices() * 2)
    }
    updates, state = tx.update(params, tx.init(params))
    new = gradtx.apply_updates(params, updates)
    assert {name: leaf.devices() for name, leaf in new.items()} == {
        name: leaf.devices() for name, leaf in params.items()
    }
    chex.assert_trees_all_close(
        jax.tree.map(np.asarray, new),
        jax.tree.map(lambda leaf: np.full(3, 0.9, np.float32), params),
    )
    assert int(state.count) == 1
