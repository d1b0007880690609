"""Codes of arrays that XLA divides: the numbers of one device, and no array put together again."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gradtx

P = PartitionSpec
ADAMW = gradtx.adamw(1e-2)
SHAPES = {"w": (128, 96), "short": (64, 128), "stack": (2, 64, 64), "vector": (4096,)}
"""`short` has two blocks of rows, fewer than devices."""
ROWS = {"w": P("d"), "short": P("d"), "stack": P(None, "d"), "vector": P("d")}
BOTH = {"w": P("d", "m"), "short": P("m", "d"), "stack": P(None, "d", "m"), "vector": P("d")}
MESHES = {"4": ((4, 1), ROWS), "8": ((8, 1), ROWS), "4x2": ((4, 2), BOTH)}
GATHERED = re.compile(r" = \(?\w+\[([\d,]*)\]\S* all-(?:gather|to-all)(?:-start)?\(")


def arrays(seed: int) -> dict[str, jax.Array]:
    generator = np.random.default_rng(seed)
    return {
        name: jnp.asarray(generator.normal(size=shape), jnp.float32)
        for name, shape in SHAPES.items()
    }


def on_mesh(name: str) -> Any:
    """A function that cuts a tree over the first devices."""
    shape, specs = MESHES[name]
    devices = np.array(jax.devices()[: shape[0] * shape[1]]).reshape(shape)
    mesh = Mesh(devices, ("d", "m"))
    cut = {leaf: NamedSharding(mesh, spec) for leaf, spec in specs.items()}
    return functools.partial(jax.device_put, device=cut)


def train(tx: Any, put: Any) -> tuple[dict[str, Any], Any]:
    """Three steps: all that remains, by path, and the program of a step."""
    step = jax.jit(lambda params, state, grads: gradtx.update_params(tx, grads, state, params))
    params = put(arrays(0))
    state = tx.init(params)
    text = step.lower(params, state, put(arrays(1))).compile().as_text()
    for seed in (1, 2, 3):
        params, state = jax.block_until_ready(step(params, state, put(arrays(seed))))
    return {**gradtx.flatten_state(state), **params}, text


@functools.cache
def on_one(codec: Any) -> dict[str, Any]:
    return train(gradtx.stored(ADAMW, codec), jax.device_put)[0]


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("codec", ["bf16+8", "int8", "packed16"])
def test_many_devices_compute_the_numbers_of_one(codec: Any, mesh: str) -> None:
    """Codes and scales bit for bit; no array of codes or of entries is gathered."""
    found, text = train(gradtx.stored(ADAMW, codec), on_mesh(mesh))
    for path, one in on_one(codec).items():
        if path in SHAPES:  # XLA contracts the last additions in another order: 2 units of 2⁻²²
            np.testing.assert_allclose(found[path], one, rtol=0, atol=5e-7)
        else:
            np.testing.assert_array_equal(found[path], one, err_msg=path)
    sizes = [np.prod([int(n) for n in one.split(",") if n]) for one in GATHERED.findall(text)]
    # The scales of vectors and of short arrays may be.
    assert all(size < min(map(np.prod, SHAPES.values())) for size in sizes), sizes


def test_codes_are_cut_as_their_arrays() -> None:
    """From `init` on, and also where a device has fewer rows than a block."""
    params = on_mesh("8")(arrays(0))
    state = gradtx.stored(ADAMW, "int8").init(params)
    for name, param in params.items():
        for slot in ("mu_codes", "nu_codes"):
            codes = getattr(state.slots["scale_by_adam"], slot)[name]
            assert codes.sharding.is_equivalent_to(param.sharding, param.ndim), (name, slot)


def test_a_program_with_temporaries_of_no_array() -> None:
    """Two passes write no entries in float32, on a CPU too."""
    tx, put = gradtx.stored(ADAMW, "int8"), on_mesh("4")
    mesh = put(arrays(0))["w"].sharding.mesh
    cut = NamedSharding(mesh, P("d"))
    params = {"w": jax.device_put(jnp.zeros((2048, 512)), cut)}
    step = jax.jit(lambda params, state, grads: gradtx.update_params(tx, grads, state, params))
    memory: Any = step.lower(params, tx.init(params), params).compile().memory_analysis()
    assert memory.temp_size_in_bytes <= 0.02 * memory.argument_size_in_bytes
