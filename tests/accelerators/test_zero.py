"""ZeRO-1 as the compilers for 16 TPU v5e and 8 H100 see it: the collectives of it and no others."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx
from benchmarks.compilers import ALIAS, H100
from tests.support.collectives import collectives

WIDTH, LAYERS = 512, 2
"""XLA:TPU gathers vectors of 1024 entries and fewer by an all-reduce."""
LEAVES = 3 * LAYERS
BYTES = 4 * LAYERS * (8 * WIDTH * WIDTH + 4 * WIDTH)
PLACES = {
    "cuda": {"topology_name": "", "target_config": H100, "topology": "1x1x8"},
    "tpu": {"topology_name": "v5e:4x4"},
}
REDUCE = {"cuda": "reduce-scatter", "tpu": "all-reduce"}
"""XLA:TPU has an all-reduce and a slice on these 16 chips; `psum_scatter` becomes the same."""


@functools.cache
def mesh_for(platform: str) -> Mesh:
    topology = topologies.get_topology_desc(platform=platform, **PLACES[platform])
    return Mesh(np.array(topology.devices).ravel(), ("data",))


def loss(params: Any, x: jax.Array) -> jax.Array:
    for layer in params.values():
        hidden = jnp.tanh(x @ layer["up"] + layer["bias"][None])
        x = x + hidden @ layer["down"]
    return jnp.mean(x**2)


def on_mesh(mesh: Mesh, shape: tuple[int, ...], spec: P, dtype: Any = jnp.float32) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))


def compiled(platform: str, inner: Any, **options: Any) -> Any:
    """One step of a small network whose parameters are whole on each device."""
    mesh = mesh_for(platform)
    shapes = {"bias": (4 * WIDTH,), "down": (4 * WIDTH, WIDTH), "up": (WIDTH, 4 * WIDTH)}
    layer = {name: on_mesh(mesh, shape, P()) for name, shape in shapes.items()}
    params = {f"layer{number}": layer for number in range(LAYERS)}
    spec = {one.path: one.spec for one in gradtx.sharding.cuts(gradtx.sharded(inner), params)}
    assert set(spec.values()) == {P("data")}
    state = jax.tree.map(
        lambda one: on_mesh(mesh, one.shape, P("data") if one.ndim else P(), one.dtype),
        jax.eval_shape(inner.init, params),
    )
    step = gradtx.make_step(loss, gradtx.sharded(inner, **options))
    x = on_mesh(mesh, (64 * mesh.size, WIDTH), P("data"))
    lowered = step.trace(params, state, x).lower(lowering_platforms=(platform,))
    return lowered.compile(), len(jax.tree.leaves((params, state)))


CASES = {
    "adamw": (gradtx.adamw(1e-3), 0),
    "clip and adamw": (gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3)), 1),
}


@pytest.mark.parametrize("platform", sorted(PLACES))
@pytest.mark.parametrize("name", sorted(CASES))
def test_n_arrays_are_reduced_and_gathered_once(name: str, platform: str) -> None:
    """And a number of the loss, and one more for the norm; parameters and state are in place."""
    inner, norms = CASES[name]
    program, arguments = compiled(platform, inner)
    text = program.as_text()
    counts = collectives(text)
    print(f"\n{platform} {counts}")
    expected = {REDUCE[platform]: LEAVES, "all-gather": LEAVES}
    # XLA:GPU sends the loss and the norm as one array of two numbers.
    scalars = 1 if platform == "cuda" else 1 + norms
    expected["all-reduce"] = expected.get("all-reduce", 0) + scalars
    assert counts.operands == expected
    assert sum(counts.bytes.values()) == 2 * BYTES + 4 * (1 + norms)
    assert len(ALIAS.findall(text.partition("\n")[0])) == arguments
    devices = mesh_for(platform).size
    whole, state = BYTES, 2 * BYTES // devices
    batch = 64 * WIDTH * 4
    # A TPU fills up the parts of biases to its tiles.
    assert program.memory_analysis().argument_size_in_bytes <= (whole + state + batch) * 1.02


@pytest.mark.parametrize("platform", sorted(PLACES))
def test_a_gather_in_bfloat16_moves_half_the_bytes(platform: str) -> None:
    program, _ = compiled(platform, gradtx.adamw(1e-3), gather_dtype=jnp.bfloat16)
    counts = collectives(program.as_text())
    assert counts.bytes["all-gather"] <= BYTES // 2 * 1.001
    assert counts.operands["all-gather"] == LEAVES
