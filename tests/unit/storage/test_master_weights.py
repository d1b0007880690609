"""`master_weights`: parameters in bfloat16 that train as float32 ones do."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.storage.master_weights import FORMATS, STEPS
from gradtx.tree.rounding import to_bfloat16
from tests.oracles import storage as own

INNERS = {
    "adamw": gradtx.adamw(3e-3, weight_decay=0.1),
    "guard": gradtx.guard(gradtx.adamw(3e-3)),
    "stored": gradtx.stored(gradtx.sgd(1e-2, momentum=0.9), "packed16", min_size=0),
}


def start() -> dict[str, Any]:
    """Parameters of many sizes, 0 and some beside it among them, one in float32."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(16, 8)) * 10.0 ** rng.uniform(-6, 1, size=(16, 8))
    w[0, :3] = 0, 1e-8, -1e-8
    return {"w": jnp.asarray(w, jnp.bfloat16), "scale": jnp.ones(4)}


def gradient(number: int) -> dict[str, jax.Array]:
    """In float32, as masters get them; in bfloat16 it is the same number."""
    rng = np.random.default_rng(number)
    return {
        "w": to_bfloat16(jnp.asarray(rng.normal(size=(16, 8)), jnp.float32)),
        "scale": jnp.asarray(rng.normal(size=4), jnp.float32),
    }


def train(tx: Any, params: Any, steps: int = 30, wide: bool = False) -> tuple[Any, Any]:
    """Without an outer `jit`, in which XLA would add and multiply in one rounding in one program,
    and in two in another.
    """
    state = tx.init(params)
    for number in range(steps):
        grads = gradient(number)
        updates, state = tx.update(
            {**grads, "w": grads["w"].astype(jnp.float32)} if wide else grads, state, params
        )
        params = gradtx.apply_updates(params, updates)
    return params, state


def in_float32(inner: Any, steps: int = 30) -> np.ndarray:
    params = start()
    return np.asarray(
        train(inner, {**params, "w": params["w"].astype(jnp.float32)}, steps, wide=True)[0]["w"]
    )


@pytest.mark.parametrize("name", INNERS)
def test_low_halves_are_exact(name: str) -> None:
    """Parameter and low half together are the bits of the parameter of a training in float32."""
    exact = in_float32(INNERS[name])
    params, state = train(gradtx.master_weights(INNERS[name], "low16"), start())
    word = np.asarray(params["w"]).view(np.uint16).astype(np.uint32) << 16
    rest = np.asarray(state.slots["master_weights"].rest["w"]).astype(np.int32)
    np.testing.assert_array_equal((word + rest.astype(np.uint32)).view(np.float32), exact)
    assert state.slots["master_weights"].rest["scale"] is None and rest.dtype == np.int32


def test_whole_masters_are_exact_and_parameters_their_nearest() -> None:
    exact = in_float32(INNERS["adamw"])
    params, state = train(gradtx.master_weights(INNERS["adamw"]), start())
    np.testing.assert_array_equal(state.slots["master_weights"].rest["w"], exact)
    np.testing.assert_array_equal(np.asarray(params["w"], np.float64), own.bf16(exact))


def test_corrections_follow_closely() -> None:
    """Each step adds an error of at most 2⁻¹⁷ of the parameter; without a master it is 2⁻⁹, or the
    parameter stands still.
    """
    inner = gradtx.sgd(1e-3)
    exact = in_float32(inner)
    params, state = train(gradtx.master_weights(inner, "bf16+8"), start())
    near = np.asarray(params["w"], np.float64)
    np.testing.assert_allclose(near, exact, rtol=2**-8, atol=1e-6)
    rest = np.asarray(state.slots["master_weights"].rest["w"], np.float64)
    assert state.slots["master_weights"].rest["w"].dtype == jnp.int8
    half = 2.0 ** (np.floor(np.log2(np.maximum(np.abs(near), 1e-37))) - 8)
    error = np.abs(near + rest / 127 * half - exact)
    assert np.all(error <= 30 * 2**-16 * np.maximum(np.abs(near), 0.05))
    assert (
        np.abs(np.asarray(train(inner, start())[0]["w"], np.float64) - exact).max()
        > 4 * error.max()
    )


@pytest.mark.parametrize("kept", ["float32", "low16", "bf16+8"])
def test_a_parameter_arrives_where_it_is_to(kept: Any) -> None:
    """From any size to any other, through 0: what `apply_updates` makes is a nearest bfloat16 of
    the master.
    """
    rng = np.random.default_rng(3)
    sizes = 10.0 ** rng.uniform(-8, 3, size=(2, 1000))
    w, target = (
        jnp.asarray(sizes[0] * rng.choice([-1, 1], 1000), jnp.bfloat16),
        sizes[1].astype(np.float32),
    )
    tx = gradtx.master_weights(gradtx.sgd(1.0), kept)
    updates, _ = tx.update(w.astype(jnp.float32) - target, tx.init(w), w)
    master = np.asarray(w, np.float32) - (np.asarray(w, np.float32) - target)
    there = np.asarray(gradtx.apply_updates(w, updates), np.float64)
    np.testing.assert_array_equal(
        np.abs(there - master), np.abs(own.bf16(master) - master)
    )  # of two as near, either


@pytest.mark.parametrize("kept", ["float32", "low16", "bf16+8"])
def test_what_is_kept_follows_the_parameter_that_there_is(kept: Any) -> None:
    """Where a step through 0 needs one bit more than float32 has, the parameter is a unit beside;
    the master is told by it.
    """
    rng = np.random.default_rng(4)
    form = FORMATS[kept]
    master = jnp.asarray(rng.choice([-1, 1], 100_000) * rng.uniform(0.5, 2, 100_000), jnp.float32)
    w = form.round(master)
    master = form.join(w, form.rest(master, w))
    new = (
        master
        * 2.0 ** jnp.asarray(-rng.uniform(10, 24, 100_000))
        * jnp.asarray(rng.choice([-1, 1], 100_000))
    )
    way, rest = STEPS[kept](w, master, new - master)
    held, target = gradtx.apply_updates(w, way), np.asarray(master + (new - master), np.float64)
    there = np.asarray(form.round(jnp.asarray(target, jnp.float32)), np.float64)
    attach = np.asarray(held, np.float64) != there
    unit = np.spacing(np.abs(np.asarray(master)))
    assert 0 < attach.sum() < 500 and np.all(
        np.abs(np.asarray(held, np.float64) - there)[attach] <= unit[attach]
    )
    found = np.abs(np.asarray(form.join(held, rest), np.float64) - target)
    assert np.all(found[attach] <= (0 if kept == "float32" else unit[attach]))


@pytest.mark.parametrize("kept", ["low16", "bf16+8"])
@pytest.mark.parametrize("value", [0.0, -0.0, 3.0, -0.7])
def test_parameters_set_by_other_hands(kept: Any, value: float) -> None:
    """The master goes with the parameter, whatever was kept beside the old one; at 0 that would be
    the bits of a nan.
    """
    tx, w = gradtx.master_weights(gradtx.sgd(1.0), kept), jnp.ones(201, jnp.bfloat16)
    _, state = gradtx.update_params(tx, jnp.linspace(-3e-3, 3e-3, 201), tx.init(w), w)
    rest = np.asarray(state.slots["master_weights"].rest)
    assert rest.min() < 0 < rest.max()
    new, _ = gradtx.update_params(tx, jnp.zeros(201), state, jnp.full(201, value, jnp.bfloat16))
    np.testing.assert_array_equal(np.asarray(new, np.float32), np.float32(jnp.bfloat16(value)))


def test_stored_around_keeps_the_master() -> None:
    """A master in bfloat16 would be the parameter again, which stands still; see
    `test_low_halves_are_exact` for the other way round.
    """
    tx = gradtx.stored(
        gradtx.master_weights(gradtx.sgd(1e-3, momentum=0.9)), "packed16", min_size=0
    )
    rest = tx.init(start()).slots["master_weights"].rest["w"]
    assert rest.dtype == jnp.float32


def test_nan_stays_nan() -> None:
    for kept in ("float32", "low16", "bf16+8"):
        tx, w = gradtx.master_weights(gradtx.sgd(1.0), kept), jnp.ones(2, jnp.bfloat16)
        new, _ = gradtx.update_params(tx, jnp.array([jnp.nan, 1.0], jnp.bfloat16), tx.init(w), w)
        assert np.isnan(float(new[0])) and float(new[1]) == 0


def test_evaluation_and_skipped_steps() -> None:
    inner = gradtx.chain(gradtx.sgd(0.1), gradtx.params_ema(0.5))
    tx = gradtx.guard(gradtx.master_weights(inner, "low16"))
    params, state = train(tx, start(), 3)
    assert gradtx.eval_params(tx, state, params)["w"].dtype == jnp.bfloat16
    bad = {**gradient(7), "scale": jnp.full(4, jnp.nan)}
    _, after = jax.jit(tx.update)(bad, state, params)
    assert np.array_equal(
        after.slots["master_weights"].rest["w"], state.slots["master_weights"].rest["w"]
    )


def test_scan_accumulation_and_files(tmp_path: Any) -> None:
    """One program of two updates, each of two gradients, is two steps of the mean; a checkpoint has
    every bit.
    """
    inner, grads = gradtx.sgd(0.25, momentum=0.5), gradient(0)
    tx, twice = (
        gradtx.master_weights(one, "low16") for one in (inner, gradtx.accumulate(inner, 2))
    )
    state, params = tx.init(start()), start()
    for _ in range(2):
        params, state = gradtx.update_params(tx, grads, state, params)
    scanned, kept = jax.lax.scan(
        lambda carry, _: (gradtx.update_params(twice, grads, carry[1], carry[0]), None),
        (start(), twice.init(start())),
        None,
        length=4,
    )[0]
    np.testing.assert_array_equal(scanned["w"], params["w"])
    np.testing.assert_array_equal(
        kept.slots["master_weights"].rest["w"], state.slots["master_weights"].rest["w"]
    )
    gradtx.save(tmp_path / "state", state)
    loaded = gradtx.load(tmp_path / "state", tx.init(start()))
    assert all(
        a.dtype == b.dtype and np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(state), strict=True)
    )


def test_a_form_that_there_is_not() -> None:
    with pytest.raises(
        gradtx.GradtxError,
        match=r"format = 'int16' is unknown; choose one of 'float32', 'low16', 'bf16\+8'",
    ):
        gradtx.master_weights(gradtx.sgd(0.1), "int16")  # pyright: ignore[reportArgumentType]
