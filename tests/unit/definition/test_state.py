"""A state is read by name: as an attribute, by path, and by the names of Optax's fields."""

import copy
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

PARAMS = {"mu": jnp.ones((2, 3)), "nu": {"w": jnp.ones(3)}}  # names that slots have, too
GRADS = jax.tree.map(lambda leaf: 2.0 * leaf, PARAMS)


def after(tx, steps=1):
    state = tx.init(PARAMS)
    for _ in range(steps):
        _, state = tx.update(GRADS, state, PARAMS)
    return state


def test_an_attribute_is_the_one_slot_of_that_name():
    state = after(gradtx.chain(gradtx.clip(1.0), gradtx.adam(0.1)))
    assert state.mu is state.slots["adam"]["scale_by_adam"].mu
    assert state.adam.nu is state.nu is state["adam"].scale_by_adam.nu
    assert int(state.adam.count) == 1


def test_a_parameter_is_not_a_slot():
    state = gradtx.sgd(0.1, momentum=0.9).init(PARAMS)
    with pytest.raises(
        AttributeError, match=r"^this state has no slot 'mu'; it has count, trace; hyper"
    ):
        _ = state.mu
    with pytest.raises(AttributeError):
        _ = gradtx.prodigy().init({"kernel": jnp.ones(2)}).kernel


def test_a_state_answers_no_name_of_python_or_numpy():
    state = gradtx.adam(0.1).init(PARAMS)
    assert not any(hasattr(state, name) for name in ("shape", "dtype", "__array__", "_x"))
    for other in (pickle.loads(pickle.dumps(state)), copy.deepcopy(state)):
        assert type(other) is gradtx.State
        assert jax.tree.structure(other) == jax.tree.structure(state)


def test_several_slots_of_one_name_are_listed():
    state = gradtx.chain(gradtx.adam(0.1), gradtx.scale_by_adam()).init(PARAMS)
    with pytest.raises(
        AttributeError,
        match=r"^several members of this state have 'mu': read state\['adam/scale_by_adam/mu'\], "
        r"or state\['scale_by_adam/mu'\]$",
    ):
        _ = state.mu
    assert state["scale_by_adam/mu"] is state.slots["scale_by_adam"].mu


def test_a_wrong_name_gets_a_suggestion():
    state = gradtx.adam(0.1).init(PARAMS)
    with pytest.raises(
        AttributeError, match=r"^this state has no slot 'Mu'; did you mean 'mu'\?; it has count, mu"
    ):
        _ = state.Mu


def test_a_path_reads_any_entry():
    state = after(gradtx.named_chain(("clip", gradtx.clip(1.0)), ("adam", gradtx.adam(0.1))))
    whole = state["slots/adam/scale_by_adam/nu/nu/w"]
    assert (
        whole
        is state["adam/scale_by_adam/nu/nu/w"]
        is state.slots["adam"].popitem()[1].nu["nu"]["w"]
    )
    assert state["count"] is state.count


def test_a_path_that_leads_nowhere_says_where_it_ends():
    state = gradtx.adam(0.1).init(PARAMS)
    with pytest.raises(
        gradtx.StateError,
        match=r"^the state has nothing at 'scale_by_adam/Mu'; did you mean 'mu'\?; under "
        r"'scale_by_adam' it holds 'mu', 'nu'$",
    ):
        _ = state["scale_by_adam/Mu"]


def test_a_position_reads_by_name():
    state = after(gradtx.chain(gradtx.clip(1.0), gradtx.adam(0.1)))
    first: Any = state[0]
    assert state[1].mu is state[1][0].mu is state[-1]["adam"].mu is state.mu
    assert first.count is state.count
    assert tuple(state[:1]) == (state.count,)
    assert repr(state[0]) == (
        "<state[0]: read by name, state.count, state['adam/scale_by_adam/mu'], "
        "state['adam/scale_by_adam/nu']>"
    )
    with pytest.raises(
        TypeError,
        match=r"^state\[0\]: the members of a gradtx.State have names, not positions; read "
        r"state.slots, or one of state.count, state\['adam/scale_by_adam/mu'\]",
    ):
        list(state[0])


def test_a_walk_over_fields_tuples_and_dicts_is_as_it_was():
    state = gradtx.adam(0.1).init(PARAMS)
    count, slots = state
    assert state._fields == ("count", "slots")
    assert count is state.count
    assert slots is state.slots
    assert len(state) == 2


def test_hyperparams_are_written_wherever_they_are():
    tx = gradtx.chain(gradtx.clip(10.0), gradtx.inject_hyperparams(gradtx.sgd)(learning_rate=0.1))
    state = tx.init(PARAMS)
    state[1].hyperparams["learning_rate"] = jnp.asarray(0.5)
    assert float(tx.update(GRADS, state)[0]["mu"][0, 0]) == -1.0
    other = state._replace(hyperparams={"learning_rate": jnp.asarray(0.25)})
    assert float(tx.update(GRADS, other)[0]["mu"][0, 0]) == -0.5
    assert float(state.hyperparams["learning_rate"]) == 0.5


def test_replace_writes_the_one_entry_of_a_name():
    state = gradtx.adam(0.1).init(PARAMS)
    assert state._replace(mu=GRADS).slots["scale_by_adam"].mu is GRADS
    assert int(state._replace(count=jnp.int32(3), nu=GRADS).count) == 3
    with pytest.raises(
        gradtx.StateError, match=r"^_replace: this state has no entry of the name 'trace'; write"
    ):
        state._replace(trace=GRADS)


def test_the_fields_of_multi_steps():
    tx = gradtx.MultiSteps(gradtx.adam(0.1), every_k_schedule=3)
    state = tx.init(PARAMS)
    for micro in (1, 2, 0):
        _, state = tx.update(GRADS, state)
        assert int(state.mini_step) == micro
    assert int(state.gradient_step) == 1
    assert float(jnp.sum(state.acc_grads["mu"])) == 0.0
    assert int(state.inner_opt_state.count) == 1
    assert state.inner_opt_state.mu is state.mu


def test_the_fields_of_multi_steps_in_a_chain():
    steps = gradtx.MultiSteps(gradtx.adam(0.1), every_k_schedule=2)
    state = after(gradtx.chain(gradtx.clip(1.0), steps.gradient_transformation()), steps=3)
    assert (int(state.mini_step), int(state.gradient_step), int(state.count)) == (1, 1, 3)


def test_the_mean_gradient_of_multi_steps():
    tx = gradtx.MultiSteps(gradtx.sgd(0.1), every_k_schedule=3)
    state = tx.init(jnp.zeros(2))
    for g in (1.0, 3.0):
        _, state = tx.update(jnp.full(2, g), state)
    np.testing.assert_array_equal(state.acc_grads, 2.0)


def test_the_fields_of_multi_transform():
    groups = {True: gradtx.adam(0.1), False: gradtx.set_to_zero()}
    tx = gradtx.multi_transform(groups, {"mu": True, "nu": {"w": False}})
    state = tx.init(PARAMS)
    assert state.inner_states[True].inner_state.mu["mu"].shape == (2, 3)
    assert state.inner_states[False].slots == {}


@pytest.mark.parametrize(
    ("tx", "field"),
    [
        (gradtx.inject_hyperparams(gradtx.adam)(0.1), "inner_state"),
        (gradtx.apply_if_finite(gradtx.adam(0.1), 3), "inner_state"),
        (gradtx.masked(gradtx.adam(0.1), {"mu": True, "nu": False}), "inner_state"),
        (gradtx.lookahead(gradtx.adam(0.1), 5, 0.5), "fast_state"),
        (gradtx.schedule_free(gradtx.adam(0.1), 0.1), "base_optimizer_state"),
    ],
    ids=str,
)
def test_the_state_of_a_member(tx, field):
    inner = getattr(tx.init(PARAMS), field)
    assert type(inner) is gradtx.State
    assert inner.mu["mu"].shape == (2, 3)


@pytest.mark.parametrize(
    ("tx", "theirs", "ours"),
    [
        (gradtx.prodigy(), "exp_avg_sq", "nu"),
        (gradtx.adafactor(0.1, min_dim_size_to_factor=1), "v_row", "nu_row"),
        (gradtx.momo(), "lb", "lower_bound"),
        (gradtx.schedule_free_sgd(), "z", "z"),
        (gradtx.reduce_on_plateau(), "scale", "scale"),
        (gradtx.apply_if_finite(gradtx.sgd(0.1), 3), "notfinite_count", "notfinite_count"),
    ],
    ids=str,
)
def test_names_of_optax_for_slots(tx, theirs, ours):
    state = tx.init(PARAMS)
    assert getattr(state, theirs) is getattr(state, ours)


STATELESS = [
    gradtx.clip(1.0),
    gradtx.clip_by_global_norm(1.0),
    gradtx.chain(),
    gradtx.chain(gradtx.clip(1.0), gradtx.sgd(0.1)),
    gradtx.add_decayed_weights(0.1),
    gradtx.masked(gradtx.scale(2.0), {"mu": True, "nu": False}),
]


@pytest.mark.parametrize("tx", STATELESS, ids=str)
@pytest.mark.parametrize("state", [None, (), gradtx.EmptyState()], ids=str)
def test_without_state_any_state_will_do(tx, state):
    expected, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    updates, after = tx.update(GRADS, state, PARAMS)
    assert after is state
    jax.tree.map(np.testing.assert_array_equal, updates, expected)


@pytest.mark.parametrize(
    "tx",
    [
        gradtx.trace(0.9),
        gradtx.sgd(gradtx.linear_schedule(1.0, 0.0, 10)),
        gradtx.add_noise(0.1, 0.5, 0),
        gradtx.zero_nans(),
        gradtx.chain(gradtx.clip(1.0), gradtx.ema(0.9)),
    ],
    ids=str,
)
def test_what_stores_or_counts_needs_its_state(tx):
    with pytest.raises(
        gradtx.StateError,
        match=f"^the state of {tx.name} is None, not a gradtx.State: make it with tx.init",
    ):
        tx.update(GRADS, None, PARAMS)


def test_a_rule_that_reads_the_step_needs_a_state():
    def _warm(grad, slots, param, step, *, rate):
        return rate * grad * step, slots

    @gradtx.definition
    def warm(rate: gradtx.Hyperparam) -> gradtx.GradientTransformation:
        return gradtx.leafwise(None, _warm, rate=rate)

    with pytest.raises(gradtx.StateError, match=r"^the state of warm is None"):
        warm(0.1).update(GRADS, None, PARAMS)


def test_the_last_member_of_a_line_search_by_position():
    tx = gradtx.chain(gradtx.sgd(1.0), gradtx.scale_by_backtracking_linesearch(5))
    state = tx.init(PARAMS)
    last: Any = state[-1]
    assert last[0] is state.learning_rate
    assert last.info is last[3] is state.info


def test_a_tuple_of_members_is_refused():
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.inject_hyperparams(gradtx.sgd)(0.1))
    state = tx.init(PARAMS)
    with pytest.raises(
        gradtx.StateError,
        match=r"^the state of chain is a tuple, not a gradtx.State: write "
        r"state = state._replace\(hyperparams=...\), since members have names, not places$",
    ):
        tx.update(GRADS, (state[0], state[1]._replace(hyperparams={})), PARAMS)


def test_an_empty_state_is_an_instance_of_EmptyState():
    assert isinstance(gradtx.set_to_zero().init(PARAMS), gradtx.EmptyState)
    assert not isinstance(gradtx.trace(0.9).init(PARAMS), gradtx.EmptyState)
    assert isinstance(gradtx.EmptyState(), gradtx.EmptyState)


def test_the_state_of_another_library_in_lookahead_is_its_own():
    tx = gradtx.lookahead(optax.trace(0.9), 5, 0.5)
    assert type(tx.init(PARAMS).fast_state) is optax.TraceState
