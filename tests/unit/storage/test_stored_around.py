"""`stored` around and within wrappers, over devices, in files; what is compared, and what mistakes
are told.
"""

import functools
import io
import pickle
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gradtx
from gradtx.storage.codec import CODECS, Codec
from tests.support.bits import assert_same
from tests.support.storing import SHAPE, arrays, close_codes, equal, run


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
def test_states_are_saved_exactly(codec: Any, tmp_path: Any) -> None:
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
        codec: jax.eval_shape(gradtx.stored(gradtx.lion(1e-3), codec).init, params).slots[
            "scale_by_lion"
        ]
        for codec in ("int8", "bf16")
    }
    codes, rest = kept["int8"].mu_codes, kept["int8"].mu
    assert codes["dense"].dtype == jnp.int8 and rest["dense"] is None
    assert {str(rest[name].dtype) for name in ("tok_embed", "wte", "bias")} == {"float32"}
    assert {codes[name] for name in ("tok_embed", "wte", "bias")} == {None}
    assert {name: str(leaf.dtype) for name, leaf in kept["bf16"].mu.items()} == dict.fromkeys(
        ("dense", "tok_embed", "wte"), "bfloat16"
    ) | {"bias": "float32"}
    chosen = jax.eval_shape(
        gradtx.stored(gradtx.lion(1e-3), "int8", where="embed|wte").init, params
    ).slots["scale_by_lion"]
    assert chosen.mu["dense"].dtype == jnp.float32
    assert chosen.mu_codes["wte"].dtype == jnp.int8


class Halves(NamedTuple):
    """An array as a large and a small part of each entry."""

    large: Any
    small: Any


def _halve(x: jax.Array, random: Any, *, square: bool, block: int) -> Halves:
    large = x.astype(jnp.bfloat16)
    return Halves(large, (x - large).astype(jnp.bfloat16))


def _add_halves(one: Halves, shape: Any, *, square: bool, block: int) -> jax.Array:
    return one.large.astype(jnp.float32) + one.small


@pytest.mark.parametrize("codec", [*CODECS, "halves"])
def test_each_leaf_of_a_state_is_an_array_at_the_path_of_a_parameter(
    codec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So shardings, Orbax and nnx follow the paths; a codec of an author's own too."""
    halves = Codec("halves", _halve, _add_halves, "2⁻¹⁶ of each entry", parts=Halves)
    monkeypatch.setitem(CODECS, "halves", halves)
    params = {"a": {"b": jnp.ones(SHAPE)}, "c": [jnp.ones((32, 2)), jnp.ones(3)], "d": None}
    for inner in (gradtx.adamw(1e-3), gradtx.accumulate(gradtx.sgd(0.1, momentum=0.9), 2)):
        tx = gradtx.stored(inner, codec, min_size=4)
        state = tx.init(params)
        for grads in (params, jax.tree.map(lambda one: 2 * one, params)):
            updates, new = jax.jit(tx.update)(grads, state, params)
            assert jax.tree.structure(new) == jax.tree.structure(state)
            assert jax.tree.structure(updates) == jax.tree.structure(params)
            state = new
        flat = gradtx.flatten_state(state)
        ends = ("a/b", "c/0", "c/1")
        assert all(path.endswith(ends) for path, leaf in flat.items() if leaf.ndim)
        assert_same(state, pickle.loads(pickle.dumps(state)))
        names = {path.split("/")[2] for path, leaf in flat.items() if leaf.ndim}
        parts = CODECS[codec].parts
        assert parts is None or names >= {f"{name}_{parts._fields[0]}" for name in first_of(inner)}


def first_of(tx: gradtx.GradientTransformation) -> set[str]:
    """The slots of a parameter that `stored` encodes."""
    return {"mu", "nu"} & {*tx.slot_names} or {"total", "trace"}


def test_averages_of_parameters_stay_precise_unless_named() -> None:
    params = {"w": jnp.ones(SHAPE)}
    ema = gradtx.params_ema(0.9)
    for codec in ("int8", "bf16"):
        assert (
            gradtx.stored(ema, codec).init(params).slots["params_ema"].ema["w"].dtype == jnp.float32
        )
    kept = gradtx.stored(ema, ema="int8").init(params).slots["params_ema"]
    assert kept.ema_codes["w"].dtype == jnp.int8 and kept.ema == {"w": None}


@pytest.mark.parametrize("codec", ["packed16", "int8"])
def test_devices_make_no_difference(codec: Any) -> None:
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
        match=r"compare_storage: grads = .* is not a list of trees, one for each step; "
        r"pass \[grads\]",
    ):
        gradtx.compare_storage(inner, arrays(0), cast(Any, arrays(1)))


UP: Any = "up"
ERRORS: dict[str, tuple[Any, str]] = {
    "codec": (
        lambda: gradtx.stored(gradtx.adam(1e-3), "int7"),  # pyright: ignore[reportArgumentType]
        "stored: default = 'int7' is not a codec; the codecs are 'int8', 'int4'",
    ),
    "codec of a slot": (
        lambda: gradtx.stored(gradtx.adam(1e-3), mu="fp8"),  # pyright: ignore[reportArgumentType]
        "stored: mu = 'fp8' is not a codec",
    ),
    "slot": (
        lambda: gradtx.stored(gradtx.adam(1e-3), nu_max="bf16"),
        "stored: no member has a slot 'nu_max'; the slots are 'mu', 'nu'",
    ),
    "none": (
        lambda: gradtx.stored(gradtx.adam(1e-3)),
        'stored: no codec is given; pass stored(tx, "packed16") for all slots',
    ),
    "rounding": (
        lambda: gradtx.stored(gradtx.adam(1e-3), "bf16", rounding="up"),  # pyright: ignore[reportArgumentType]
        "rounding = 'up' is unknown; choose one of 'nearest', 'stochastic'",
    ),
    "block": (
        lambda: gradtx.stored(gradtx.adam(1e-3), "int8", block=33),
        "stored: block = 33 is not a power of two; use 32, 64 or 128",
    ),
    "tree": (
        lambda: gradtx.stored(gradtx.accumulate(gradtx.sgd(0.1), 2), total="int4").init(
            {"w": jnp.ones(SHAPE)}
        ),
        "stored: total = 'int4' does not work for accumulate, whose slot is a tree; use "
        "'int8' or a codec of 16 bits",
    ),
    "foreign": (
        lambda: gradtx.stored(
            gradtx.GradientTransformation(lambda params: (), lambda u, s, p: (u, s)), "bf16"
        ).init({"w": jnp.ones(2)}),
        "is another library's, whose slots have no names; use gradtx's own, or put it outside "
        "of stored",
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
        "has no count of steps; call apply_updates with step= instead",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_messages(name: str) -> None:
    call, message = ERRORS[name]
    with pytest.raises(gradtx.GradtxError) as raised:
        call()
    assert message in str(raised.value)
