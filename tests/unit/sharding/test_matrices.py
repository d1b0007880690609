"""Rules on matrices whose parameters are spread over devices: numbers, moves, and random keys."""

import json
import pickle
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import gradtx
import gradtx.sharding
from gradtx.tree.known_shardings import known_shardings


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


P = PartitionSpec
SHAPES = {
    "down": (32, 16),
    "experts": (4, 16, 8),
    "fused": (16, 24),
    "one": (8, 40),
    "out": (16, 16),
    "query": (16, 4, 4),
    "stack": (3, 16, 16),
    "value": (16, 16),
    "whole": (6, 10),
}
SPECS = {
    "down": P(("d", "m")),
    "experts": P("d", "m"),
    "fused": P("m", "d"),
    "one": P("m", "d"),
    "out": P("m", "d"),
    "query": P("d", "m"),
    "stack": P(None, "d", "m"),
    "value": P("d", "m"),
    "whole": P(),
}
"""Both axes on either side, one side over both, a cut batch, cut heads, a leaf on all devices."""
AXES = [("query", "in out out"), ("fused", "in out/3")]


def arrays(seed: int, dtype: Any) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    return {name: jnp.asarray(generator.normal(size=SHAPES[name]), dtype) for name in SHAPES}


def mesh_of_eight(kind: AxisType) -> Any:
    return jax.make_mesh((4, 2), ("d", "m"), axis_types=(kind,) * 2)


def place(tree: Any, mesh: Any) -> Any:
    return {name: jax.device_put(tree[name], NamedSharding(mesh, SPECS[name])) for name in tree}


def run(tx: Any, params: Any, grads: Any, known: Any) -> Any:
    """The updates of two steps and the state, each step in a program that knows `known`."""

    def step(grads: Any, state: Any, params: Any) -> Any:
        with known_shardings(known):
            return tx.update(grads, state, params)

    state, updates = tx.init(params), params
    for _ in range(2):
        updates, state = jax.block_until_ready(jax.jit(step)(grads, state, params))
    return updates, state


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("kind", ["automatic", "eager", "explicit", "owners"])
def test_eight_devices_give_the_numbers_of_one(kind: str, bits: int) -> None:
    with jax.enable_x64(bits == 64):
        dtype = jnp.float64 if bits == 64 else jnp.float32
        params, grads = arrays(0, dtype), arrays(1, dtype)
        tx = gradtx.scale_by_muon(dimensions=AXES)
        expected, expected_state = run(tx, params, grads, {})
        mesh = mesh_of_eight(AxisType.Explicit if kind == "explicit" else AxisType.Auto)
        sharded, pushed = place(params, mesh), place(grads, mesh)
        known = {name: leaf.sharding for name, leaf in sharded.items()}
        if kind == "owners":
            shard = gradtx.sharding.owners(sharded, ("d", "m"))
            tx = gradtx.scale_by_muon(dimensions=AXES, shard=shard)
        if kind == "eager":
            state, updates = tx.init(sharded), sharded
            for _ in range(2):
                updates, state = jax.block_until_ready(tx.update(pushed, state, sharded))
        else:
            updates, state = run(tx, sharded, pushed, known if kind == "automatic" else {})
        for name, update in updates.items():
            assert update.sharding.is_equivalent_to(known[name], update.ndim), name
        chex.assert_trees_all_close(
            jax.device_get((updates, state)),
            jax.device_get((expected, expected_state)),
            rtol=0,
            atol=1e-10 if bits == 64 else 1e-5,  # products are summed in another order
        )


def test_matrices_go_to_owners_where_a_trace_knows_the_shardings() -> None:
    """Without a word nothing is gathered; `shard=False` leaves all to XLA."""
    mesh = mesh_of_eight(AxisType.Auto)
    params = {
        f"layer{n}": jax.device_put(jnp.ones((16, 16)) + n, NamedSharding(mesh, P("d", "m")))
        for n in range(8)
    }
    known = {name: leaf.sharding for name, leaf in params.items()}

    def text(tx: Any, known: Any) -> str:
        def step(grads: Any, state: Any) -> Any:
            with known_shardings(known):
                return tx.update(grads, state)

        found = jax.jit(step).lower(params, tx.init(params)).compile().as_text()
        assert found is not None
        return found

    counts = {
        name: (found.count(" all-to-all("), found.count(" all-gather("))
        for name, found in {
            "known": text(gradtx.scale_by_muon(), known),
            "owners": text(gradtx.scale_by_muon(shard=gradtx.sharding.owners(params, "d")), {}),
            "unknown": text(gradtx.scale_by_muon(), {}),
            "left": text(gradtx.scale_by_muon(shard=False), known),
        }.items()
    }
    assert counts["known"] == counts["owners"] == (2, 0)
    assert counts["unknown"] == counts["left"]
    assert counts["left"][0] == 0 and counts["left"][1] > 8


def test_one_matrix_is_not_spread_over_devices() -> None:
    """No device stores more matrices than there are: each gathers the one, and none pads it."""
    mesh = Mesh(np.array(jax.devices()), ("x",))
    whole = {"w": jnp.ones((512, 512))}
    params = jax.device_put(whole, NamedSharding(mesh, P("x")))
    tx = gradtx.scale_by_muon(shard=gradtx.sharding.owners(params, "x"))
    ours = jax.jit(tx.update).lower(params, tx.init(params)).compile()
    alone = jax.jit(gradtx.scale_by_muon().update).lower(whole, tx.init(whole)).compile()
    text = ours.as_text()
    assert text is not None
    assert "all-to-all" not in text and text.count(" all-gather(") == 1
    memory: Any = [one.memory_analysis() for one in (ours, alone)]
    temporaries = [one.temp_size_in_bytes for one in memory]
    # A stack filled up to eight matrices takes 15 of them.
    assert temporaries[0] <= 2 * temporaries[1] + 1024


def test_owners_are_data() -> None:
    """Names and sizes of axes, without devices: equal, printed, pickled, and JSON."""
    mesh = mesh_of_eight(AxisType.Auto)
    cut = NamedSharding(mesh, P(None, ("d", "m")))
    params = {"w": jax.device_put(jnp.ones((8, 8)), cut)}
    owners = gradtx.sharding.owners(params, "d")
    assert (
        repr(owners) == "Owners(axes=('d',), sizes={'d': 4, 'm': 2}, cuts={'w': ((), ('d', 'm'))})"
    )
    abstract = NamedSharding(mesh.abstract_mesh, cut.spec)
    shapes = {"w": jax.ShapeDtypeStruct((8, 8), jnp.float32, sharding=abstract)}
    assert gradtx.sharding.owners(shapes, ["d"]) == owners
    tx = gradtx.muon(0.1, shard=owners)
    assert pickle.loads(pickle.dumps(tx)) == tx
    assert gradtx.from_config(json.loads(json.dumps(gradtx.to_config(tx)))) == tx
    assert hash(gradtx.from_config(gradtx.to_config(tx))) == hash(tx)


def test_owners_name_what_they_lack() -> None:
    mesh = mesh_of_eight(AxisType.Auto)
    params = {"w": jax.device_put(jnp.ones((8, 8)), NamedSharding(mesh, P("d")))}
    with pytest.raises(gradtx.GradtxError, match="the mesh has no axis 'x'; its axes are 'd', 'm'"):
        gradtx.sharding.owners(params, "x")
    with pytest.raises(gradtx.GradtxError, match="the parameters are on 0 meshes"):
        gradtx.sharding.owners({"w": jnp.ones((8, 8))}, "x")
    tx = gradtx.scale_by_muon(shard="x")
    with pytest.raises(gradtx.GradtxError, match=r"shard = \('x',\) names axes of no mesh"):
        tx.update(params, tx.init(params))
