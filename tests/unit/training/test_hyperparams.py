"""Hyperparameters by name: read, replaced, kept in the state, written as JSON."""

import json
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.support.peer import optax

PARAMS = {"w": jnp.ones(3)}
SCHEDULE = gradtx.warmup_cosine_decay_schedule(0.0, 1e-2, 10, 100)


def test_names_are_as_short_as_is_unambiguous() -> None:
    tx = gradtx.chain(gradtx.adam(0.1), slow=gradtx.adam(0.2, b1=0.5), clip=gradtx.clip(1.0))
    found = gradtx.hyperparams(tx)
    assert (
        found["adam.learning_rate"] == 0.1
        and found["slow.learning_rate"] == 0.2
        and found["max_delta"] == 1.0
    )
    assert gradtx.replace(tx, **{"slow.b1": 0.25}) == gradtx.chain(
        gradtx.adam(0.1), slow=gradtx.adam(0.2, b1=0.25), clip=gradtx.clip(1.0)
    )


def test_values_at_a_count_and_at_a_state() -> None:
    tx = gradtx.adamw(SCHEDULE, weight_decay=gradtx.linear_schedule(0.1, 0.0, 10))
    assert float(gradtx.hyperparams(tx)["learning_rate"]) == 0.0
    assert float(gradtx.hyperparams(tx, at=10)["learning_rate"]) == pytest.approx(1e-2)
    state = tx.init(PARAMS)._replace(count=jnp.asarray(5, jnp.int32))
    assert float(gradtx.hyperparams(tx, at=state)["weight_decay"]) == pytest.approx(0.05)
    assert float(
        jax.jit(lambda s: gradtx.hyperparams(tx, at=s)["learning_rate"])(state)
    ) == pytest.approx(5e-3)


def test_replace_reaches_into_schedules_masks_and_partitions() -> None:
    tx = gradtx.masked(gradtx.partition({"a": gradtx.adamw(SCHEDULE)}, [(".*", "a")]), "w")
    new = gradtx.replace(tx, **{"learning_rate.peak_value": 1.0, "b1": 0.5})
    assert (
        float(gradtx.hyperparams(new, at=10)["learning_rate"]) == 1.0
        and gradtx.hyperparams(new)["b1"] == 0.5
    )
    assert gradtx.replace(tx, peak_value=1.0) == gradtx.replace(
        tx, **{"learning_rate.peak_value": 1.0}
    )
    assert jax.tree.structure(new) == jax.tree.structure(tx)
    assert isinstance(
        gradtx.replace(tx, learning_rate=0.1).arguments["inner"], gradtx.GradientTransformation
    )


def test_replace_in_a_loop_compiles_once() -> None:
    traces = []

    @jax.jit
    def step(tx: gradtx.GradientTransformation, params: dict, state: gradtx.State) -> tuple:
        traces.append(1)
        updates, state = tx.update(params, state, params)
        return gradtx.apply_updates(params, updates), state

    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(SCHEDULE))
    params, state = PARAMS, tx.init(PARAMS)
    for number in range(20):
        tx = gradtx.replace(
            tx,
            **{
                "learning_rate.peak_value": 0.1 / (1 + number),
                "b2": 0.99 - 0.01 * number,
                "max_norm": float(number),
            },
        )
        params, state = step(tx, params, state)
    assert len(traces) == 1


def test_tunable_values_live_in_the_state() -> None:
    tx = gradtx.tunable(
        gradtx.chain(gradtx.clip(10.0), gradtx.sgd(0.1, momentum=0.9)), "learning_rate"
    )
    state = tx.init(PARAMS)
    assert sorted(state.slots) == ["hyperparams", "sgd"]
    update = jax.jit(chex.assert_max_traces(tx.update, n=1))
    first, state = update(PARAMS, state, PARAMS)
    state.hyperparams["learning_rate"] = jnp.asarray(0.5, jnp.float32)
    second, state = update(PARAMS, state, PARAMS)
    np.testing.assert_allclose(first["w"], -0.1, rtol=1e-6)
    np.testing.assert_allclose(second["w"], -0.5 * 1.9, rtol=1e-6)
    assert float(gradtx.hyperparams(tx, at=state)["learning_rate"]) == 0.5
    with pytest.raises(
        AttributeError,
        match=r"this state holds no hyperparams: wrap the definition in tunable\(...\), or read",
    ):
        _ = gradtx.sgd(0.1).init(PARAMS).hyperparams


def test_tunable_follows_schedules_and_shows_them() -> None:
    tx = gradtx.tunable(gradtx.sgd(gradtx.linear_schedule(1.0, 0.0, 4)))
    state = tx.init(PARAMS)
    for expected in (1.0, 0.75, 0.5):
        updates, state = tx.update(PARAMS, state)
        assert float(updates["w"][0]) == -expected == -float(state.hyperparams["learning_rate"])


def test_tunable_parameter_of_a_schedule() -> None:
    tx = gradtx.tunable(gradtx.sgd(gradtx.linear_schedule(1.0, 0.0, 4)), "learning_rate.init_value")
    state = tx.init(PARAMS)
    state.hyperparams["learning_rate.init_value"] = jnp.asarray(8.0)
    assert float(tx.update(PARAMS, state)[0]["w"][0]) == -8.0


def test_inject_hyperparams_is_tunable_in_optax_spelling() -> None:
    tx = gradtx.inject_hyperparams(gradtx.adam, static_args=("b1",))(learning_rate=SCHEDULE)
    assert sorted(tx.init(PARAMS).hyperparams) == ["b2", "eps", "eps_root", "learning_rate"]
    ox = optax.inject_hyperparams(optax.adam)(learning_rate=SCHEDULE)
    state, their_state = tx.init(PARAMS), ox.init(PARAMS)
    for _ in range(5):
        updates, state = tx.update(PARAMS, state)
        theirs, their_state = ox.update(PARAMS, their_state)
        np.testing.assert_allclose(updates["w"], theirs["w"], rtol=2e-5)
        assert float(state.hyperparams["learning_rate"]) == pytest.approx(
            float(their_state.hyperparams["learning_rate"])
        )
    typed = gradtx.inject_hyperparams(gradtx.sgd, hyperparam_dtype=jnp.bfloat16)(0.1)
    assert typed.init(PARAMS).hyperparams["learning_rate"].dtype == jnp.bfloat16


def test_config_is_json_and_says_every_argument() -> None:
    tx = gradtx.chain(
        gradtx.adamw(SCHEDULE, mu_dtype=jnp.bfloat16, mask="w"),
        last=gradtx.replace(gradtx.scale(1.0), step_size=jnp.asarray([1.0, 2.0, 3.0])),
    )
    text = json.dumps(gradtx.to_config(tx))
    back = gradtx.from_config(json.loads(text))
    assert back == tx and repr(back) == repr(tx)
    assert json.loads(text)["chain"]["members"][0]["call"]["adamw"]["b2"] == 0.999
    np.testing.assert_allclose(
        back.update(PARAMS, back.init(PARAMS), PARAMS)[0]["w"],
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)[0]["w"],
    )
    assert gradtx.from_config(gradtx.to_config(SCHEDULE)) == SCHEDULE


def test_items_of_containers_have_addresses_of_their_own() -> None:
    joined = gradtx.sgd(gradtx.join_schedules([0.1, gradtx.linear_schedule(1.0, 0.0, 10)], [5]))
    assert gradtx.replace(
        joined, **{"schedules[1].init_value": 2.0, "boundaries[0]": 6}
    ) == gradtx.sgd(gradtx.join_schedules([0.1, gradtx.linear_schedule(2.0, 0.0, 10)], [6]))
    cycles = [
        {"init_value": 0.0, "peak_value": peak, "warmup_steps": 1, "decay_steps": 5}
        for peak in (1.0, 0.5)
    ]
    restarts = gradtx.replace(
        gradtx.sgd(gradtx.sgdr_schedule(cycles)), **{"cosine_kwargs[1].peak_value": 2.0}
    )
    assert gradtx.hyperparams(restarts, at=6) == {"learning_rate": 2.0}


def test_a_schedule_is_a_function_that_jax_transforms() -> None:
    assert float(jax.jit(SCHEDULE)(10)) == pytest.approx(1e-2)
    assert jax.vmap(SCHEDULE)(jnp.arange(4)).shape == (4,)


def test_masks_that_are_lists_survive_replace_tunable_and_json() -> None:
    params = [jnp.ones(2), jnp.ones(2)]
    tx = gradtx.adamw(0.1, mask=[True, False])
    assert gradtx.replace(tx, b1=0.8).init(params).count == 0
    held = gradtx.tunable(tx, "learning_rate")
    assert held.update(params, held.init(params), params)[0][0].shape == (2,)
    back = gradtx.from_config(json.loads(json.dumps(gradtx.to_config(tx))))
    assert back == tx and back.init(params).count == 0
    assert gradtx.adamw(0.1, mask=[True, False]) != gradtx.adamw(0.1, mask=(True, False))


def test_a_whole_address_wins_over_an_ending() -> None:
    tx = gradtx.chain(gradtx.adam(0.1), gradtx.chain(gradtx.adam(0.2)))
    names = gradtx.hyperparams(tx)
    assert names["adam.learning_rate"] == 0.1 and names["chain.adam.learning_rate"] == 0.2
    assert (
        gradtx.hyperparams(gradtx.replace(tx, **{"adam.learning_rate": 1.0}))[
            "chain.adam.learning_rate"
        ]
        == 0.2
    )
    assert len(gradtx.tunable(tx).init(PARAMS).hyperparams) == len(names)


def test_values_kept_by_an_inner_tunable_are_read() -> None:
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.tunable(gradtx.sgd(0.1), "learning_rate"))
    state = tx.init(PARAMS)
    state.slots["sgd"]["hyperparams"]["learning_rate"] = jnp.asarray(0.5, jnp.float32)
    assert (
        float(gradtx.hyperparams(tx, at=state)["learning_rate"])
        == 0.5
        == -float(tx.update(PARAMS, state)[0]["w"][0])
    )
    assert float(state.hyperparams["learning_rate"]) == 0.5


def test_tunable_within_tunable() -> None:
    tx = gradtx.tunable(gradtx.tunable(gradtx.sgd(0.1, momentum=0.9), "learning_rate"), "momentum")
    state = tx.init(PARAMS)
    assert sorted(state.hyperparams) == ["learning_rate", "momentum"]
    state.hyperparams.update(
        learning_rate=jnp.asarray(0.5, jnp.float32), momentum=jnp.asarray(0.0, jnp.float32)
    )
    for _ in range(2):
        updates, state = tx.update(PARAMS, state)
    assert float(updates["w"][0]) == -0.5  # pyright: ignore[reportPossiblyUnboundVariable]
    assert sorted(state.slots) == ["hyperparams", "trace"]


def test_inject_hyperparams_with_nothing_to_inject() -> None:
    assert gradtx.inject_hyperparams(gradtx.scale, static_args="step_size")(-0.1) == gradtx.scale(
        -0.1
    )
    with pytest.raises(gradtx.GradtxError, match="'rate', which is not an argument of scale"):
        gradtx.inject_hyperparams(gradtx.scale, static_args="rate")  # before any call


def noisy(
    grad: jax.Array, slots: None, param: None, step: jax.Array, *, key: jax.Array
) -> tuple[jax.Array, None]:
    return grad + jax.random.normal(key, grad.shape), slots


@pytest.mark.parametrize("key", [jax.random.key, jax.random.PRNGKey])
def test_a_random_key_is_a_hyperparameter_like_others(key: Callable[[int], jax.Array]) -> None:
    tx = gradtx.leafwise(None, noisy, key=key(0))
    assert tx == gradtx.leafwise(None, noisy, key=key(0))
    assert tx != gradtx.leafwise(None, noisy, key=key(1))
    held = gradtx.tunable(tx)
    np.testing.assert_array_equal(
        held.update(PARAMS, held.init(PARAMS))[0]["w"], tx.update(PARAMS, tx.init(PARAMS))[0]["w"]
    )
