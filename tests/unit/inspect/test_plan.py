"""`plan`: bytes as XLA counts them, FLOP by hand, and the text."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

import gradtx
from gradtx.inspect.plan_text import unit
from gradtx.inspect.plan_work import work_of

P = PartitionSpec
GRID = {"data": 4, "model": 2}
SPECS = {"attention": {"query": P("data", "model"), "scale": P()}, "embedding": P("model", "data")}
METHODS = {
    "adafactor": gradtx.adafactor(1e-3),
    "adamw": gradtx.adamw(1e-3),
    "clip": gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3)),
    "ema": gradtx.chain(gradtx.adamw(1e-3), gradtx.params_ema(0.9)),
    "guard": gradtx.guard(gradtx.lion(1e-3)),
    "muon": gradtx.muon(0.02),
    "packed16": gradtx.stored(gradtx.adamw(1e-3), "packed16"),
}


def shapes(dtype: Any = jnp.float32) -> Any:
    def leaf(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype)

    return {"attention": {"query": leaf(64, 32), "scale": leaf(5)}, "embedding": leaf(128, 64)}


def on_devices(tree: Any, like: Any, mesh: Mesh) -> Any:
    """Shapes on devices, cut as the types of other shapes say."""

    def place(leaf: Any, typed: Any) -> jax.ShapeDtypeStruct:
        spec = getattr(getattr(typed, "sharding", None), "spec", P())
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, P(*spec)))

    return jax.tree.map(place, tree, like)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_the_bytes_of_a_device_are_those_that_xla_counts(name: str) -> None:
    tx = METHODS[name]
    plan = gradtx.plan(tx, shapes(), mesh=GRID, shardings=SPECS)
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "model"))
    grid = AbstractMesh((4, 2), ("data", "model"), axis_types=(jax.sharding.AxisType.Explicit,) * 2)
    typed = jax.tree.map(
        lambda leaf, spec: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=NamedSharding(grid, spec)
        ),
        shapes(),
        SPECS,
    )
    with jax.sharding.use_abstract_mesh(grid):
        state = jax.eval_shape(tx.init, typed)
    params = on_devices(shapes(), typed, mesh)
    args = (params, on_devices(state, state, mesh), params)
    memory: Any = jax.jit(tx.update, keep_unused=True).lower(*args).compile().memory_analysis()
    assert plan.device_bytes == memory.argument_size_in_bytes


def test_adamw_moves_each_array_once_and_writes_what_changes() -> None:
    plan = gradtx.plan(gradtx.adamw(1e-3), shapes(jnp.bfloat16), mesh=GRID, shardings=SPECS)
    cut, whole = 64 * 32 + 128 * 64, 5
    own = cut // 8 + whole
    assert plan.device_bytes == (2 + 2 + 4 + 4) * own + 4
    assert plan.traffic == (2 * 2 + 2 + 2 * 8) * own + 2 * 4
    assert plan.seconds == plan.traffic / 819e9
    assert plan.work.product_flop == 0


@pytest.mark.parametrize(("spec", "parts"), [(P(), 1), (P("data"), 4), (P(("data", "model")), 8)])
def test_products_are_counted_through_loops_branches_and_calls(spec: Any, parts: int) -> None:
    """2 n² m for a product of (n, m) and (m, n); a batch axis that is cut divides all."""
    n, m, layers = 16, 48, 8
    grid = AbstractMesh((4, 2), ("data", "model"), axis_types=(jax.sharding.AxisType.Explicit,) * 2)
    stack = jax.ShapeDtypeStruct((layers, n, m), jnp.float32, sharding=NamedSharding(grid, spec))
    with jax.sharding.use_abstract_mesh(grid):
        work = work_of(nested, grid.shape, stack)
    assert work.product_flop == layers * (3 + 2 + 1) * 2 * n * n * m / parts


def nested(stack: jax.Array) -> Any:
    """A product in a loop of three, two in the costlier branch, and one in a call."""
    total, _ = jax.lax.scan(lambda sum, _: (sum + gram(stack), None), gram(stack) * 0, length=3)
    branch = jax.lax.cond(
        total.ndim > stack.shape[0], gram, lambda one: gram(one) + gram(one), stack
    )
    return total, branch


def gram(stack: jax.Array) -> jax.Array:
    return jnp.einsum("lnm,lkm->lnk", stack, stack)


def test_work_is_near_the_count_of_xla() -> None:
    tx = gradtx.muon(0.02)
    params = {"a": {"kernel": jnp.ones((32, 64))}, "b": {"kernel": jnp.ones((64, 32))}}
    compiled = jax.jit(tx.update).lower(params, tx.init(params), params).compile()
    cost: Any = compiled.cost_analysis()
    # XLA counts divisions, roots and comparisons of scalars in its own way, a few in a hundred.
    assert gradtx.plan(tx, params).work.flop == pytest.approx(cost["flops"], rel=0.05)


def test_a_refresh_counts_as_the_most_costly_step() -> None:
    kernel = {"kernel": jax.ShapeDtypeStruct((16, 16), jnp.float32)}
    often, seldom = (
        gradtx.plan(gradtx.soap(1e-3, refresh_every=every), kernel).work for every in (1, 10)
    )
    assert seldom.product_flop >= 0.9 * often.product_flop > 0


def test_replicated_arrays_come_with_their_reason() -> None:
    plan = gradtx.plan(gradtx.adamw(1e-3), shapes(), mesh=GRID, shardings=SPECS)
    reasons = {(row.kind, row.path): row.reason for row in plan.replicated}
    assert reasons["scale_by_adam/mu", "attention/scale"] == "its parameter is whole"
    assert reasons["count", ""] == "a scalar"
    assert len(reasons) == 5  # four arrays of `scale`, and the count


def test_shardings_of_the_parameters_say_the_mesh_and_the_cut() -> None:
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "model"))
    params = jax.device_put(
        jax.tree.map(lambda one: jnp.ones(one.shape), shapes()),
        jax.tree.map(lambda spec: NamedSharding(mesh, spec), SPECS),
    )
    said = gradtx.plan(gradtx.adamw(1e-3), shapes(), mesh=GRID, shardings=SPECS)
    assert gradtx.plan(gradtx.adamw(1e-3), params).rows == said.rows


def test_text() -> None:
    plan = gradtx.plan(gradtx.adamw(1e-3), shapes(jnp.bfloat16), mesh=GRID, shardings=SPECS)
    assert str(plan) == TEXT
    assert repr(plan) == "Plan(15,424 bytes a device, 8 devices)"


TEXT = """\
adamw(learning_rate=0.001) on 8 v5e (data = 4, model = 2)

memory            all devices  a device  whole on each
parameters            20.5 kB   2.57 kB           10 B
gradients             20.5 kB   2.57 kB           10 B
count                     4 B       4 B            4 B
scale_by_adam/mu      41.0 kB   5.14 kB           20 B
scale_by_adam/nu      41.0 kB   5.14 kB           20 B
total                  123 kB   15.4 kB           64 B
0.00% of the 17.2 GB of a v5e

whole on each                     array   because                 bytes
scale_by_adam/mu/attention/scale  f32[5]  its parameter is whole   20 B
scale_by_adam/nu/attention/scale  f32[5]  its parameter is whole   20 B
… 3 smaller ones                                                   24 B

an update moves 28.3 kB and takes 20.6 kFLOP, 0 FLOP of them in matrix products:
at least 0.03 µs on each device, by bandwidth and peak of the chip"""


def test_units() -> None:
    shown = [unit(value, "B") for value in (0, 4, 999, 999.6, 1234, 99_960, 14e6, 2.5e12)]
    assert shown == [
        "0 B", "4 B", "999 B", "1.00 kB", "1.23 kB", "100 kB", "14.0 MB", "2.50 TB",
    ]  # fmt: skip


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "chip": (
        {"chip": "v5litepod"},
        "plan: chip = 'v5litepod' is not one of 'v4', 'v5e', 'v5p', 'v6e', 'a100', 'h100', 'h200'",
    ),
    "axis": (
        {"mesh": GRID, "shardings": P("expert")},
        "plan: 'attention/query' has the spec P('expert',), and the mesh has no axis 'expert'; its "
        "axes are 'data', 'model'",
    ),
    "divide": (
        {"mesh": GRID, "shardings": P("data")},
        "plan: 'attention/scale' is f32[5], and 4 devices, the axis 'data' of its spec "
        "P('data',), do not divide 5: choose another spec",
    ),
    "tree": (
        {"mesh": GRID, "shardings": {"attention": P("data")}},
        "plan: shardings= must be a tree like the parameters, or a prefix of it; its leaves are "
        "'attention', those of the parameters 'attention/query', 'attention/scale', 'embedding'",
    ),
    "compiler": (
        {"mesh": {"data": 3}, "compiled": True},
        "plan: compiled = True compiles for 1, 4, 8, 16, 32, 64, 128, 256 devices of v5e, not 3: "
        "choose a mesh of one of these sizes",
    ),
    "gpu": (
        {"chip": "h100", "compiled": True},
        "plan: compiled = True compiles for TPUs, not for h100: choose a chip of TPU, such as v5e",
    ),
}


@pytest.mark.parametrize("name", sorted(MISTAKES))
def test_mistakes(name: str) -> None:
    arguments, text = MISTAKES[name]
    with pytest.raises(gradtx.GradtxError, match=re.escape(text)):
        gradtx.plan(gradtx.adamw(1e-3), shapes(), **arguments)


def test_two_meshes() -> None:
    meshes = [Mesh(np.array(jax.devices()[:count]), ("x",)) for count in (2, 4)]
    params = [
        jax.ShapeDtypeStruct((8,), jnp.float32, sharding=NamedSharding(mesh, P("x")))
        for mesh in meshes
    ]
    with pytest.raises(
        gradtx.GradtxError,
        match=re.escape(
            "plan: '0' is on the mesh {'x': 2}, and '1' on {'x': 4}: put all parameters on one mesh"
        ),
    ):
        gradtx.plan(gradtx.adamw(1e-3), params)


def test_without_the_compiler_of_tpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise RuntimeError("no libtpu")

    monkeypatch.setattr(topologies, "get_topology_desc", refuse)
    with pytest.raises(
        gradtx.GradtxError,
        match=re.escape(
            "plan: compiled = True needs the compiler of TPUs, which is not here (RuntimeError): "
            "pip install gradtx[accelerators]"
        ),
    ):
        gradtx.plan(gradtx.adamw(1e-3), shapes(), compiled=True)
