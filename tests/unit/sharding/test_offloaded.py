"""`offloaded`: the same numbers from host memory, donated, around and inside every wrapper."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gradtx
from gradtx.engine import offload, slot_memory
from tests.support.cold import forget_traces

PARAMS = {f"w{n}": jnp.linspace(-1.0, 1.0, 64).reshape(8, 8) * (n + 1) for n in range(6)}
GRADS = jax.tree.map(lambda one: jnp.sin(3 * one), PARAMS)
ADAMW = gradtx.adamw(0.1)
MUON = gradtx.muon(0.1)
CASES = {
    "adamw": (gradtx.offloaded(ADAMW), ADAMW),
    "muon": (gradtx.offloaded(MUON), MUON),
    "of a guarded chain": (
        gradtx.offloaded(gradtx.guard(gradtx.chain(gradtx.clip_by_global_norm(1.0), ADAMW))),
        gradtx.guard(gradtx.chain(gradtx.clip_by_global_norm(1.0), ADAMW)),
    ),
    "in a guard": (gradtx.guard(gradtx.offloaded(ADAMW)), gradtx.guard(ADAMW)),
    "behind another rule": (
        gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.offloaded(ADAMW)),
        gradtx.chain(gradtx.clip_by_global_norm(1.0), ADAMW),
    ),
    "before and behind others": (
        gradtx.chain(
            gradtx.add_decayed_weights(0.1),
            gradtx.offloaded(gradtx.trace(0.9)),
            gradtx.scale_by_adam(),
            gradtx.scale(-0.1),
        ),
        gradtx.chain(
            gradtx.add_decayed_weights(0.1),
            gradtx.trace(0.9),
            gradtx.scale_by_adam(),
            gradtx.scale(-0.1),
        ),
    ),
    "accumulate": (
        gradtx.offloaded(gradtx.accumulate(ADAMW, 2)),
        gradtx.accumulate(ADAMW, 2),
    ),
    "packed16": (
        gradtx.offloaded(gradtx.stored(ADAMW, "packed16", min_size=1)),
        gradtx.stored(ADAMW, "packed16", min_size=1),
    ),
    "in int8": (
        gradtx.stored(gradtx.offloaded(ADAMW), "int8", min_size=1),
        gradtx.stored(ADAMW, "int8", min_size=1),
    ),
    "partition": (
        gradtx.partition(
            {"host": gradtx.offloaded(ADAMW), "device": MUON},
            [("w[0-3]", "host"), (".*", "device")],
        ),
        gradtx.partition({"host": ADAMW, "device": MUON}, [("w[0-3]", "host"), (".*", "device")]),
    ),
    "schedule_free": (
        gradtx.offloaded(gradtx.schedule_free_adamw(0.1)),
        gradtx.schedule_free_adamw(0.1),
    ),
}


def kinds(state: Any) -> dict[str, str | None]:
    """The memory of each array, by path."""
    return {path: one.sharding.memory_kind for path, one in gradtx.flatten_state(state).items()}


def on_host(state: Any) -> list[str]:
    return [path for path, kind in kinds(state).items() if kind == "pinned_host"]


def own(tree: Any) -> Any:
    """Copies that may be donated, in the memories of the originals."""
    return jax.tree.map(lambda one: jax.device_put(np.array(one), one.sharding), tree)


def train(tx: Any, steps: int = 3) -> Any:
    """Parameters and state after donated steps."""

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, state: Any) -> Any:
        return gradtx.update_params(tx, GRADS, state, params)

    params, state = own(PARAMS), tx.init(PARAMS)
    old = state
    for _ in range(steps):
        old, (params, state) = state, step(params, state)
    assert all(one.is_deleted() for one in jax.tree.leaves(old) if one.ndim)
    return params, state


def assert_equal(ours: Any, expected: Any) -> None:
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def assert_close(ours: Any, expected: Any) -> None:
    """Equality up to rounding: XLA:CPU fuses products and sums in another program otherwise."""
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=1e-5, atol=1e-6)


@pytest.fixture(params=["default", "tpu"])
def order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Small leaves in bundles; in the order of the platform, and in the loops for a TPU."""
    monkeypatch.setattr(offload, "SMALLEST", 0)
    if request.param == "tpu":
        original = jax.lax.platform_dependent

        def choose(*args: Any, default: Any, **others: Any) -> Any:
            return others["tpu"](*args) if "tpu" in others else original(*args, default=default)

        monkeypatch.setattr(jax.lax, "platform_dependent", choose)
    forget_traces()  # those with another platform's choice must not serve here, nor later
    yield request.param
    forget_traces()


@pytest.mark.parametrize("name", sorted(CASES))
def test_numbers_are_those_of_the_device(name: str, order: str) -> None:
    """Bit for bit; in loops, which XLA:CPU compiles otherwise, up to rounding."""
    tx, plain = CASES[name]
    first = on_host(tx.init(PARAMS))
    assert len(first) >= 6
    ours, expected = train(tx), train(plain)
    (assert_close if order == "tpu" else assert_equal)(ours, expected)
    assert on_host(ours[1]) == first
    assert not on_host(expected[1])


def test_loops_order_the_bundles_for_a_tpu(order: str) -> None:
    """Six leaves, a fifth of them is one: a loop for each, and within it one for its kernel."""
    tx = gradtx.offloaded(ADAMW)
    text = jax.jit(tx.update).lower(GRADS, tx.init(PARAMS), PARAMS).as_text()
    assert text.count("stablehlo.while") == (12 if order == "tpu" else 0)


def test_outside_of_jit_and_with_jitted_init() -> None:
    tx = CASES["adamw"][0]
    state = tx.init(PARAMS)
    assert kinds(jax.jit(tx.init)(PARAMS)) == kinds(state)
    assert_equal(tx.update(GRADS, state, PARAMS), ADAMW.update(GRADS, ADAMW.init(PARAMS), PARAMS))
    assert on_host(tx.update(GRADS, state, PARAMS)[1]) == on_host(state)


def test_eval_params_reads_slots_of_the_host() -> None:
    tx, plain = CASES["schedule_free"]
    states = [one.update(GRADS, one.init(PARAMS), PARAMS)[1] for one in (tx, plain)]
    ours, expected = (
        gradtx.eval_params(one, state, PARAMS)
        for one, state in zip((tx, plain), states, strict=True)
    )
    assert_equal(ours, expected)


def test_a_skipped_step_leaves_slots_on_the_host_as_they_were() -> None:
    tx = gradtx.offloaded(gradtx.guard(ADAMW))
    state = tx.init(PARAMS)
    bad = {**GRADS, "w0": GRADS["w0"] * jnp.nan}
    updates, later = jax.jit(tx.update)(bad, state, PARAMS)
    assert_equal(later.slots["scale_by_adam"], state.slots["scale_by_adam"])
    assert on_host(later) == on_host(state)
    assert not any(one.any() for one in jax.tree.leaves(updates))


def test_where_chooses_slots_by_their_paths() -> None:
    tx = gradtx.offloaded(ADAMW, r"nu/w[01]$")
    expected = [f"slots/scale_by_adam/nu/{name}" for name in ("w0", "w1")]
    assert on_host(train(tx)[1]) == expected
    by_size = gradtx.offloaded(ADAMW, lambda path, array: "mu/w5" in path and array.size == 64)
    assert on_host(by_size.init(PARAMS)) == ["slots/scale_by_adam/mu/w5"]


@pytest.mark.parametrize("is_explicit", [False, True])
def test_slots_stay_cut_over_devices(is_explicit: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offload, "SMALLEST", 0)
    kind = jax.sharding.AxisType.Explicit if is_explicit else jax.sharding.AxisType.Auto
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "model"), axis_types=(kind,) * 2)
    cut = NamedSharding(mesh, PartitionSpec("data", "model"))
    params, grads = jax.device_put((PARAMS, GRADS), cut)
    tx = gradtx.offloaded(ADAMW)
    state = tx.init(params)
    step = jax.jit(tx.update)
    updates, state = jax.block_until_ready(step(grads, state, params))
    updates, state = jax.block_until_ready(step(grads, state, params))
    assert {one.sharding for one in jax.tree.leaves((state.mu, state.nu))} == {
        cut.with_memory_kind("pinned_host")
    }
    assert {one.sharding for one in jax.tree.leaves(updates)} == {cut}


@pytest.mark.parametrize("is_inside", [False, True])
@pytest.mark.parametrize("is_explicit", [False, True])
@pytest.mark.parametrize("rows", [8, 11])
def test_zero_cuts_slots_of_the_host(rows: int, is_explicit: bool, is_inside: bool) -> None:
    """With `sharded` around or inside. Automatic axes pad eleven rows over eight devices, and
    explicit ones leave them whole.
    """
    kind = jax.sharding.AxisType.Explicit if is_explicit else jax.sharding.AxisType.Auto
    mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
    params = {f"w{n}": jnp.linspace(-1.0, n, 7 * rows).reshape(rows, 7) for n in range(6)}
    grads = jax.tree.map(lambda one: jnp.sin(3 * one), params)
    zero = functools.partial(gradtx.sharded, axes="data", pad_size=1)
    tx = zero(gradtx.offloaded(ADAMW)) if is_inside else gradtx.offloaded(zero(ADAMW))
    with jax.set_mesh(mesh):
        whole = jax.device_put((params, grads), NamedSharding(mesh, PartitionSpec()))
        state = tx.init(whole[0])
        updates, state = jax.jit(tx.update)(whole[1], state, whole[0])
        updates, state = jax.jit(tx.update)(whole[1], state, whole[0])
    plain = ADAMW.update(grads, ADAMW.update(grads, ADAMW.init(params), params)[1], params)
    assert_close(updates, plain[0])
    is_whole = is_explicit and rows == 11
    spec = PartitionSpec() if is_whole else PartitionSpec("data")
    placed = NamedSharding(mesh, spec, memory_kind="pinned_host")
    for slot in jax.tree.leaves((state.mu, state.nu)):
        assert slot.sharding.is_equivalent_to(placed, 2)
        assert slot.shape == (rows if is_whole else -(-rows // 8) * 8, 7)


def _normal(name: str, step: int) -> jax.Array:
    return jax.random.normal(jax.random.key(10 * step + int(name[1])), (8, 8))


@pytest.mark.parametrize("is_inside", [False, True])
@pytest.mark.parametrize("plain", [MUON, gradtx.soap(0.1)], ids=lambda tx: tx.name)
def test_matrices_of_owners_have_slots_on_the_host(plain: Any, is_inside: bool) -> None:
    """Each matrix goes to one device; SOAP's slots go with it, and return to the host."""
    mesh = jax.make_mesh((8,), ("data",))
    zero = functools.partial(gradtx.sharded, axes="data")
    tx = zero(gradtx.offloaded(plain)) if is_inside else gradtx.offloaded(zero(plain))
    # In the bases of a gradient the same gradient is zero but for its diagonal, and SOAP divides
    # rounding errors by their size: so there are two, of full rank.
    drawn = [{name: _normal(name, step) for name in PARAMS} for step in range(2)]
    with jax.set_mesh(mesh):
        params, grads = jax.device_put((PARAMS, drawn), NamedSharding(mesh, PartitionSpec()))
        first = tx.init(params)
        _, state = jax.jit(tx.update)(grads[0], first, params)
        updates, state = jax.jit(tx.update)(grads[1], state, params)
    _, old = plain.update(drawn[0], plain.init(PARAMS), PARAMS)
    expected, _ = plain.update(drawn[1], old, PARAMS)
    for name, one in updates.items():  # products in float32, summed in another order
        np.testing.assert_allclose(one, expected[name], rtol=1e-4, atol=1e-5)
    assert kinds(state) == kinds(first)
    assert len(on_host(state)) == sum(one.ndim > 0 for one in jax.tree.leaves(first))


def test_within_shard_map_scan_and_vmap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offload, "SMALLEST", 0)
    tx, spec = gradtx.offloaded(ADAMW), PartitionSpec("x")
    mesh = Mesh(np.array(jax.devices()), ("x",))
    plain = ADAMW.update(GRADS, ADAMW.init(PARAMS), PARAMS)
    specs = jax.tree.map(lambda one: spec if one.ndim else PartitionSpec(), tx.init(PARAMS))
    step = jax.shard_map(
        tx.update, mesh=mesh, in_specs=(spec, specs, spec), out_specs=(spec, specs)
    )
    with jax.set_mesh(mesh):
        assert_close(jax.jit(step)(GRADS, tx.init(PARAMS), PARAMS), plain)

    def body(state: Any, _: None) -> tuple[Any, Any]:
        updates, state = tx.update(GRADS, state, PARAMS)
        return state, updates["w0"]

    state, _ = jax.jit(lambda one: jax.lax.scan(body, one, None, length=2))(tx.init(PARAMS))
    assert on_host(state) == on_host(tx.init(PARAMS))
    # A batch of states: the counts differ from one to the next.
    two = jax.tree.map(lambda one: jnp.stack([one, one]), (GRADS, PARAMS))
    updates, _ = jax.jit(jax.vmap(lambda g, p: tx.update(g, tx.init(p), p)))(*two)
    assert_close(updates["w3"][1], plain[0]["w3"])
    state = jax.vmap(tx.init)(two[1])
    updates, state = jax.jit(jax.vmap(tx.update))(two[0], state, two[1])
    assert_close(updates["w3"][0], plain[0]["w3"])


def over(tx: gradtx.GradientTransformation) -> gradtx.GradientTransformation:
    return gradtx.over_axes(tx, "x")


@pytest.mark.parametrize("is_inside", [False, True])
def test_norms_over_axes_of_offloaded_state(is_inside: bool) -> None:
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(0.1))
    plain = tx.update(GRADS, tx.init(PARAMS))
    tx = over(gradtx.offloaded(tx)) if is_inside else gradtx.offloaded(over(tx))
    mesh, spec = Mesh(np.array(jax.devices()), ("x",)), PartitionSpec("x")
    cut = NamedSharding(mesh, spec)
    state = tx.init(jax.device_put(PARAMS, cut))
    specs = jax.tree.map(lambda one: spec if one.ndim else PartitionSpec(), state)
    step = jax.shard_map(tx.update, mesh=mesh, in_specs=(spec, specs), out_specs=(spec, specs))
    updates, new = jax.jit(step)(jax.device_put(GRADS, cut), state)
    assert_close(updates, plain[0])
    assert on_host(new) == on_host(state)


def test_state_shardings_say_the_memory() -> None:
    mesh = Mesh(np.array(jax.devices()), ("x",))
    params = jax.device_put(PARAMS, NamedSharding(mesh, PartitionSpec("x")))
    tx = gradtx.offloaded(ADAMW, r"/nu/")
    said = gradtx.state_shardings(tx, params)
    assert said == jax.tree.map(lambda one: one.sharding, tx.init(params))
    state = jax.jit(tx.init, out_shardings=said)(params)
    assert on_host(state) == on_host(tx.init(params)) != []


def test_where_names_slots_in_few_bits_by_their_slot() -> None:
    for tx in (
        gradtx.stored(gradtx.offloaded(ADAMW, r"/nu/"), "int8", min_size=1),
        gradtx.offloaded(gradtx.stored(ADAMW, "int8", min_size=1), r"/nu(_codes|_scale)?/"),
    ):
        paths = {path.split("/")[-2] for path in on_host(tx.init(PARAMS))}
        assert {"nu_codes", "nu_scale"} <= paths and not any("mu" in one for one in paths)


def test_a_definition_stays_data() -> None:
    tx = gradtx.offloaded(ADAMW, r"/nu/")
    assert repr(tx) == "offloaded(inner=adamw(learning_rate=0.1), where='/nu/')"
    assert gradtx.from_config(gradtx.to_config(tx)) == tx
    assert hash(gradtx.replace(tx, learning_rate=0.2)) != hash(tx)
    assert gradtx.hyperparams(tx)["learning_rate"] == 0.1


def test_a_pattern_that_matches_no_slot() -> None:
    tx = gradtx.offloaded(gradtx.adamw(0.1), r"momentum")
    with pytest.raises(gradtx.SelectionError) as error:
        tx.init({"w": jnp.ones((2, 2))})
    assert str(error.value) == (
        "offloaded: where: 'momentum' matches none of the 2 leaves; the slots with axes are "
        "'scale_by_adam/mu/w', 'scale_by_adam/nu/w'"
    )


def test_a_pattern_of_scalars_alone() -> None:
    tx = gradtx.offloaded(gradtx.guard(gradtx.sgd(0.1, momentum=0.9)), r"guard/norm")
    with pytest.raises(gradtx.GradtxError) as error:
        tx.init({"w": jnp.ones((2, 2))})
    assert str(error.value) == (
        "offloaded: where = 'guard/norm' chooses scalars alone, which stay on the device; the "
        "slots with axes are 'trace/trace/w'"
    )


@pytest.mark.parametrize("inside", [lambda tx: tx, gradtx.guard])
def test_offloaded_in_offloaded(inside: Any) -> None:
    with pytest.raises(gradtx.GradtxError) as error:
        gradtx.offloaded(inside(gradtx.offloaded(gradtx.adamw(0.1))))
    assert str(error.value) == (
        "offloaded: the slots of scale_by_adam are offloaded by another offloaded inside; use one "
        "offloaded around all members, whose where= chooses among their slots"
    )


@pytest.mark.parametrize("memory", ["pined_host", "unpinned_host"])
def test_a_memory_that_a_step_cannot_reach(memory: str) -> None:
    with pytest.raises(gradtx.GradtxError) as error:
        gradtx.offloaded(ADAMW, memory=memory).init(PARAMS)
    assert str(error.value) == (
        f"offloaded: memory = {memory!r} is not a memory in which a compiled step can leave slots, "
        f"use 'pinned_host'; the backend 'cpu' has 'device', 'pinned_host', 'unpinned_host'"
    )


class Bare:
    """A device without memory of the host."""

    platform = "other"

    def addressable_memories(self) -> list[Any]:
        return [type("Memory", (), {"kind": "device"})]


def test_a_backend_without_host_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning, and the step runs on the device."""
    monkeypatch.setattr(slot_memory.jax, "devices", lambda: [Bare()])
    tx = gradtx.offloaded(ADAMW)
    with pytest.warns(UserWarning) as caught:
        state = tx.init(PARAMS)
    (warning,) = caught
    assert str(warning.message) == (
        "offloaded: the backend 'other' has no memory 'pinned_host', it has 'device': the slots "
        "stay on the device"
    )
    assert not on_host(state)
    assert_equal(tx.update(GRADS, state, PARAMS), ADAMW.update(GRADS, ADAMW.init(PARAMS), PARAMS))
