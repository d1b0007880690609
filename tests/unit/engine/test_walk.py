"""The walker of a state: every rule, those inside wrappers too, with slots and parameters."""

import jax.numpy as jnp

import gradtx
from gradtx.engine.walk import walk

PARAMS = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}


def test_rules_inside_wrappers_follow_their_wrapper() -> None:
    tx = gradtx.chain(gradtx.guard(gradtx.adam(0.1)), gradtx.scale(2.0))
    nodes = list(walk(tx, tx.init(PARAMS).slots, 0))
    names = [node.bound.rule.name for node in nodes]
    assert names == ["guard", "scale_by_adam", "scale_by_learning_rate", "scale"]
    assert [len(node.parents) for node in nodes] == [0, 1, 1, 0]
    assert nodes[1].slots.mu["bias"].shape == (3,) and nodes[3].slots is None


def test_a_mask_around_a_wrapper_narrows_the_parameters_of_its_inside() -> None:
    tx = gradtx.masked(gradtx.guard(gradtx.adam(0.1)), "kernel$")
    _, adam, _ = walk(tx, tx.init(PARAMS).slots, 0)
    assert adam.narrow(PARAMS) == {"kernel": PARAMS["kernel"], "bias": None}
