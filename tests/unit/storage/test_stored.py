"""`stored` around any optimizer: decode, the unchanged rule, encode; whole or by tiles; its
wrappers, files, sizes and messages.
"""

import functools
import io
import pickle
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gradtx
from gradtx.compose.transformation import GradientTransformation
from gradtx.definition.types import PRECISE
from gradtx.engine.rules import LeafRule
from gradtx.engine.slots import slots_at
from gradtx.storage.codec import CODECS
from gradtx.storage.pallas_kernel import pallas_run
from gradtx.storage.policy import Policy
from gradtx.storage.stored import slot_names
from gradtx.storage.tiles import plane
from tests.methods import FIRST, METHODS

SHAPE = (64, 128)


def arrays(seed: int) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {
        "kernel": jnp.asarray(rng.normal(size=SHAPE), jnp.float32),
        "bias": jnp.asarray(rng.normal(size=3), jnp.float32),
    }


def run(tx: Any, steps: int = 3, params: Any = None, jit: bool = True) -> tuple[Any, Any]:
    """Parameters and state after some steps."""
    params = arrays(0) if params is None else params
    step = functools.partial(gradtx.update_params, tx)
    step, state = jax.jit(step) if jit else step, tx.init(params)
    for number in range(steps):
        params, state = step(arrays(number + 1), state, params)
    return params, state


def equal(one: Any, other: Any) -> bool:
    return all(
        jax.tree.leaves(
            jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b, equal_nan=True)), one, other)
        )
    )


def leaf_makers() -> list[str]:
    """A row of every method that is made of rules on one array that keep something."""
    found = []
    for name in FIRST:
        tx = METHODS[name].tx
        leaf_only = (
            isinstance(tx, GradientTransformation)
            and tx.needs <= {"params", "value"}
            and name.split("/")[0] != "stored"
        )
        if (
            leaf_only
            and all(isinstance(item.rule, LeafRule) for item in tx.items)
            and slot_names(tx)
        ):
            found.append(name)
    return found


@pytest.mark.parametrize("name", leaf_makers())
def test_any_rule_is_stored(name: str) -> None:
    """In 16 bits to the nearest: whatever a rule keeps in the shape of its parameter is kept so,
    and decodes to what it was, to 2⁻⁸.
    """
    plain = METHODS[name].tx
    tx = gradtx.stored(plain, "bf16", rounding="nearest", min_size=0)
    params, grads, told = (
        {"w": arrays(0)["kernel"][:4, :8]},
        {"w": arrays(1)["kernel"][:4, :8]},
        {"value": jnp.float32(1.5)},
    )
    extra = {key: value for key, value in told.items() if key in plain.needs}
    state, exact = tx.init(params), plain.init(params)
    updates, state = jax.jit(tx.update)(grads, state, params, **extra)
    assert updates["w"].dtype == jnp.float32 and np.all(np.isfinite(updates["w"]))
    _, exact = jax.jit(plain.update)(grads, exact, params, **extra)
    for item in tx.items:
        kind: Any = item.rule.rule.slots if isinstance(item.rule, LeafRule) else None
        if kind is None:
            continue
        kept = slots_at(state.slots, item.path)
        for slot in kind._fields:
            leaf = (kept if isinstance(kept, dict) else kept._asdict())[slot]
            leaf = leaf["w"] if isinstance(leaf, dict) else None
            if leaf is not None and leaf.shape == (4, 8):
                assert leaf.dtype == (
                    jnp.float32 if Policy.marks(kind, slot) == PRECISE else jnp.bfloat16
                ), slot
    for kept, was in zip(jax.tree.leaves(state.slots), jax.tree.leaves(exact.slots), strict=True):
        np.testing.assert_allclose(
            kept.astype(was.dtype),
            was,
            rtol=2**-6,
            atol=2**-6 * float(jnp.max(jnp.abs(was), initial=0)),
        )


@pytest.mark.parametrize("codec", ["int8", "bf16+8", "dynamic8"])
def test_the_rule_runs_unchanged_on_decoded_slots(codec: str) -> None:
    """The update is that of the plain optimizer from the slots as they were decoded, and the new
    slots are its, encoded.

    XLA adds and multiplies in one rounding in one program, and in two in the other: 3e-5 where
    terms cancel."""
    plain = gradtx.scale_by_adam()
    tx = gradtx.stored(plain, codec, rounding="nearest", min_size=0)
    params = {"w": arrays(0)["kernel"]}
    _, state = jax.jit(tx.update)({"w": arrays(1)["kernel"]}, tx.init(params), params)
    kept = state.slots["scale_by_adam"]
    decode = {
        name: CODECS[codec].decode(getattr(kept, name)["w"], SHAPE, square=name == "nu", block=32)
        for name in ("mu", "nu")
    }
    moments = type(plain.init(params).slots["scale_by_adam"])(
        *({"w": decode[name]} for name in ("mu", "nu"))
    )
    grads = {"w": arrays(2)["kernel"]}
    ours, new = jax.jit(tx.update)(grads, state, params)
    theirs, exact = jax.jit(plain.update)(
        grads, gradtx.State(state.count, {"scale_by_adam": moments}), params
    )
    np.testing.assert_allclose(ours["w"], theirs["w"], rtol=1e-4, atol=1e-6)
    for name in ("mu", "nu"):
        square, made = name == "nu", getattr(new.slots["scale_by_adam"], name)["w"]
        again = CODECS[codec].encode(
            getattr(exact.slots["scale_by_adam"], name)["w"], None, square=square, block=32
        )
        for mine, its in zip(jax.tree.leaves(made), jax.tree.leaves(again), strict=True):
            same = np.isclose(
                np.asarray(mine, np.float32), np.asarray(its, np.float32), rtol=1e-6, atol=0
            )
            assert np.mean(~same) <= 5e-3, "but for entries in the middle of two codes"


def test_sixteen_bits_are_seen_by_the_update() -> None:
    """The update follows from the moments as they are kept."""
    tx = gradtx.stored(gradtx.scale_by_adam(), "packed16", min_size=0)
    params = {"w": arrays(0)["kernel"]}
    updates, state = jax.jit(tx.update)({"w": arrays(1)["kernel"]}, tx.init(params), params)
    words = state.slots["scale_by_adam"].mu_nu["w"]
    mu, nu = (
        jax.lax.bitcast_convert_type(half, jnp.float32)
        for half in (words & np.uint32(0xFFFF0000), words << 16)
    )
    np.testing.assert_allclose(updates["w"], mu / 0.1 / (jnp.sqrt(nu / 0.001) + 1e-8), rtol=1e-5)


FUSED = {
    "adamw int8": lambda **how: gradtx.stored(gradtx.adamw(1e-2), "int8", **how),
    "adamw int4": lambda **how: gradtx.stored(gradtx.adamw(1e-2), mu="int4", nu="int8", **how),
    "lion": lambda **how: gradtx.stored(gradtx.lion(1e-2), "int8", **how),
    "adamw mixed": lambda **how: gradtx.stored(gradtx.adamw(1e-2), mu="int8", nu="bf16", **how),
}


@pytest.mark.parametrize("name", FUSED)
def test_by_tiles_the_numbers_are_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a loop on the CPU, 32 rows at a time."""
    monkeypatch.setattr("gradtx.storage.tiles.ENTRIES", 32 * 128)
    whole, parts = (run(FUSED[name](min_size=0, fused=fused)) for fused in (False, True))
    np.testing.assert_allclose(whole[0]["kernel"], parts[0]["kernel"], rtol=1e-6, atol=1e-7)
    assert close_codes(whole[1], parts[1])


def close_codes(one: Any, other: Any) -> bool:
    """Equal but for an entry in a thousand, in the middle of two codes."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(
        np.mean(np.asarray(a) != np.asarray(b)) <= 1e-3
        for a, b in pairs
        if a.dtype in (jnp.int8, jnp.uint8, jnp.bfloat16)
    )


@pytest.mark.parametrize("name", FUSED)
def test_the_pallas_kernel_gives_the_same_numbers(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interpreted, in tiles of 32 x 64 as on a GPU."""
    expected = run(FUSED[name](min_size=0, fused=False, where="kernel"))
    interpreted = functools.partial(_interpreted, run_row=None)
    monkeypatch.setattr("gradtx.storage.tiles._platform_run", interpreted)
    found = run(FUSED[name](min_size=0, fused=True, where="kernel"))
    np.testing.assert_allclose(found[0]["kernel"], expected[0]["kernel"], rtol=1e-6, atol=1e-7)
    assert close_codes(found[1], expected[1])


def _interpreted(function: Any, rules: Any, seen: Any, shared: Any, row: Any, run_row: Any) -> Any:
    return pallas_run(function, rules, seen, (32, 64), False, shared, row, interpret=True)


def test_what_is_no_plane_of_whole_blocks_is_not_run_by_tiles() -> None:
    assert plane((64, 128), 32) == (64, 128, 32) and plane((3, 64, 128), 32) == (192, 128, 32)
    assert plane((8192,), 32) == (64, 128, 32)
    assert plane((33, 7), 32) is None and plane((31, 64), 32) is None and plane((), 32) is None


def test_a_rule_that_looks_at_whole_arrays_is_run_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """LAMB divides by norms of arrays: by tiles it would be wrong, so it is not run so."""
    monkeypatch.setattr("gradtx.storage.tiles.ENTRIES", 32 * 128)
    whole, asked = (
        run(gradtx.stored(gradtx.lamb(1e-2), "int8", min_size=0, fused=fused))
        for fused in (False, True)
    )
    assert equal(whole, asked)


def test_update_params_is_update_and_apply() -> None:
    for tx in (
        gradtx.adamw(1e-2),
        gradtx.stored(gradtx.adamw(1e-2), "packed16", min_size=0),
        gradtx.guard(gradtx.sgd(0.1)),
    ):
        params, state = run(tx, 2)
        other, kept = arrays(0), tx.init(arrays(0))
        for number in range(2):
            updates, kept = jax.jit(tx.update)(arrays(number + 1), kept, other)
            other = gradtx.apply_updates(other, updates)
        for mine, theirs in zip(jax.tree.leaves(params), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-6)
        assert int(state.count) == int(kept.count) == 2


def test_update_params_leaves_alone_what_is_no_parameter() -> None:
    params = {"w": jnp.ones(2), "n": jnp.arange(3), "frozen": None, "still": jnp.ones(2)}
    tx = gradtx.partition(
        {"sgd": gradtx.sgd(0.5), "freeze": gradtx.set_to_zero()},
        [("still", "freeze"), (".*", "sgd")],
    )
    grads = {"w": jnp.ones(2), "n": jnp.zeros(3, jnp.int32), "frozen": None, "still": jnp.ones(2)}
    new, _ = gradtx.update_params(tx, grads, tx.init(params), params)
    assert (
        new["w"].tolist() == [0.5, 0.5]
        and new["n"].tolist() == [0, 1, 2]
        and new["frozen"] is None
        and new["still"].tolist() == [1, 1]
    )


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_parameters_rounded_stochastically(dtype: Any) -> None:
    """Two thousand steps too small for the last bit move the parameters as they should; both ways
    to apply draw the same bits.
    """
    params, grads = {"w": jnp.ones(512, dtype)}, {"w": jnp.full(512, 1e-4, jnp.float32)}
    tx = gradtx.sgd(0.1)
    step = functools.partial(gradtx.update_params, tx, rounding="stochastic")
    start = params, tx.init(params)
    (moved, _), _ = jax.lax.scan(
        lambda carry, _: (step(grads, carry[1], carry[0]), None), start, length=2000
    )
    mean = np.asarray(moved["w"], np.float64)
    assert abs(mean.mean() - 0.98) <= 4 * mean.std() / np.sqrt(512)
    still = functools.partial(gradtx.update_params, tx)
    (kept, _), _ = jax.lax.scan(
        lambda carry, _: (still(grads, carry[1], carry[0]), None), start, length=10
    )
    assert np.all(np.asarray(kept["w"]) == 1)
    one, state = step(grads, start[1], params)
    updates, _ = tx.update(grads, start[1], params)
    assert equal(one, gradtx.apply_updates(params, updates, "stochastic", step=state.count))


def test_make_step_rounds_parameters() -> None:
    tx, w = gradtx.sgd(1.0), jnp.full(512, 1.0, jnp.bfloat16)
    step = gradtx.make_step(
        lambda w, x: jnp.mean(w.astype(jnp.float32)) * x, tx, rounding="stochastic", donate=False
    )
    w, *_ = step(w, tx.init(w), jnp.float32(1.0))
    assert len(np.unique(np.asarray(w, np.float32))) == 2


@pytest.mark.parametrize("codec", ["packed16", "int8"])
def test_a_step_left_out_leaves_every_bit(codec: str) -> None:
    """Codes are chosen as codes: decoding and encoding again would change them."""
    tx = gradtx.stored(gradtx.guard(gradtx.adamw(1e-2)), codec, min_size=0)
    params, state = run(tx, 2)
    bad = {**arrays(9), "bias": jnp.array([1.0, jnp.nan, 1.0])}
    updates, after = jax.jit(tx.update)(bad, state, params)
    inner = {name: kept for name, kept in state.slots.items() if name != "guard"}
    assert inner and equal(inner, {name: after.slots[name] for name in inner})
    assert equal(gradtx.apply_updates(params, updates), params) and int(after.count) == 2


def test_what_wrappers_keep() -> None:
    """An average of parameters, a sum of gradients, slow parameters: in the codec, and read from
    it.
    """
    ema = gradtx.stored(
        gradtx.chain(gradtx.sgd(0.1), gradtx.params_ema(0.5)), ema="bf16", min_size=0
    )
    params, state = run(ema, 3)
    exact = run(gradtx.chain(gradtx.sgd(0.1), gradtx.params_ema(0.5)), 3)
    assert state.slots["params_ema"].ema["kernel"].dtype == jnp.bfloat16
    plain = gradtx.eval_params(
        gradtx.chain(gradtx.sgd(0.1), gradtx.params_ema(0.5)), exact[1], exact[0]
    )
    np.testing.assert_allclose(
        gradtx.eval_params(ema, state, params)["kernel"], plain["kernel"], rtol=2**-5, atol=2**-5
    )
    for wrapper, slot in (
        (functools.partial(gradtx.accumulate, every=2), "total"),
        (functools.partial(gradtx.lookahead, sync_period=2, slow_step_size=0.5), "slow"),
    ):
        codecs: dict[str, Any] = {slot: "int8", "trace": "bf16"}
        tx = gradtx.stored(
            wrapper(gradtx.sgd(0.1, momentum=0.9)), min_size=0, rounding="nearest", **codecs
        )
        found, state = run(tx, 4)
        kept = {str(leaf.dtype) for leaf in jax.tree.leaves(state.slots) if leaf.shape == SHAPE}
        assert kept == {"int8", "bfloat16"}, "and nothing twice"
        np.testing.assert_allclose(
            found["kernel"], run(wrapper(gradtx.sgd(0.1, momentum=0.9)), 4)[0]["kernel"], atol=0.05
        )


def test_hyperparameters_are_where_they_were() -> None:
    schedule = gradtx.linear_schedule(1.0, 0.0, 10)
    tx = gradtx.stored(
        gradtx.guard(gradtx.tunable(gradtx.sgd(schedule, momentum=0.9), "momentum")),
        "bf16",
        min_size=0,
    )
    params, state = run(tx, 2)
    _, state = tx.update({**arrays(5), "bias": jnp.full(3, jnp.nan)}, state, params)
    found = gradtx.hyperparams(tx, at=state)
    assert float(found["learning_rate"]) == pytest.approx(0.8) and float(
        found["momentum"]
    ) == pytest.approx(0.9)
    assert gradtx.replace(
        gradtx.stored(gradtx.adamw(1e-3), "int8"), learning_rate=0.5
    ) == gradtx.stored(gradtx.adamw(0.5), "int8")
    assert gradtx.from_config(
        gradtx.to_config(gradtx.stored(gradtx.adamw(1e-3), mu="int8"))
    ) == gradtx.stored(gradtx.adamw(1e-3), mu="int8")


def test_many_learning_rates_and_a_hypergradient() -> None:
    tx = gradtx.stored(gradtx.adamw(0.1), "packed16", min_size=0)
    params = {"w": arrays(0)["kernel"][:4, :8]}
    rates = jnp.array([0.1, 0.2])

    def first(rate: jax.Array) -> jax.Array:
        chosen = gradtx.replace(tx, learning_rate=rate)
        return chosen.update(params, chosen.init(params), params)[0]["w"].sum()

    one, two = jax.vmap(first)(rates)
    np.testing.assert_allclose(two, 2 * one, rtol=1e-4)
    np.testing.assert_allclose(jax.grad(first)(0.1), one / 0.1, rtol=1e-3)

    def through(scale: jax.Array) -> jax.Array:
        tx = gradtx.stored(gradtx.sgd(1.0, momentum=0.9), "bf16", min_size=0)
        return tx.update({"w": scale * params["w"]}, tx.init(params), params)[0]["w"].sum()

    np.testing.assert_allclose(jax.grad(through)(1.0), -params["w"].sum(), rtol=1e-2)


@pytest.mark.parametrize("codec", ["packed16", "int8", "bf16+8"])
def test_states_are_saved_exactly(codec: str, tmp_path: Any) -> None:
    tx = gradtx.stored(gradtx.adamw(1e-2), codec, min_size=0)
    _, state = run(tx, 2)
    gradtx.save(tmp_path / "state.npz", state)
    assert equal(state, gradtx.load(tmp_path / "state.npz", jax.eval_shape(tx.init, arrays(0))))
    assert equal(state, gradtx.restore_state(tx.init(arrays(0)), gradtx.flatten_state(state)))
    again = pickle.loads(pickle.dumps(state))
    assert equal(state, again) and jax.tree.structure(again) == jax.tree.structure(state)


@pytest.mark.parametrize(
    ("how", "expected"),
    [({"default": "bf16"}, 4), ({"default": "int8"}, 2.125), ({"mu": "int4", "nu": "int8"}, 1.625)],
)
def test_bytes(how: dict[str, Any], expected: float) -> None:
    found = gradtx.summary(
        gradtx.stored(gradtx.adamw(1e-3), **how),
        {"w": jax.ShapeDtypeStruct((256, 512), "float32")},
        file=io.StringIO(),
    )
    assert found.bytes - 4 == expected * 256 * 512


def test_small_arrays_and_embeddings_stay_in_float32() -> None:
    params = {
        name: jax.ShapeDtypeStruct((128, 64), "float32") for name in ("dense", "tok_embed", "wte")
    }
    params |= {"bias": jax.ShapeDtypeStruct((64,), "float32")}
    kept = {
        codec: jax.eval_shape(gradtx.stored(gradtx.lion(1e-3), codec).init, params)
        .slots["scale_by_lion"]
        .mu
        for codec in ("int8", "bf16")
    }
    assert kept["int8"]["dense"].codes.dtype == jnp.int8
    assert {str(kept["int8"][name].dtype) for name in ("tok_embed", "wte", "bias")} == {"float32"}
    assert {name: str(leaf.dtype) for name, leaf in kept["bf16"].items()} == dict.fromkeys(
        ("dense", "tok_embed", "wte"), "bfloat16"
    ) | {"bias": "float32"}
    chosen = (
        jax.eval_shape(gradtx.stored(gradtx.lion(1e-3), "int8", where="embed|wte").init, params)
        .slots["scale_by_lion"]
        .mu
    )
    assert chosen["dense"].dtype == jnp.float32 and chosen["wte"].codes.dtype == jnp.int8


def test_averages_of_parameters_stay_precise_unless_named() -> None:
    params = {"w": jnp.ones(SHAPE)}
    ema = gradtx.params_ema(0.9)
    for codec in ("int8", "bf16"):
        assert (
            gradtx.stored(ema, codec).init(params).slots["params_ema"].ema["w"].dtype == jnp.float32
        )
    assert (
        gradtx.stored(ema, ema="int8").init(params).slots["params_ema"].ema["w"].codes.dtype
        == jnp.int8
    )


@pytest.mark.parametrize("codec", ["packed16", "int8"])
def test_devices_make_no_difference(codec: str) -> None:
    tx = gradtx.stored(gradtx.adamw(1e-2), codec, min_size=0)
    alone = run(tx, 2)
    mesh = Mesh(np.array(jax.devices()[:4]), ("x",))
    params = {
        "kernel": jax.device_put(
            arrays(0)["kernel"], NamedSharding(mesh, PartitionSpec(None, "x"))
        ),
        "bias": arrays(0)["bias"],
    }
    spread = run(tx, 2, params)
    np.testing.assert_allclose(alone[0]["kernel"], spread[0]["kernel"], rtol=1e-6, atol=1e-6)
    assert close_codes(alone[1], spread[1])
    for leaf in jax.tree.leaves(spread[1].slots):
        if leaf.shape == SHAPE:
            assert leaf.sharding.spec == PartitionSpec(None, "x")


def test_codecs_are_compared() -> None:
    """Bytes as `summary` has them, errors in the order of the bits; what is printed is what is
    returned.
    """
    file = io.StringIO()
    found = gradtx.compare_storage(
        gradtx.adamw(1e-3),
        arrays(0),
        codecs=("float32", "bf16+8", "packed16", "int8", "int4"),
        file=file,
    )
    errors = [row.update_error for row in found.rows]
    assert errors == sorted(errors) and errors[0] == 0 and errors[1] > 0 and errors[-1] < 0.5
    assert [row.slot_error for row in found.rows] == sorted(row.slot_error for row in found.rows)
    for row in found.rows[1:]:
        assert (
            row.bytes
            == gradtx.summary(
                gradtx.stored(gradtx.adamw(1e-3), row.codec), arrays(0), file=io.StringIO()
            ).bytes
        )
    lines = file.getvalue().splitlines()
    assert lines[0].split() == [
        "codec",
        "bytes",
        "per",
        "param",
        "slot",
        "error",
        "update",
        "error",
    ] and lines[-1].startswith("int4")
    own = gradtx.compare_storage(
        gradtx.sgd(0.1, momentum=0.9), arrays(0), [arrays(1)] * 2, ("int8",), file=io.StringIO()
    )
    assert own.rows[0].update_error < 2e-2


def test_comparisons_see_into_wrappers() -> None:
    """What a wrapper and its member keep; steps that move nothing say nothing, nor do arrays that
    are not the parameters'.
    """
    inner, file = gradtx.adamw(1e-3), io.StringIO()
    plain, held, summed, none, flat = (
        gradtx.compare_storage(tx, arrays(0), codecs=("packed16",), file=file).rows[0]
        for tx in (
            inner,
            gradtx.guard(inner),
            gradtx.accumulate(inner, 2),
            gradtx.accumulate(inner, 8),
            gradtx.flatten(inner),
        )
    )
    assert (
        0 < plain.slot_error == held.slot_error < 2**-8 and held.update_error == plain.update_error
    )
    assert 0 < summed.slot_error < 2**-8 and 0 < summed.update_error < 2e-2
    assert 0 < none.slot_error < 2**-8 and np.isnan(none.update_error)
    assert np.isnan(flat.slot_error) and flat.update_error > 0
    with pytest.raises(
        gradtx.GradtxError,
        match=r"compare_storage: grads = .* is no list of trees, one for each step; pass \[grads\]",
    ):
        gradtx.compare_storage(inner, arrays(0), cast(Any, arrays(1)))


UP: Any = "up"
ERRORS: dict[str, tuple[Any, str]] = {
    "codec": (
        lambda: gradtx.stored(gradtx.adam(1e-3), "int7"),
        "stored: default = 'int7' is no codec; the codecs are 'int8', 'int4'",
    ),
    "codec of a slot": (
        lambda: gradtx.stored(gradtx.adam(1e-3), mu="fp8"),
        "stored: mu = 'fp8' is no codec",
    ),
    "slot": (
        lambda: gradtx.stored(gradtx.adam(1e-3), nu_max="bf16"),
        "stored: no member has a slot 'nu_max'; the slots are 'mu', 'nu'",
    ),
    "none": (
        lambda: gradtx.stored(gradtx.adam(1e-3)),
        'stored: no codec is given; say stored(tx, "packed16") for all slots',
    ),
    "rounding": (
        lambda: gradtx.stored(gradtx.adam(1e-3), "bf16", rounding="up"),
        "rounding = 'up' is neither 'stochastic' nor 'nearest'",
    ),
    "block": (
        lambda: gradtx.stored(gradtx.adam(1e-3), "int8", block=33),
        "stored: block = 33 is no power of two; take 32, 64 or 128",
    ),
    "tree": (
        lambda: gradtx.stored(gradtx.accumulate(gradtx.sgd(0.1), 2), total="int4").init(
            {"w": jnp.ones(SHAPE)}
        ),
        "stored: total = 'int4' cannot keep what accumulate has, which is a tree; take "
        "'int8' or a codec of 16 bits",
    ),
    "foreign": (
        lambda: gradtx.stored(
            gradtx.GradientTransformation(lambda params: (), lambda u, s, p: (u, s)), "bf16"
        ).init({"w": jnp.ones(2)}),
        "is another library's, whose slots have no names; take gradtx's own, or leave it outside",
    ),
    "apply": (
        lambda: gradtx.apply_updates(jnp.ones(2), jnp.ones(2), UP),
        "apply_updates: rounding = 'up' is neither 'nearest' nor",
    ),
    "step": (
        lambda: gradtx.apply_updates(jnp.ones(2), jnp.ones(2), "stochastic"),
        'rounding="stochastic" needs step=, which differs',
    ),
    "no count": (
        lambda: gradtx.update_params(
            gradtx.GradientTransformation(lambda params: (), lambda u, s, p: (u, s)),
            jnp.ones(2),
            (),
            jnp.ones(2),
            "stochastic",
        ),
        "keeps no count of steps; call apply_updates with step= instead",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_messages(name: str) -> None:
    call, message = ERRORS[name]
    with pytest.raises(gradtx.GradtxError) as raised:
        call()
    assert message in str(raised.value)
