"""Arrays that are cut as other arrays: by their sharding where it is known, else by XLA."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

import gradtx
from gradtx.tree.cut_along import cut_along, sharding_along
from gradtx.tree.known_shardings import known_shardings

P = PartitionSpec
CASES = {
    "same axes": ((16, 8), None, P("data", "model")),
    "transposed": ((8, 16), (1, 0), P("model", "data")),
    "one axis": ((8,), (1,), P("model")),
    "a square": ((16, 16), (0, None), P("data")),
    "a stack": ((3, 16, 8), (None, 0, 1), P(None, "data", "model")),
    "parts of an axis": ((4, 5), (0, None), P("data")),
    "no common length": ((5,), (0,), P()),
}


def array(kind: AxisType = AxisType.Auto) -> Any:
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(kind,) * 2)
    return jax.device_put(jnp.full((16, 8), jnp.nan), NamedSharding(mesh, P("data", "model")))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("name", sorted(CASES))
def test_axes_follow_the_array_inside_of_jit_and_outside(name: str, kind: AxisType) -> None:
    shape, axes, spec = CASES[name]
    like = array(kind)
    values = jnp.asarray(np.arange(np.prod(shape), dtype=np.float32).reshape(shape))
    cut = functools.partial(cut_along, values, axes=axes)
    with jax.set_mesh(like.sharding.mesh):
        for result in (cut(like), jax.jit(cut)(like)):
            expected = NamedSharding(like.sharding.mesh, spec)
            assert result.sharding.is_equivalent_to(expected, len(shape))
            assert (np.asarray(result) == np.asarray(values)).all()  # the array is nan


def test_a_program_stores_no_array_of_the_other_shape() -> None:
    like = array()
    row = jax.jit(lambda like: cut_along(jnp.zeros(16), like, (0,)))
    compiled: Any = row.lower(like).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= 2 * 4 * 16


def test_vmap_grad_and_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def first(like: jax.Array) -> jax.Array:
        return cut_along(jnp.ones(8), like, (1,)).sum() + like.sum()

    likes = jnp.ones((2, 16, 8))
    assert jax.jit(jax.vmap(first))(likes).tolist() == [136.0, 136.0]
    assert (jax.grad(first)(likes[0]) == 1).all()
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    assert len(jax.make_jaxpr(lambda like: cut_along(jnp.ones(8), like, (1,)))(likes[0]).eqns) == 1


def test_like_arrays_with_other_shardings_share_a_trace() -> None:
    """Both lie as their own parameter, though one program makes the slots of both."""
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "model"))
    specs = {"a": P("data"), "b": P(None, "model"), "c": P("model", "data"), "d": P()}
    params = {
        name: jax.device_put(jnp.ones((8, 8)), NamedSharding(mesh, spec))
        for name, spec in specs.items()
    }
    mu = jax.jit(gradtx.adamw(0.1).init)(params).mu
    assert {name: one.sharding.spec for name, one in mu.items()} == specs


def test_a_mesh_without_devices_places_nothing() -> None:
    mesh = AbstractMesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    like = jax.ShapeDtypeStruct((8, 4), jnp.float32, sharding=NamedSharding(mesh, P("data")))
    assert sharding_along((8,), like, (0,)) == NamedSharding(mesh, P("data"))
    assert cut_along(jnp.zeros(8), like, (0,)).sharding == jnp.zeros(8).sharding


@pytest.mark.parametrize("wrap", [lambda init: init, jax.jit])
def test_init_cuts_slots_as_was_said_of_a_path(wrap: Any) -> None:
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "model"))
    params = jax.device_put({"w": jnp.ones((8, 8)), "b": jnp.ones(3)}, NamedSharding(mesh, P()))
    cut = NamedSharding(mesh, P("data"))
    with known_shardings({"w": cut, "b": cut}):  # four devices do not divide the three of b
        state = wrap(gradtx.scale_by_factored_rms(min_dim_size_to_factor=2).init)(params)
    rows, columns = state.nu_row["w"], state.nu_col["w"]
    assert {one.sharding.spec for one in (rows, columns)} == {P(), P("data")}


def test_numbers_of_an_eager_init_lie_on_the_mesh() -> None:
    like = array()
    state = gradtx.guard(gradtx.adamw(0.1)).init({"w": like})
    meshes = {one.sharding.mesh for one in jax.tree.leaves(state)}
    assert meshes == {like.sharding.mesh}
    assert state.count.sharding.is_fully_replicated
