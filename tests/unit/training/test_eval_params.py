"""The parameters to evaluate at: of every method that has some, wherever it stands."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import StateError
from tests.methods.averages import turning
from tests.methods.row import rate
from tests.methods.tails import ramp, sliding
from tests.oracles import averages as own
from tests.oracles import core as ref
from tests.oracles import tails
from tests.oracles import wrappers as others
from tests.oracles.compose import after, descend, each
from tests.support.evaluating import EMA, GRADS, PARAMS, READERS, SGD, W, close, evaluated, train
from tests.support.peer import optax
from tests.support.trees import gradient, start

contrib = optax.contrib
BEHIND = {
    # θ after each of three steps of −1/2, −2/2, −3/2 for a gradient of 1, its parameter being 2
    "params_ema": ((2 / 2 + 1.5 / 2) / 2 + 0.5 / 2) / 2 - 1.0 / 2,
    "params_average": (0.5 - 1.0) / 2,
}


@pytest.mark.parametrize("name", BEHIND)
def test_averages_by_hand(name: str) -> None:
    assert float(evaluated(READERS[name])["a"][0]) == BEHIND[name]


# Against the references, step by step

ORACLES: dict[str, tuple[Any, Any, Any]] = {
    "all": (
        gradtx.chain(gradtx.sgd(0.1), gradtx.params_average()),
        after(descend(each(ref.identity), 0.1), own.swa(0, 1)),
        "eval",
    ),
    "cycles": (
        gradtx.chain(gradtx.sgd(rate), gradtx.params_average(start=5, every=3)),
        after(descend(each(ref.identity), rate), own.swa(5, 3)),
        "eval",
    ),
    "tail": (
        gradtx.chain(gradtx.sgd(rate), gradtx.params_average(4, 2, horizon=2.5)),
        after(descend(each(ref.identity), rate), own.swa(4, 2, 2.5)),
        "eval",
    ),
    "ema": (
        gradtx.chain(gradtx.sgd(0.1), gradtx.params_ema(0.6, warmup=True)),
        after(descend(each(ref.identity), 0.1), each(others.params_ema, decay=0.6, warmup=True)),
        "a",
    ),
    "nesterov": (
        gradtx.ema_nesterov(gradtx.adamw(rate, weight_decay=0.1), decay=0.6, beta=turning),
        own.ema_nesterov(descend(each(ref.adam), rate, 0.1), 0.6, turning),
        "theta",
    ),
    "free": (
        gradtx.schedule_free(gradtx.sgd(0.2), 0.2, 0.8),
        others.schedule_free(descend(each(ref.identity), 0.2), 0.2, 0.8),
        "x",
    ),
    "tail of a run": (
        gradtx.chain(gradtx.sgd(rate), gradtx.tail_ema(3.0, 4, 2, blend=0.65)),
        tails.tail(descend(each(ref.identity), rate), 3.0, 4, 2, 0.65),
        "eval",
    ),
    "anchor": (
        gradtx.anchor_gradient(
            gradtx.adamw(rate, weight_decay=0.1), 3.0, start=2, gain=ramp, blend=0.4
        ),
        tails.anchor(descend(each(ref.adam), rate, 0.1), 3.0, 2, ramp, 1, 0.4),
        "eval",
    ),
    "bema": (
        gradtx.chain(gradtx.sgd(0.1, momentum=0.5), gradtx.params_bema(0.3, 0.6, 5.0)),
        tails.bema(descend(each(ref.trace, decay=0.5), 0.1), 0.3, 0.6, 5.0),
        "eval",
    ),
    "gpa": (
        gradtx.gpa(gradtx.sgd(0.1, momentum=0.5), mu_y=sliding),
        tails.gpa(descend(each(ref.trace, decay=0.5), 0.1), 0.9 ** (1 / 32), sliding),
        "x",
    ),
    "lookahead": (
        gradtx.lookahead(gradtx.sgd(0.1), 3, 0.6),
        others.lookahead(descend(each(ref.identity), 0.1), 3, 0.6),
        "slow",
    ),
}


def kept(memory: Any, field: str, count: int) -> Any:
    """What a reference says is to be evaluated: one list, or one array in the memory of each of the
    last rule's arrays.
    """
    if field in memory:
        return memory[field]
    return [memory[("method", 1)][index][field] for index in range(count)]


@pytest.mark.parametrize("name", ORACLES)
def test_what_is_evaluated_is_that_of_the_reference(name: str) -> None:
    tx, oracle, field = ORACLES[name]
    with jax.enable_x64(True):
        params = [jnp.asarray(w) for w in start()]
        theirs, memory, state = start(), {}, tx.init(params)
        for step in range(1, 16):
            updates, state = jax.jit(tx.update)(
                [jnp.asarray(g) for g in gradient(step)], state, params
            )
            params = gradtx.apply_updates(params, updates)
            theirs = [
                w + u
                for w, u in zip(theirs, oracle(gradient(step), theirs, memory, step), strict=True)
            ]
            close(gradtx.eval_params(tx, state, params), kept(memory, field, len(theirs)), 1e-11)


def test_schedule_free_is_read_as_by_its_own_function_and_by_optax() -> None:
    with jax.enable_x64(True):
        params, grads = jax.tree.map(lambda x: x.astype(jnp.float64), (PARAMS, GRADS))
        tx = gradtx.schedule_free(gradtx.sgd(0.3), 0.3, b1=0.8)
        ox = contrib.schedule_free(optax.sgd(0.3), 0.3, b1=0.8)
        state, trained = train(tx, params, grads)
        other, theirs = train(ox, params, grads)
        ours = gradtx.eval_params(tx, state, trained)
        close(ours, gradtx.schedule_free_eval_params(state, trained), 1e-12)
        close(ours, contrib.schedule_free_eval_params(other, theirs), 1e-12)


# Wherever it stands


PLACES: dict[str, Any] = {
    "chain": lambda tx: gradtx.chain(gradtx.clip(100.0), tx),
    "chain in chain": lambda tx: gradtx.chain(first=gradtx.chain(gradtx.identity(), tx)),
    "mask of all": lambda tx: gradtx.masked(tx, ".*"),
    "partition": lambda tx: gradtx.partition({"all": tx}, [(".*", "all")]),
    "tunable": gradtx.tunable,
    "apply_if_finite": lambda tx: gradtx.apply_if_finite(tx, 3),
    "guard": gradtx.guard,
    "accumulate": lambda tx: gradtx.accumulate(tx, 1),
    "flatten": gradtx.flatten,
    "split": gradtx.split_real_and_imaginary,
    "conditionally_transform": lambda tx: gradtx.conditionally_transform(
        tx, lambda count: count >= 0
    ),
    "conditionally_mask": lambda tx: gradtx.conditionally_mask(tx, lambda count: count >= 0),
    "nested": lambda tx: gradtx.chain(
        gradtx.apply_if_finite(gradtx.flatten(gradtx.tunable(gradtx.masked(tx, ".*"))), 3),
        optax.scale(1.0),
    ),
    "beside Optax's": lambda tx: gradtx.chain(optax.clip(100.0), tx, optax.identity()),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", READERS)
def test_it_is_found_wherever_it_stands(name: str, place: str) -> None:
    alone, wrapped = READERS[name], PLACES[place](READERS[name])
    close(evaluated(wrapped), evaluated(alone))
    state, params = train(wrapped)
    close(jax.jit(gradtx.eval_params)(wrapped, state, params), evaluated(alone))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", READERS)
def test_what_a_mask_leaves_out_is_as_it_was_trained(name: str, place: str) -> None:
    tx = gradtx.masked(
        READERS[name] if place == "mask of all" else PLACES[place](READERS[name]), "a"
    )
    state, params = train(tx)
    found = gradtx.eval_params(tx, state, params)
    assert found["b"]["c"] is params["b"]["c"]
    close(found["a"], evaluated(READERS[name])["a"])


def test_groups_have_each_their_own() -> None:
    tx = gradtx.partition(
        {"x": READERS["lookahead"], "y": READERS["params_ema"]}, [("a", "x"), (".*", "y")]
    )
    found = evaluated(tx)
    close(
        found,
        {"a": evaluated(READERS["lookahead"])["a"], "b": evaluated(READERS["params_ema"])["b"]},
    )


@pytest.mark.filterwarnings("ignore:chain. params_average averages")  # in front, on purpose
@pytest.mark.parametrize("name", READERS)
def test_of_several_in_a_chain_the_last_one_counts(name: str) -> None:
    """And it is shown the parameters as they were trained, not what an earlier one made of them."""
    first = gradtx.chain(gradtx.params_average(start=1e6), READERS[name])
    close(evaluated(first), evaluated(READERS[name]))
    last = gradtx.chain(READERS[name], mean=gradtx.params_ema(1.0))
    close(evaluated(last), PARAMS)


@pytest.mark.parametrize("name", READERS)
def test_many_at_once(name: str) -> None:
    tx = READERS[name]
    batch = jax.tree.map(lambda x: jnp.stack([x, 2 * x, -x]), GRADS)
    found = jax.vmap(lambda grads: evaluated(tx, grads=grads))(batch)
    for index in range(3):
        close(
            jax.tree.map(lambda x, i=index: x[i], found),
            evaluated(tx, grads=jax.tree.map(lambda x, i=index: x[i], batch)),
        )


@pytest.mark.parametrize("name", READERS)
def test_arrays_have_the_dtype_of_their_parameters(name: str) -> None:
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    found = evaluated(READERS[name], half, jax.tree.map(lambda x: x.astype(jnp.bfloat16), GRADS))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(found)} == {"bfloat16"}
    close(found, evaluated(READERS[name]), 1e-2)


@pytest.mark.parametrize("name", READERS)
def test_leaves_that_are_no_arrays_of_floats_are_handed_on(name: str) -> None:
    params = {**PARAMS, "n": jnp.array([1, 2]), "none": None}
    found = evaluated(READERS[name], params, {**GRADS, "n": jnp.array([0, 0]), "none": None})
    assert found["none"] is None and found["n"].tolist() == [1, 2]
    close({"a": found["a"], "b": found["b"]}, evaluated(READERS[name]))


@pytest.mark.parametrize("name", READERS)
def test_what_is_read_out_outlives_the_donated_state(name: str) -> None:
    tx = READERS[name]
    state, params = train(tx)
    found = gradtx.eval_params(tx, state, params)
    before = jax.tree.map(np.asarray, found)
    jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)(state)
    assert any(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    close(found, before)


@pytest.mark.parametrize(
    "tx",
    [
        SGD,
        gradtx.chain(gradtx.clip(1.0), optax.adam(0.1)),
        gradtx.flatten(gradtx.adam(0.1)),
        optax.adam(0.1),
    ],
)
def test_a_definition_without_any_gives_the_parameters_themselves(tx: Any) -> None:
    state, params = train(tx)
    assert gradtx.eval_params(tx, state, params) is params


# Lookahead and SAM


def test_pairs_are_evaluated_at_the_slow_ones() -> None:
    tx, pair = READERS["lookahead"], gradtx.LookaheadParams.init_synced(PARAMS)
    state = tx.init(pair)
    for step in range(1, 4):
        updates, state = tx.update(jax.tree.map(lambda g, s=step: g * s, GRADS), state, pair)
        pair = gradtx.apply_updates(pair, updates)
    close(gradtx.eval_params(tx, state, pair), pair.slow, 0.0)
    close(pair.slow, evaluated(tx))
    longer = gradtx.chain(tx, gradtx.scale(1.0))
    close(gradtx.eval_params(longer, longer.init(pair), pair), pair.slow, 0.0)


def test_at_the_top_of_an_ascent_sam_is_evaluated_where_it_began() -> None:
    tx = gradtx.sam(gradtx.chain(gradtx.sgd(0.5), gradtx.scale(1.0)), gradtx.sgd(0.25), 3)
    w, state, seen = W, tx.init(W), []
    for _ in range(6):
        updates, state = tx.update(jnp.array(1.0), state, w)
        w = gradtx.apply_updates(w, updates)
        seen.append((float(w), float(gradtx.eval_params(tx, state, w))))
    assert seen == [(8.25, 8.0), (8.5, 8.0), (7.5, 7.5), (7.75, 7.5), (8.0, 7.5), (7.0, 7.0)]
    averaged = gradtx.sam(gradtx.chain(gradtx.sgd(0.5), EMA), gradtx.sgd(0.25), 3)
    state, w = train(averaged, W, jnp.array(1.0), steps=4)
    assert (
        float(gradtx.eval_params(averaged, state, w)) == (8.0 + 6.5) / 2
    )  # the third gradient is 3


# States of other definitions


def test_a_state_of_another_definition_is_refused() -> None:
    state, params = train(READERS["params_ema"])
    for tx, said in (
        (SGD, r"the state holds slots for 'params_ema', which is not a member of this definition"),
        (
            READERS["params_average"],
            r"the state holds slots for 'params_ema', which is not a member of this definition",
        ),
        (
            gradtx.chain(SGD, params_ema=gradtx.params_average()),
            r"member params_ema keeps Averaged, its state holds ParamsAverage",
        ),
    ):
        with pytest.raises(StateError, match=said):
            gradtx.eval_params(tx, state, params)
    with pytest.raises(
        StateError, match=r"the state has nothing for member 'params_ema'; it holds nothing"
    ):
        gradtx.eval_params(READERS["params_ema"], SGD.init(params), params)
    with pytest.raises(
        StateError,
        match=r"the state of chain is a dict, not a gradtx\.State: pass the state that "
        r"tx\.update returned",
    ):
        gradtx.eval_params(READERS["params_ema"], state.slots, params)
    with pytest.raises(
        StateError,
        match=r"slot 'ema' of member params_ema was made for other parameters: 'b/c' is only "
        r"in the state",
    ):
        gradtx.eval_params(READERS["params_ema"], state, {"a": params["a"]})
    with pytest.raises(
        StateError,
        match=r"params_ema keeps ema f32\[2\] at 'a', and the parameter is f32\[3\]: this "
        r"state was made",
    ):
        gradtx.eval_params(READERS["params_ema"], state, {**params, "a": jnp.zeros(3)})


def test_a_member_inside_a_chain_of_optax_is_not_passed_over_in_silence() -> None:
    inner = READERS["params_ema"]
    for tx in (
        optax.chain(optax.clip(1.0), inner),
        gradtx.chain(optax.chain(optax.clip(1.0), inner), gradtx.scale(1.0)),
    ):
        state, params = train(tx)
        with pytest.raises(
            StateError,
            match=r"holds one of gradtx's, whose definition eval_params cannot see .* put the "
            r"members in gradtx",
        ):
            gradtx.eval_params(tx, state, params)


def halfway(param: jax.Array, slots: None, *, share: jax.Array) -> jax.Array:
    return share * param


def pass_on(grad: jax.Array, slots: None, param: None, step: jax.Array) -> Any:
    return grad, slots


@pytest.mark.parametrize("share", [0.5, lambda count: 0.125 * count])
def test_a_read_out_may_go_by_a_hyperparameter(share: Any) -> None:
    """Of the state, where tunable keeps it there; of a schedule, at the count of the state."""
    tx = gradtx.leafwise(None, pass_on, share=share, evaluate=halfway)
    held = gradtx.tunable(tx)
    state = held.init(W)
    for _ in range(4):
        _, state = held.update(W, state)
    assert float(gradtx.eval_params(held, state, W)) == 4.0
    state.hyperparams["share"] = jnp.array(0.25)
    assert float(gradtx.eval_params(held, state, W)) == (2.0 if share == 0.5 else 4.0)
