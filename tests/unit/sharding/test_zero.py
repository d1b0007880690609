"""ZeRO-1: the numbers of one device, 1/n of the state, and the collectives of it alone."""

import functools
import pickle
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx
from benchmarks.compilers import ALIAS
from gradtx.testing.problems import extras, gradients
from tests.methods import METHODS
from tests.support.collectives import collectives
from tests.support.pairs import MAKERS

CLIPPED = gradtx.chain(gradtx.clip_by_global_norm(0.1), gradtx.adamw(1e-2, weight_decay=0.1))
CASES = {
    "accumulate": gradtx.accumulate(gradtx.adam(1e-2), 2),
    "adamw": gradtx.adamw(1e-2),
    "clip and adamw": CLIPPED,
    "guard": gradtx.guard(CLIPPED, max_norm=100.0),
    "muon": gradtx.muon(1e-2),
    "packed16": gradtx.stored(gradtx.adamw(1e-2), "packed16", min_size=0),
    "soap": gradtx.soap(1e-2),
}
SHAPES = {"bias": (24,), "down": (24, 16), "odd": (9, 7), "scalar": (), "up": (16, 24)}
SQUARES = {**SHAPES, "bias": (16,), "down": (16, 16), "odd": (63,), "up": (16, 16)}
"""For SOAP: a factor of another matrix has eigenvectors of the eigenvalue 0, which are arbitrary.
"""
BENEATH: dict[str, dict[str, P]] = {
    "whole": {},
    "FSDP": {"up": P(None, "model"), "down": P("model"), "bias": P("model")},
    "tensor parallel": {"up": P(None, "model"), "down": P("model", None)},
}


def mesh_of(names: tuple[str, ...] = ("data",), kind: AxisType = AxisType.Auto) -> Any:
    sizes = (8,) if len(names) == 1 else (4, 2)
    return jax.make_mesh(sizes, names, axis_types=(kind,) * len(names))


def parameters(dtype: Any = np.float32, shapes: Any = SHAPES) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(3)
    return {name: generator.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


def loss(params: Any, x: jax.Array) -> jax.Array:
    hidden = jnp.tanh(x @ params["up"] + jax.lax.broadcast(params["bias"], (x.shape[0],)))
    odd = jnp.sum(params["odd"] ** 3) + params["scalar"] ** 2
    return jnp.mean((hidden @ params["down"] - 1) ** 2) + odd / 100


def train(tx: Any, params: Any, x: Any, steps: int = 3, **options: Any) -> tuple[Any, Any, Any]:
    step, state = gradtx.make_step(loss, tx, donate=False, **options), tx.init(params)
    for _ in range(steps):
        params, state, _ = jax.block_until_ready(step(params, state, x))
    return params, state, step


def place(params: Any, mesh: Any, beneath: str) -> Any:
    specs = BENEATH[beneath]
    return {
        name: jax.device_put(one, NamedSharding(mesh, specs.get(name, P())))
        for name, one in params.items()
    }


@pytest.mark.parametrize("beneath", sorted(BENEATH))
@pytest.mark.parametrize("name", sorted(CASES))
def test_eight_devices_have_the_numbers_of_one(name: str, beneath: str) -> None:
    """In float64 to 1e-10 of the largest entry; a sum of eight parts is rounded otherwise."""
    tx, mesh = CASES[name], mesh_of() if beneath == "whole" else mesh_of(("data", "model"))
    with jax.enable_x64(True):
        params = parameters(np.float64, SQUARES if name == "soap" else SHAPES)
        x = np.random.default_rng(5).normal(size=(32, 16))
        expected, _, _ = train(tx, jax.tree.map(jnp.asarray, params), jnp.asarray(x))
        placed = place(params, mesh, beneath)
        zero = gradtx.sharded(tx, pad_size=10)
        ours, state, step = train(zero, placed, jax.device_put(x, NamedSharding(mesh, P("data"))))
        for key, one in expected.items():
            assert float(jnp.max(jnp.abs(np.asarray(ours[key]) - one))) <= 1e-10, key
            assert ours[key].sharding.is_equivalent_to(placed[key].sharding, one.ndim)
    largest = [one for one in jax.tree.leaves(state) if one.size in (24 * 16, 16 * 16)]
    assert all(one.addressable_shards[0].data.size == one.size // 8 for one in largest)
    assert step._cache_size() <= 2  # the count of an eager init lies on one device at first


@pytest.mark.parametrize("name", ["clip and adamw", "muon"])
def test_float32_and_explicit_axes(name: str) -> None:
    """The same to 1e-5 of the largest entry, with types that say how arrays are cut."""
    mesh = mesh_of(kind=AxisType.Explicit)
    expected, _, _ = train(CASES[name], jax.tree.map(jnp.asarray, parameters()), jnp.ones((16, 16)))
    params = place(parameters(), mesh, "whole")
    zero = gradtx.sharded(CASES[name])
    state = zero.init(params)
    step = jax.jit(functools.partial(gradtx.update_params, zero))
    for _ in range(3):
        grads = jax.tree.map(
            lambda one, like: jax.device_put(one, like.sharding),
            jax.grad(loss)(jax.tree.map(np.asarray, params), jnp.ones((16, 16))),
            params,
        )
        params, state = jax.block_until_ready(step(grads, state, params))
    for key, one in expected.items():
        assert float(jnp.max(jnp.abs(np.asarray(params[key]) - one))) <= 1e-5 * jnp.max(abs(one))
        assert params[key].sharding.spec in (P(), P(None), P(None, None))
    (mu,) = [one for path, one in gradtx.flatten_state(state).items() if path.endswith("mu/up")]
    assert mu.sharding.spec == P("data", None)


@pytest.mark.parametrize("is_clipped", [False, True])
def test_the_collectives_are_those_of_zero(is_clipped: bool) -> None:
    """On a CPU: one all-reduce and one all-gather of each of n arrays, and one of the loss.

    XLA:CPU has an all-reduce and a slice for a reduce-scatter. tests/accelerators has TPU and GPU.
    """
    mesh = mesh_of()
    params = place(parameters(), mesh, "whole")
    tx = gradtx.sharded(CLIPPED if is_clipped else gradtx.adamw(1e-2), pad_size=10)
    x = jax.device_put(np.ones((16, 16), np.float32), NamedSharding(mesh, P("data")))
    state = tx.init(params)
    compiled = gradtx.make_step(loss, tx).lower(params, state, x).compile()
    counts = collectives(compiled.as_text())
    # `odd` and `scalar` do not depend on the batch: their gradient needs no sum.
    summed, gathered = 3 + 1, 4
    norms = 4 if is_clipped else 0  # XLA:CPU sums the four cut arrays one by one
    assert counts.operands == {"all-reduce": summed + norms, "all-gather": gathered}
    # Rows of `odd` are padded from 9 to 16.
    sizes = 24 + 2 * 24 * 16, 24 + 2 * 24 * 16 + 16 * 7
    assert counts.bytes == {"all-reduce": 4 * (sizes[0] + 1 + norms), "all-gather": 4 * sizes[1]}
    arguments = len(jax.tree.leaves((params, state)))
    assert len(ALIAS.findall(compiled.as_text().partition("\n")[0])) == arguments


def test_a_narrow_gather_keeps_parameters_wide() -> None:
    """Updates in bfloat16 are within 2⁻⁸ of the others, and all devices add the same."""
    mesh = mesh_of()
    params = place(parameters(), mesh, "whole")
    x = jnp.ones((16, 16))
    narrow, _, _ = train(gradtx.sharded(gradtx.sgd(0.1), gather_dtype=jnp.bfloat16), params, x, 1)
    wide, _, _ = train(gradtx.sharded(gradtx.sgd(0.1)), params, x, 1)
    for key, one in wide.items():
        change, other = one - params[key], narrow[key] - params[key]
        assert narrow[key].dtype == jnp.float32
        # The difference of two sums has a rounding of the parameter in it.
        assert jnp.allclose(change, other, rtol=2**-8, atol=2**-22)
        if key != "scalar":
            assert float(jnp.max(jnp.abs(change - other))) > 0, key


def test_the_table_says_why() -> None:
    mesh = mesh_of(("data", "model"))
    params = place(parameters(), mesh, "tensor parallel")
    tx = gradtx.guard(gradtx.sharded(gradtx.adamw(1e-3), pad_size=60))
    assert str(gradtx.sharding.cuts(tx, params)) == (
        "parameter  shape     its spec          spec of the state   reason\n"
        "bias       (24,)     P()               P('data')           axis 0 over 'data'\n"
        "down       (24, 16)  P('model', None)  P('model', 'data')  axis 1 over 'data'\n"
        "odd        (9, 7)    P()               P('data')           axis 0 over 'data', padded "
        "from 9 to 12\n"
        "scalar     ()        P()               P()                 whole: no axis\n"
        "up         (16, 24)  P(None, 'model')  P('data', 'model')  axis 0 over 'data'"
    )
    small = gradtx.sharded(gradtx.adamw(1e-3), ("model", "data"), min_size=30)
    reasons = {one.path: one.reason for one in gradtx.sharding.cuts(small, params)}
    assert reasons["bias"] == "whole: 24 entries, fewer than 30"
    assert reasons["odd"] == "whole: 'model', 'data' (8) divides no axis"


@pytest.mark.parametrize("name", MAKERS)
def test_every_method_is_traced_with_its_state_cut(name: str) -> None:
    """A step keeps shapes and dtypes of the state and of the updates, from shapes alone."""
    tx, mesh = METHODS[name].tx, {"x": 4}
    zero = tx if "sharded" in repr(tx) else gradtx.sharded(tx, "x", mesh=mesh)
    params = {"b": jnp.ones(8), "k": jnp.ones((8, 4)), "s": jnp.ones(())}
    grads = gradients(params)
    update = functools.partial(zero.update, **extras(tx, params, grads))
    expected = jax.eval_shape(
        functools.partial(tx.update, **extras(tx, params, grads)), grads, tx.init(params), params
    )
    assert jax.eval_shape(update, grads, jax.eval_shape(zero.init, params), params) == expected


@pytest.mark.parametrize("kind", [jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit])
def test_arrays_on_no_mesh_go_to_that_of_the_context(kind: Any) -> None:
    """Arrays of NumPy under a mesh of two axes: they are whole, and their slots are cut."""
    params = {"w": np.ones((8, 4), np.float32)}
    tx = gradtx.sharded(gradtx.adamw(0.1), "model")
    with jax.set_mesh(jax.make_mesh((4, 2), ("data", "model"), axis_types=(kind,) * 2)):
        state = tx.init(params)
        updates, later = jax.jit(tx.update)(params, state, params)
    for slot in (state.mu["w"], later.mu["w"]):
        assert slot.sharding.shard_shape((8, 4)) == (4, 4)
    # With automatic axes a trace does not see how the parameters lie, and XLA decides.
    is_explicit = kind == jax.sharding.AxisType.Explicit
    assert updates["w"].sharding.is_fully_replicated == is_explicit


def test_it_is_data() -> None:
    tx = gradtx.sharded(CLIPPED, ("data",), jnp.bfloat16, {"data": 8}, pad_size=None)
    assert pickle.loads(pickle.dumps(tx)) == tx
    assert gradtx.from_config(gradtx.to_config(tx)) == tx
    assert gradtx.hyperparams(gradtx.replace(tx, learning_rate=0.5))["learning_rate"] == 0.5
    assert hash(tx) == hash(gradtx.replace(tx))


def tell(call: Any) -> str:
    with pytest.raises(gradtx.GradtxError) as caught:
        call()
    return str(caught.value)


def test_errors() -> None:
    one, mesh = gradtx.adam(0.1), mesh_of(("data", "model"))
    w = jax.device_put(np.ones((8, 8), np.float32), NamedSharding(mesh, P()))
    twice = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sharded(one))
    assert tell(lambda: gradtx.sharded(twice)) == (
        "sharded: chain contains sharded already: cut it once, around the whole definition, over "
        'all axes, axes=("data", ...)'
    )
    assert tell(lambda: gradtx.sharded(one).init(jnp.ones(8))) == (
        "sharded: no mesh is known here, and axes = 'data' are axes of one: place the parameters "
        "by jax.device_put, or call within jax.set_mesh(mesh), or give mesh={'data': 8}, the sizes "
        "of its axes by name"
    )
    assert tell(lambda: gradtx.sharded(one, "dat").init(w)) == (
        "sharded: the mesh has no axis 'dat'; its axes are 'data', 'model': give axes= one of them"
    )
    assert tell(lambda: gradtx.sharded(one, 3)) == (  # pyright: ignore[reportArgumentType]
        'sharded: axes = 3 is not an axis of a mesh: give the name of one, "data", or a tuple of '
        "names"
    )
    assert tell(lambda: gradtx.sharded(one, gather_dtype=jnp.int8)).endswith(
        "or for a smaller state write gradtx.stored(tx, 'int8')"
    )
    assert tell(lambda: gradtx.sharding.cuts(one, w)) == (
        "cuts: adam contains no sharded: pass the definition that sharded(tx, axes) returned"
    )
    inside = jax.shard_map(gradtx.sharded(one).init, mesh=mesh, in_specs=P(), out_specs=P())
    assert "sharded: the axis 'data' is manual here, within a shard_map over it" in tell(
        lambda: jax.jit(inside)(w)
    )


class Net(eqx.Module):
    """A linear layer and a function."""

    layer: eqx.nn.Linear
    activation: Any = jnp.tanh

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.activation(self.layer(x))


def of_module(model: Any, x: jax.Array) -> jax.Array:
    return jnp.mean(jax.vmap(model)(x) ** 2)


@pytest.mark.parametrize("kind", ["equinox", "nnx", "partial"])
def test_other_functions_that_compile(kind: str) -> None:
    mesh = mesh_of()
    whole = NamedSharding(mesh, P())
    net = Net(eqx.nn.Linear(8, 16, key=jax.random.key(0)))
    jit = {"equinox": eqx.filter_jit, "nnx": nnx.jit, "partial": functools.partial(jax.jit)}[kind]
    if kind == "nnx":
        net = nnx.Linear(8, 16, rngs=nnx.Rngs(0))
    net = jax.tree.map(
        lambda leaf: jax.device_put(leaf, whole) if eqx.is_array(leaf) else leaf, net
    )
    function = (lambda model, x: jnp.mean(model(x) ** 2)) if kind == "nnx" else of_module
    tx = gradtx.sharded(gradtx.adamw(1e-2))
    step, state = gradtx.make_step(function, tx, jit=jit), tx.init(net)
    x = jax.device_put(np.ones((16, 8), np.float32), NamedSharding(mesh, P("data")))
    values, first = [], jax.tree.leaves(state.slots)  # nnx changes modules in place
    for _ in range(3):
        net, state, value = jax.block_until_ready(step(net, state, x))
        values.append(float(value))
    assert values[0] > values[1] > values[2]
    for new, old in zip(jax.tree.leaves(state.slots), first, strict=True):
        assert new.sharding == old.sharding and new.sharding.spec == P("data")
        assert old.is_deleted()  # donated
    arrays = [leaf for leaf in jax.tree.leaves(net) if eqx.is_array(leaf)]
    assert all(leaf.sharding == whole for leaf in arrays)


def traced_step(tx: Any) -> Any:
    """The program of an update of one whole array, whose last rule writes the parameters."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    params = {"w": jax.device_put(jnp.ones((16, 8)), NamedSharding(mesh, P()))}
    state = tx.init(params)
    step = functools.partial(gradtx.update_params, tx)
    with jax.set_mesh(mesh):
        return jax.make_jaxpr(step)(params, state, params).jaxpr


def test_the_member_sees_cut_gradients_and_parameters() -> None:
    jaxpr = traced_step(gradtx.sharded(gradtx.adamw(1e-3), "data"))
    grad, param = jaxpr.invars[0], jaxpr.invars[-1]
    for whole in (grad, param):
        readers = [one for one in jaxpr.eqns if whole in one.invars]
        names = {one.primitive.name for one in readers}
        assert names <= {"sharding_constraint", "shard_alike"}
        specs = [one.params["sharding"].spec for one in readers if "sharding" in one.params]
        assert P("data") in specs


@pytest.mark.parametrize("gather_dtype", [None, jnp.bfloat16])
def test_the_parameter_is_gathered_or_the_update_where_a_dtype_is_named(gather_dtype: Any) -> None:
    """The addition is on the parts, unless the update travels in a dtype of its own."""
    jaxpr = traced_step(gradtx.sharded(gradtx.adamw(1e-3), "data", gather_dtype))
    new = jaxpr.outvars[0]
    (writer,) = [one for one in jaxpr.eqns if new in one.outvars]
    is_gathered = writer.primitive.name in ("sharding_constraint", "shard_alike")
    assert is_gathered == (gather_dtype is None)
