"""Rules on matrices whose parameters are spread over devices: numbers, moves, and random keys."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import gradtx
import gradtx.sharding


def steps(tx: gradtx.GradientTransformation, params: Any, grads: Any) -> Any:
    state = tx.init(params)
    for _ in range(2):
        updates, state = jax.jit(tx.update)(grads, state, params)
        params = gradtx.apply_updates(params, updates)
    return params


def network(seed: int) -> dict[str, Any]:
    """Three layers with matrices of two shapes, one of them a stack, and a bias."""
    generator = np.random.default_rng(seed)
    shapes = {"up": (16, 32), "down": (32, 16), "heads": (3, 16, 32), "bias": (16,)}
    return {
        f"layer{i}": {
            name: jnp.asarray(generator.normal(size=shape), jnp.float32)
            for name, shape in shapes.items()
        }
        for i in range(3)
    }


HEADS = [("heads", "batch in out")]


@pytest.mark.parametrize("kind", ["auto", "explicit"])
def test_spread_over_devices_the_numbers_are_those_of_one(kind: str) -> None:
    params, grads = network(0), network(1)
    expected = steps(gradtx.muon(0.1, dimensions=HEADS), params, grads)
    mesh = jax.make_mesh(
        (len(jax.devices()),),
        ("x",),
        axis_types=(AxisType.Auto if kind == "auto" else AxisType.Explicit,),
    )
    rows = {"heads": PartitionSpec(None, "x")}
    cut = {
        name: NamedSharding(mesh, rows.get(name, PartitionSpec("x"))) for name in params["layer0"]
    }
    sharded, pushed = (
        {layer: jax.device_put(arrays, cut) for layer, arrays in tree.items()}
        for tree in (params, grads)
    )
    with jax.set_mesh(mesh):
        named = steps(gradtx.muon(0.1, dimensions=HEADS, shard="x"), sharded, pushed)
        left = steps(gradtx.muon(0.1, dimensions=HEADS), sharded, pushed)
    owned = steps(
        gradtx.muon(0.1, dimensions=HEADS, shard=gradtx.sharding.owners(sharded, "x")),
        sharded,
        pushed,
    )
    for ours in (named, left, owned):
        chex.assert_trees_all_close(
            jax.device_get(ours), expected, rtol=0, atol=1e-5
        )  # products are summed in another order


def test_spread_matrices_move_all_to_all() -> None:
    """No device gathers what it does not work on; eager updates lie as their gradients do."""
    mesh = Mesh(np.array(jax.devices()), ("x",))
    plain = {
        layer: {"up": arrays["up"], "down": arrays["down"]} for layer, arrays in network(0).items()
    }
    params = jax.device_put(plain, NamedSharding(mesh, PartitionSpec("x")))
    tx = gradtx.muon(0.1, shard=gradtx.sharding.owners(params, "x"))
    text = jax.jit(tx.update).lower(params, tx.init(params), params).compile().as_text()
    assert text is not None and "all-to-all" in text and "all-gather" not in text
    updates, _ = tx.update(params, tx.init(params), params)
    assert updates["layer0"]["up"].sharding.is_equivalent_to(params["layer0"]["up"].sharding, 2)


@pytest.mark.parametrize(
    "make",
    [
        lambda **shard: gradtx.stored(gradtx.normuon(0.1, **shard), "packed16", min_size=0),
        lambda **shard: gradtx.psgd_kron(0.1, **shard),
        lambda **shard: gradtx.soap(0.1, refresh_every=2, one_sided=True, **shard),
    ],
    ids=["normuon", "psgd_kron", "soap"],
)
def test_what_is_kept_and_drawn_is_the_same_over_devices(make: Any) -> None:
    """Slots like the matrix, one for each output, factors and bases; a key for each matrix."""
    plain = {
        layer: {"up": arrays["up"], "bias": arrays["bias"]} for layer, arrays in network(0).items()
    }
    grads = {
        layer: {"up": arrays["up"], "bias": arrays["bias"]} for layer, arrays in network(1).items()
    }
    lie = NamedSharding(Mesh(np.array(jax.devices()), ("x",)), PartitionSpec("x"))
    sharded = jax.device_put(plain, lie)
    ours = steps(
        make(shard=gradtx.sharding.owners(sharded, "x")), sharded, jax.device_put(grads, lie)
    )
    chex.assert_trees_all_close(
        jax.device_get(ours), steps(make(), plain, grads), rtol=0, atol=1e-4
    )  # a bfloat16 may round otherwise
