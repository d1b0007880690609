"""`outer` with several replicas beside float64 references, as DiLoCo, MuLoCo, Snoo and Lookahead;
what it refuses, and what is around it.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.methods.outer import momentum, momentum_reference
from tests.methods.row import rate
from tests.oracles import outer as own
from tests.oracles.compose import descend, each
from tests.oracles.core import adam
from tests.support.trees import deviation, follow, follow_reference, gradient, start

OUTER = gradtx.sgd(0.7, momentum=0.9, nesterov=True)
INNER = gradtx.sgd(0.1)
REPLICAS, STEPS = 4, 12


def gradients_at(step: int) -> list[list[np.ndarray]]:
    """The gradients of one step, of each replica."""
    return [gradient(100 * replica + step) for replica in range(REPLICAS)]


def stacked(replicas: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves), dtype), *replicas)


def follow_replicas(tx: Any, dtype: Any) -> list[Any]:
    """The parameters of all replicas, stacked, step by step."""
    params = stacked([start()] * REPLICAS, dtype)
    state, update, history = tx.init(params), jax.jit(tx.update), []
    for step in range(1, STEPS + 1):
        updates, state = update(stacked(gradients_at(step), dtype), state, params)
        params = gradtx.apply_updates(params, updates)
        history.append([np.asarray(w, np.float64) for w in params])
    return [*history, [np.asarray(w) for w in gradtx.eval_params(tx, state, params)]]


def follow_references(oracle: Any) -> list[Any]:
    params, memory, history = [start() for _ in range(REPLICAS)], {}, []
    for step in range(1, STEPS + 1):
        updates = oracle(gradients_at(step), params, memory, step)
        params = [
            [w + u for w, u in zip(one, move, strict=True)]
            for one, move in zip(params, updates, strict=True)
        ]
        history.append([np.stack(leaves) for leaves in zip(*params, strict=True)])
    return [*history, memory["P"]]


ADAM, ADAM_REFERENCE = gradtx.adam(0.05), descend(each(adam), 0.05)
CASES = {
    "DiLoCo": ({}, {}),
    "streaming": (
        {"fragments": ["^[03]", "^[12]"], "delay": 1, "merge": 0.5},
        {"fragments": [(0, 3), (1, 2)], "delay": 1, "merge": 0.5},
    ),
    "three fragments, more delay": (
        {"fragments": 3, "delay": 3, "merge": 0.25},
        {"fragments": [(0, 3), (1,), (2,)], "delay": 3, "merge": 0.25},
    ),
}


@pytest.mark.parametrize("case", sorted(CASES))
def test_four_replicas(case: str) -> None:
    """Each replica's parameters at every step, and P, to the rounding of float64."""
    options, reference = CASES[case]
    with jax.enable_x64(True):
        ours = follow_replicas(gradtx.outer(ADAM, OUTER, 5, replicas=REPLICAS, **options), float)
    theirs = follow_references(own.replicas(ADAM_REFERENCE, own.nesterov(0.7, 0.9), 5, **reference))
    assert deviation(ours, theirs) <= 1e-12


def test_four_replicas_in_8_bits() -> None:
    """The mean of what each replica encoded; codes are decoded in float32."""
    tx = gradtx.outer(momentum, OUTER, 3, replicas=REPLICAS, compress="int8", error_feedback=True)
    oracle = own.replicas(
        momentum_reference, own.nesterov(0.7, 0.9), 3, code=own.int8, feedback=True
    )
    with jax.enable_x64(True):
        ours = follow_replicas(tx, float)
    assert deviation(ours, follow_references(oracle)) <= 1e-6


def test_replicas_in_bfloat16_meet_in_float32() -> None:
    """P and Δ are float32: P differs from float32's by the rounding of the replicas alone."""
    params = {"w": jnp.linspace(1.0, 2.0, 64 * 2, dtype=jnp.bfloat16).reshape(2, 64)}
    tx = gradtx.outer(INNER, gradtx.sgd(1.0), 1, replicas=2)
    state = tx.init({"w": jnp.stack([params["w"][0]] * 2)})
    assert state["outer/params/w"].dtype == jnp.float32
    grads = {"w": jnp.asarray([[1e-3] * 64, [3e-3] * 64], jnp.bfloat16)}
    _, state = tx.update(grads, state, {"w": jnp.stack([params["w"][0]] * 2)})
    moved = params["w"][0].astype(jnp.float32) - state["outer/params/w"]
    np.testing.assert_allclose(moved, 2e-4, rtol=1e-2)  # less than half a step of bfloat16 at 1


def history(tx: Any, dtype: Any = float) -> list[Any]:
    with jax.enable_x64(True):
        return follow(tx, dtype)


def test_lookahead_is_a_case() -> None:
    ours = history(gradtx.outer(momentum, gradtx.sgd(0.6), every=4))
    assert deviation(ours, history(gradtx.lookahead(momentum, 4, 0.6))) <= 1e-12


def test_snoo_is_nesterov_of_torch() -> None:
    """Torch's first buffer is the gradient itself, as that of a trace from zero."""
    ours = history(gradtx.outer(momentum, gradtx.sgd(0.68, momentum=0.37, nesterov=True), 4))
    theirs = own.outer(momentum_reference, own.torch_nesterov(0.68, 0.37), 4)
    assert deviation(ours, follow_reference(theirs)) <= 1e-12


def test_muloco_has_the_rate_in_its_buffer() -> None:
    """It differs from DiLoCo where the rate varies, and only there."""
    inside = gradtx.chain(
        gradtx.scale_by_schedule(rate), gradtx.trace(0.6, nesterov=True), gradtx.scale(-1.0)
    )
    theirs = own.outer(momentum_reference, own.muloco(rate, 0.6), 4)
    assert deviation(history(gradtx.outer(momentum, inside, 4)), follow_reference(theirs)) <= 1e-12
    outside = gradtx.sgd(rate, momentum=0.6, nesterov=True)
    assert deviation(history(gradtx.outer(momentum, outside, 4)), follow_reference(theirs)) > 1e-3
    constant = own.outer(momentum_reference, own.muloco(0.7, 0.6), 4)
    ours = history(gradtx.outer(momentum, gradtx.sgd(0.7, momentum=0.6, nesterov=True), 4))
    assert deviation(ours, follow_reference(constant)) <= 1e-12


def test_muon_inside() -> None:
    """MuLoCo: each replica's matrix has Muon's own step, as one that is alone."""
    params, muon = {"w": jnp.eye(4, 6)}, gradtx.muon(0.1)
    pair = jax.tree.map(lambda w: jnp.stack([w, w]), params)
    grads = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 6)), jnp.float32)}
    tx = gradtx.outer(muon, OUTER, every=3, replicas=2)
    updates, _ = tx.update(grads, tx.init(pair), pair)
    for replica in range(2):
        alone = {"w": grads["w"][replica]}
        expected, _ = muon.update(alone, muon.init(params), params)
        np.testing.assert_allclose(updates["w"][replica], expected["w"], atol=1e-6)


def test_a_run_shorter_than_every_is_that_of_the_inner_optimizer() -> None:
    ours = history(gradtx.outer(momentum, OUTER, every=1000))
    assert deviation(ours, history(momentum)) == 0.0


def test_eval_params_reads_the_synchronised_parameters() -> None:
    tx, params = gradtx.outer(INNER, gradtx.sgd(1.0), 2), {"w": jnp.ones(3, jnp.bfloat16), "n": 3}
    state = tx.init(params)
    _, state = tx.update({"w": jnp.ones(3, jnp.bfloat16), "n": 0}, state, params)
    shown = gradtx.eval_params(tx, state, params)
    assert shown["w"].dtype == jnp.bfloat16 and shown["w"].tolist() == [1.0] * 3
    assert shown["n"] == 3


def test_more_than_ten_fragments_keep_their_order() -> None:
    """A dict that went through jit is in the order of its keys as texts."""
    params = [jnp.ones(2)] * 12
    fragments = [f"^{number}$" for number in range(12)]
    tx = gradtx.outer(INNER, gradtx.sgd(1.0, momentum=0.9), 12, fragments=fragments)
    state, update = tx.init(params), jax.jit(tx.update)
    for _ in range(2):  # fragments 1 and 2 are synchronised at steps 1 and 2
        _, state = update([jnp.ones(2)] * 12, state, params)
    slots = state.slots["outer"].outer_optimizer
    moved = [name for name, one in slots.items() if any(jnp.any(x) for x in jax.tree.leaves(one))]
    assert sorted(moved) == ["fragment_1", "fragment_2"]


def test_strided_fragments_read_the_number_of_a_layer() -> None:
    params = {"embed": jnp.ones(2), "blocks_3": {"w": jnp.ones(2)}, "blocks_4": {"w": jnp.ones(2)}}
    tx = gradtx.outer(INNER, gradtx.sgd(1.0, momentum=0.9), 4, fragments=2)
    slots = tx.init(params).slots["outer"].outer_optimizer
    paths = [sorted(gradtx.flatten_state(one)) for one in slots.values()]
    assert [[path.split("/", 2)[-1] for path in each] for each in paths] == [
        ["blocks_4/w", "embed"],
        ["blocks_3/w"],
    ]


def test_stored_guard_and_a_saved_state(tmp_path: Any) -> None:
    """Slots are encoded and P is not; a skipped step is no step; a run goes on from a file."""
    params = {"w": jnp.linspace(0.1, 1.0, 64)}
    inside = gradtx.outer(gradtx.adam(0.1), OUTER, every=2)
    tx = gradtx.guard(gradtx.stored(inside, "int8", min_size=0))
    state, update = tx.init(params), jax.jit(tx.update)
    assert state["outer/params/w"].dtype == jnp.float32
    assert {"int8"} <= {str(one.dtype) for one in jax.tree.leaves(state)}
    updates, state = update({"w": jnp.ones(64)}, state, params)
    params = gradtx.apply_updates(params, updates)
    before = state["outer/params/w"]
    bad, state = update({"w": jnp.full(64, jnp.nan)}, state, params)
    assert int(state.count) == 1 and not jnp.any(bad["w"])
    np.testing.assert_array_equal(before, state["outer/params/w"])
    gradtx.save(tmp_path / "state.npz", state)
    state = gradtx.load(tmp_path / "state.npz", state)
    updates, state = update({"w": jnp.ones(64)}, state, params)
    assert int(state.count) == 2 and bool(jnp.all(before != state["outer/params/w"]))
    params = gradtx.apply_updates(params, updates)
    np.testing.assert_allclose(params["w"], state["outer/params/w"], rtol=1e-6)


def test_extra_arguments_of_replicas() -> None:
    """A value for each replica reaches its own; one value reaches all of them."""
    tx = gradtx.outer(gradtx.polyak_sgd(), OUTER, every=3, replicas=2)
    params = {"w": jnp.ones((2, 3))}
    ours, _ = tx.update(params, tx.init(params), params, value=jnp.asarray([0.3, 0.6]))
    np.testing.assert_allclose(ours["w"][1], 2 * ours["w"][0], rtol=1e-6)
    alike, _ = tx.update(params, tx.init(params), params, value=0.3)
    np.testing.assert_allclose(alike["w"], ours["w"][:1].repeat(2, 0), rtol=1e-6)


TREE = {"a": jnp.ones((2, 3)), "b": jnp.ones(2)}
MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "every": (
        {"every": 0},
        "outer: every = 0 is not a number of inner steps; give a whole number from 1 on, 30 for "
        "example",
    ),
    "delay": (
        {"delay": 4},
        "outer: delay = 4 must be from 0 to every - 1 = 3: a result arrives before the next one is "
        "sent",
    ),
    "merge": ({"merge": 1.5}, "outer: merge = 1.5 is outside its range [0, 1]"),
    "compress": (
        {"compress": "int9"},
        "outer: compress = 'int9' is not a codec; the codecs are 'int8', 'int4', 'dynamic8', "
        "'bf16', 'f16', 'packed16', 'bf16+8', and 'float32' for none",
    ),
    "error_feedback": (
        {"error_feedback": True},
        "outer: error_feedback=True needs codes that leave something out: set compress='int8', or "
        "leave error_feedback out",
    ),
    "outer_optimizer": (
        {"outer_optimizer": gradtx.lbfgs()},
        "outer: outer_optimizer = lbfgs needs grad=, value=, value_fn=, and an outer gradient "
        "comes alone, without a loss: take sgd(0.7, momentum=0.5, nesterov=True), or another "
        "method that needs gradients only",
    ),
    "replicas": (
        {"replicas": 0},
        "outer: replicas = 0 is not a number of replicas; give a whole number from 1 on, the size "
        "of the first axis of every parameter",
    ),
    "two forms": (
        {"replicas": 2, "axis_name": "pod"},
        "outer: axis_name = 'pod' and replicas = 2 are two forms of one thing: name the axis "
        "inside shard_map, pmap and vmap, or give replicas where they are the first axis of the "
        "parameters",
    ),
    "no fragment": (
        {"fragments": []},
        "outer: fragments = [] has no fragment; give a number from 1 on, or a list of patterns",
    ),
    "a pattern of nothing": (
        {"fragments": ["a", "c", "b"]},
        "outer: fragment 1: 'c' matches none of the 2 leaves; the paths are 'a', 'b'",
    ),
    "in no fragment": (
        {"fragments": ["a"]},
        "outer: no pattern of fragments matches 'b': each parameter must be in one fragment, so "
        "extend a pattern",
    ),
    "in two fragments": (
        {"fragments": ["a", "a|b"]},
        "outer: fragments 0 and 1, 'a' and 'a|b', both match 'a': each parameter must be in one "
        "fragment",
    ),
    "shapes": (
        {"replicas": 3},
        "outer: replicas = 3, and the shape of 'a' is (2, 3): stack the replicas' parameters along "
        "a first axis of 3",
    ),
    "axis_name": (
        {"axis_name": "pod"},
        "outer: axis_name = 'pod' is not an axis of this program: call update inside shard_map, "
        "pmap or vmap with an axis of that name, or give replicas= where replicas are the first "
        "axis of the parameters",
    ),
}


@pytest.mark.parametrize("name", sorted(MISTAKES))
def test_mistakes(name: str) -> None:
    """One sentence each."""
    changes, message = MISTAKES[name]
    arguments = {"inner_optimizer": INNER, "outer_optimizer": OUTER, "every": 4, **changes}
    with pytest.raises(gradtx.GradtxError, match=f"^{re.escape(message)}"):
        tx = gradtx.outer(**arguments)
        tx.update(TREE, tx.init(TREE), TREE)


def test_codes_of_a_complex_array() -> None:
    tx = gradtx.outer(INNER, OUTER, 1, compress="int8")
    params = {"z": jnp.ones(2, complex)}
    message = (
        "outer: compress = 'int8' encodes real numbers, and 'z' is complex: put outer inside of "
        "split_real_and_imaginary, or leave compress out"
    )
    with pytest.raises(gradtx.StructureError, match=re.escape(message)):
        tx.update(params, tx.init(params), params)


def test_schedules_of_the_outer_optimizer_count_synchronisations() -> None:
    halves = gradtx.exponential_decay(1.0, transition_steps=1, decay_rate=0.5)
    tx = gradtx.outer(INNER, gradtx.sgd(halves), every=3)
    state, w = tx.init(jnp.ones(2)), jnp.ones(2)
    for _ in range(7):
        _, state = tx.update(w, state, w)
    rates = gradtx.hyperparams(tx, at=state)  # after two of them
    assert float(rates["outer_optimizer.learning_rate"]) == 0.25
