"""int8 state of arrays that XLA divides, as the compilers of TPU and GPU see it: nothing gathered,
nothing in memory beside the arguments.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gradtx
from benchmarks.compilers import COLLECTIVE, H100

P = PartitionSpec
TOPOLOGIES: dict[str, dict[str, Any]] = {
    "cuda": {"topology_name": "", "target_config": H100, "topology": "1x8x1"},
    "tpu": {"topology_name": "v5e:4x4"},
}
SHAPES = {"down": (8192, 2048), "up": (2048, 8192), "wide": (4096, 4096)}
ARRAYS = {"cuda": ("down", "up", "wide"), "tpu": ("up",)}
"""A program for TPU takes a second to compile for each array."""
LAYOUTS = {"FSDP": P("data"), "FSDP + TP": P("data", "model"), "ZeRO-1": P("data")}
TX = gradtx.stored(gradtx.adamw(1e-3), "int8")


def mesh_of(platform: str, layout: str) -> Mesh:
    devices = np.array(
        topologies.get_topology_desc(platform=platform, **TOPOLOGIES[platform]).devices
    )
    return Mesh(devices.reshape(-1, 2 if layout == "FSDP + TP" else 1), ("data", "model"))


def cut(leaf: Any, sharding: NamedSharding) -> Any:
    """The type of an array, cut where the sizes allow it."""
    sizes, spec = sharding.mesh.shape, (*sharding.spec, None, None)[: leaf.ndim]
    fits = (n % sizes.get(axis, 1) == 0 for n, axis in zip(leaf.shape, spec, strict=True))
    spec = P(*(axis if one else None for axis, one in zip(spec, fits, strict=True)))
    placed = NamedSharding(sharding.mesh, spec)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placed)


def step(like: Any, whole: Any, params: Any, state: Any, grads: Any) -> Any:
    """A step whose update and state are cut as arrays are."""
    constrain = jax.lax.with_sharding_constraint
    params, grads = constrain((params, grads), like)
    params, state = gradtx.update_params(TX, grads, state, params)
    return constrain(params, whole), state


@functools.cache
def compiled(platform: str, layout: str) -> Any:
    mesh = mesh_of(platform, layout)
    divided = NamedSharding(mesh, LAYOUTS[layout])
    whole = NamedSharding(mesh, P()) if layout == "ZeRO-1" else divided
    shapes = {name: jax.ShapeDtypeStruct(SHAPES[name], jnp.float32) for name in ARRAYS[platform]}
    params = jax.tree.map(lambda leaf: cut(leaf, whole), shapes)
    state = jax.tree.map(lambda leaf: cut(leaf, divided), jax.eval_shape(TX.init, shapes))
    run = jax.jit(
        functools.partial(step, divided, whole),
        donate_argnums=(0, 1),
        out_shardings=(whole, jax.tree.map(lambda leaf: leaf.sharding, state)),
    )
    lowered = run.trace(params, state, params).lower(lowering_platforms=(platform,))
    return lowered.compile()


@pytest.mark.parametrize("layout", ["FSDP", "FSDP + TP"])
@pytest.mark.parametrize("platform", sorted(TOPOLOGIES))
def test_divided_codes_need_no_memory(platform: str, layout: str) -> None:
    """No collectives; the temporary bytes are those of scales."""
    program = compiled(platform, layout)
    memory = program.memory_analysis()
    assert COLLECTIVE.findall(program.as_text()) == []
    assert memory.temp_size_in_bytes <= 0.02 * memory.argument_size_in_bytes


@pytest.mark.parametrize("platform", sorted(TOPOLOGIES))
def test_parameters_alone_are_gathered(platform: str) -> None:
    """With whole parameters and divided state, each new parameter is gathered once."""
    found = COLLECTIVE.findall(compiled(platform, "ZeRO-1").as_text())
    assert found == ["all-gather"] * len(ARRAYS[platform]), "one for each array"
