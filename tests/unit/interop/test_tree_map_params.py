"""Optax's `tree_map_params` on states of gradtx.

It calls `init` on one node without leaves in the place of the parameters, and so finds the slots
that have their shape.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import gradtx
from tests.methods import FIRST, METHODS

PARAMS = {"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)}
MASK = {"kernel": True, "bias": False}
LABELS = {"kernel": "a", "bias": "b"}
ADAM, MOMENTUM = gradtx.adam(0.1), gradtx.sgd(0.1, momentum=0.9)
MASKED = gradtx.masked(ADAM, MASK)
GROUPS = {"a": ADAM, "b": MOMENTUM}


def by_name(params: Any) -> Any:
    return {name: name == "kernel" for name in params}


def mapped(tx: Any, state: Any) -> Any:
    """The state with 5 in every slot of a parameter, and 0 in all else."""
    return optax.tree_map_params(
        tx, lambda one: one * 0 + 5, state, transform_non_params=lambda one: one * 0
    )


CHOICES = {
    "a tree of bools": MASKED,
    "a function of the tree": gradtx.masked(ADAM, by_name),
    "a regex": gradtx.masked(ADAM, "kernel"),
    "a predicate": gradtx.masked(ADAM, lambda path, array: array.ndim > 1),
    "labels": gradtx.partition(GROUPS, LABELS),
    "labels by rules": gradtx.partition(GROUPS, [("kernel", "a"), (".*", "b")]),
    "frozen": gradtx.chain(ADAM, gradtx.freeze({"kernel": False, "bias": True})),
    "stored": gradtx.stored(MASKED, "bf16", min_size=1, where=MASK),
    "accumulated": gradtx.accumulate(MASKED, 2),
    "guarded": gradtx.guard(MASKED),
    "twice masked": gradtx.masked(MASKED, MASK),
    "master weights": gradtx.master_weights(MASKED),
    "averaged": gradtx.chain(MASKED, gradtx.params_ema(0.9)),
}
SLOTS = {"labels": 3, "labels by rules": 3, "accumulated": 4, "averaged": 4}
"""Arrays in the shape of a parameter, where it is not mu and nu of the kernel alone."""


@pytest.mark.parametrize("name", CHOICES)
def test_slots_of_chosen_leaves_are_found(name: str) -> None:
    tx = CHOICES[name]
    state = tx.init(PARAMS)
    found = mapped(tx, state)
    assert jax.tree.structure(found) == jax.tree.structure(state)
    slots = [leaf for leaf in jax.tree.leaves(found) if (leaf == 5).all()]
    assert len(slots) == SLOTS.get(name, 2)
    assert all(leaf.ndim for leaf in slots)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(found) if not leaf.ndim)


def test_a_mask_of_optax_finds_the_same() -> None:
    ours, theirs = MASKED, optax.masked(optax.adam(0.1), MASK)
    found = [
        sum(map(jnp.sum, jax.tree.leaves(mapped(tx, tx.init(PARAMS))))) for tx in (ours, theirs)
    ]
    assert found == [2 * 16 * 5] * 2


@pytest.mark.parametrize("name", [name for name in FIRST if name != "flatten"])
def test_every_method_has_a_placeholder_state(name: str) -> None:
    """`flatten` has vectors of no parameter's shape; Optax's own is refused by it as well."""
    tx = METHODS[name].tx
    state = tx.init(PARAMS)
    assert jax.tree.structure(mapped(tx, state)) == jax.tree.structure(state)
