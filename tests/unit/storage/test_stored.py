"""`stored` around any optimizer: decode, the unchanged rule, encode; whole or by tiles; its
wrappers, files, sizes and messages.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.compose.transformation import GradientTransformation
from gradtx.definition.types import PRECISE
from gradtx.engine.leaf_rule import LeafRule
from gradtx.engine.slots import slots_at
from gradtx.storage.codec import CODECS
from gradtx.storage.packing import unpacked
from gradtx.storage.pallas_kernel import pallas_run
from gradtx.storage.policy import Policy
from gradtx.storage.tiles import plane
from tests.methods import FIRST, METHODS
from tests.support.storing import SHAPE, arrays, close_codes, equal, run


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
            and all(isinstance(item.rule, LeafRule) for item in tx.rules)
            and tx.slot_names
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
    for item in tx.rules:
        form: Any = item.rule.form if isinstance(item.rule, LeafRule) else None
        if form is None:
            continue
        kind = form.kind
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
def test_the_rule_runs_unchanged_on_decoded_slots(codec: Any) -> None:
    """The update is that of the plain optimizer from the slots as they were decoded, and the new
    slots are its, encoded.

    XLA adds and multiplies in one rounding in one program, and in two in the other: 3e-5 where
    terms cancel."""
    plain = gradtx.scale_by_adam()
    tx = gradtx.stored(plain, codec, rounding="nearest", min_size=0)
    params = {"w": arrays(0)["kernel"]}
    _, state = jax.jit(tx.update)({"w": arrays(1)["kernel"]}, tx.init(params), params)
    kept = unpacked(state.slots["scale_by_adam"])
    decode = {
        name: CODECS[codec].decode(kept[name]["w"], SHAPE, square=name == "nu", block=32)
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
        square, made = name == "nu", unpacked(new.slots["scale_by_adam"])[name]["w"]
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
def test_a_step_left_out_leaves_every_bit(codec: Any) -> None:
    """Codes are chosen as codes: decoding and encoding again would change them."""
    tx = gradtx.stored(gradtx.guard(gradtx.adamw(1e-2)), codec, min_size=0)
    params, state = run(tx, 2)
    bad = {**arrays(9), "bias": jnp.array([1.0, jnp.nan, 1.0])}
    updates, after = jax.jit(tx.update)(bad, state, params)
    inner = {name: kept for name, kept in state.slots.items() if name != "guard"}
    assert inner and equal(inner, {name: after.slots[name] for name in inner})
    assert equal(gradtx.apply_updates(params, updates), params) and int(after.count) == 2
