"""`state_shardings`: the shardings of a state from those of the parameters, without arrays."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

import gradtx
from gradtx.tree.paths import path_text

P = PartitionSpec
TX = gradtx.adamw(0.1)
SHAPES = {
    "bias": jax.ShapeDtypeStruct((8,), jnp.float32),
    "kernel": jax.ShapeDtypeStruct((8, 4), jnp.float32),
}
CUTS = {"bias": P("data"), "kernel": P("data", "model")}
ABSTRACT = AbstractMesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "model"))


def put(mesh: Mesh) -> dict[str, jax.Array]:
    """Ones that are cut over a mesh."""
    return {
        name: jax.device_put(jnp.ones(shape.shape), NamedSharding(mesh, CUTS[name]))
        for name, shape in SHAPES.items()
    }


def specs(shardings: Any, mesh: Any) -> dict[str, PartitionSpec]:
    """The spec of each array by path; all of them are on one mesh."""
    leaves = jax.tree_util.tree_leaves_with_path(shardings)
    assert {one.mesh for _, one in leaves} == {mesh}
    return {path_text(path): one.spec for path, one in leaves}


EXPECTED = {
    "count": P(),
    "slots/scale_by_adam/mu/bias": P("data"),
    "slots/scale_by_adam/mu/kernel": P("data", "model"),
    "slots/scale_by_adam/nu/bias": P("data"),
    "slots/scale_by_adam/nu/kernel": P("data", "model"),
}


def test_arrays_say_the_shardings_of_the_state(mesh: Mesh) -> None:
    params = put(mesh)
    shardings = gradtx.state_shardings(TX, params)
    assert specs(shardings, mesh) == EXPECTED
    state = jax.jit(TX.init, out_shardings=shardings)(params)
    assert jax.tree.map(lambda one: one.sharding, state) == shardings


def test_specs_stand_beside_shapes(mesh: Mesh) -> None:
    assert specs(gradtx.state_shardings(TX, SHAPES, CUTS, mesh=ABSTRACT), ABSTRACT) == EXPECTED
    with jax.set_mesh(mesh):
        assert specs(gradtx.state_shardings(TX, SHAPES, CUTS), mesh) == EXPECTED
        inside = jax.jit(lambda: jax.tree.map(lambda _: 0, gradtx.state_shardings(TX, SHAPES, P())))
        assert jax.tree.leaves(inside()) == [0] * 5


def test_one_sharding_is_for_all_parameters(mesh: Mesh) -> None:
    whole = specs(gradtx.state_shardings(TX, put(mesh), NamedSharding(mesh, P())), mesh)
    assert whole == dict.fromkeys(EXPECTED, P())
    free = gradtx.state_shardings(TX, SHAPES, P(P.UNCONSTRAINED), mesh=ABSTRACT)
    assert specs(free, ABSTRACT) == whole


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_another_mesh_may_be_set(mesh: Mesh, kind: AxisType) -> None:
    other = jax.make_mesh((8,), ("x",), axis_types=(kind,))
    with jax.set_mesh(other):
        assert specs(gradtx.state_shardings(TX, put(mesh)), mesh) == EXPECTED


def test_leaves_without_a_sharding_are_replicated(mesh: Mesh) -> None:
    params = {"w": put(mesh)["kernel"], "none": None, "host": np.ones(3), "number": 2.0}
    paths = specs(gradtx.state_shardings(TX, params), mesh)
    assert {path.split("/")[-1]: spec for path, spec in paths.items()} == {
        "count": P(),
        "w": P("data", "model"),
        "host": P(),
        "number": P(),
    }


def test_explicit_axes_and_other_libraries(mesh: Mesh) -> None:
    explicit = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    assert specs(gradtx.state_shardings(TX, put(explicit)), explicit) == EXPECTED
    theirs = gradtx.state_shardings(optax.adamw(0.1), put(mesh))
    assert [one.spec for one in jax.tree.leaves(theirs)] == list(EXPECTED.values())


def test_arrays_on_one_device(mesh: Mesh) -> None:
    params = jax.device_put({"w": np.ones(2)}, jax.devices()[3])
    shardings = gradtx.state_shardings(TX, params)
    assert {one.device_set == {jax.devices()[3]} for one in jax.tree.leaves(shardings)} == {True}


def other_mesh() -> Any:
    cut = NamedSharding(AbstractMesh((8,), ("x",)), P("x"))
    shape = jax.ShapeDtypeStruct((8,), jnp.float32, sharding=cut)
    own = jax.ShapeDtypeStruct((8,), jnp.float32, sharding=NamedSharding(ABSTRACT, P("data")))
    return gradtx.state_shardings(TX, {"a": own, "b": shape})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: gradtx.state_shardings(TX, {"w": SHAPES["bias"]}),
            "state_shardings: the parameters are on no mesh; give arrays, or "
            "jax.ShapeDtypeStructs, with a NamedSharding, or shardings=: "
            "{'w': ShapeDtypeStruct(shape=(8,), dtype=float32)}",
        ),
        (
            lambda: gradtx.state_shardings(TX, SHAPES, CUTS),
            "state_shardings: 'bias' has the spec P('data',), and no mesh is known: give mesh=, or "
            "call within jax.set_mesh(mesh)",
        ),
        (
            lambda: gradtx.state_shardings(TX, SHAPES, {"bias": P()}, mesh=ABSTRACT),
            "state_shardings: shardings= must be a tree like the parameters, or a prefix of it; "
            "its leaves are 'bias', those of the parameters 'bias', 'kernel'",
        ),
        (
            lambda: gradtx.state_shardings(TX, SHAPES, P("data", "model"), mesh=ABSTRACT),
            "state_shardings: 'bias' is f32[8], and its spec P('data', 'model') has 2 axes",
        ),
        (
            lambda: gradtx.state_shardings(TX, SHAPES, P("x"), mesh=ABSTRACT),
            "state_shardings: 'bias' has the spec P('x',), and the mesh has no axis 'x'; its axes "
            "are 'data', 'model'",
        ),
        (
            lambda: gradtx.state_shardings(
                TX, {"w": jax.ShapeDtypeStruct((5,), jnp.float32)}, P("data"), mesh=ABSTRACT
            ),
            "state_shardings: 'w' is f32[5], and 4 devices, the axis 'data' of its spec "
            "P('data',), do not divide 5: choose another spec",
        ),
        (
            other_mesh,
            "state_shardings: 'a' is on the mesh {'data': 4, 'model': 2}, and 'b' on {'x': 8}: put "
            "all parameters on one mesh",
        ),
    ],
)
def test_errors_name_the_parameter_and_the_cure(call: Any, message: str) -> None:
    with pytest.raises(gradtx.GradtxError) as error:
        call()
    assert str(error.value) == message
