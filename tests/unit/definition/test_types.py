"""Types that an editor shows and completes: `pyright` checks every line of this file."""

from typing import Any, assert_type

import jax
import jax.numpy as jnp

import gradtx
from gradtx.definition.description import Description, LeafLine
from gradtx.inspect.coverage import Coverage

PARAMS = {"w": jnp.ones(2)}


def test_a_state_has_a_count_and_slots() -> None:
    tx = gradtx.adamw(1e-3)
    assert_type(tx, gradtx.GradientTransformation)
    state = assert_type(tx.init(PARAMS), gradtx.State)
    assert int(assert_type(state.count, jax.Array)) == 0
    assert_type(state.slots, Any)
    assert assert_type(state.mu, Any)["w"].shape == (2,)
    updates, state = tx.update(PARAMS, state, PARAMS)
    assert_type(updates, Any)
    assert int(assert_type(state, gradtx.State).count) == 1


def test_the_fields_of_a_state_are_declared_and_not_answered_by_getattr() -> None:
    """An editor completes what a class declares."""
    assert {"count", "slots"} <= {*dir(gradtx.State)}


def test_inspection_has_types() -> None:
    tx = assert_type(gradtx.create("adamw", learning_rate=1e-3), gradtx.GradientTransformation)
    found = assert_type(tx.describe(PARAMS), Description)
    assert assert_type(found.leaves, tuple[LeafLine, ...])[0].training == "adamw, decayed"
    assert assert_type(gradtx.coverage(tx, PARAMS), Coverage)["w"] == "adamw, decayed"
    logs = assert_type(gradtx.metrics(tx, tx.init(PARAMS)), dict[str, jax.Array])
    assert [*logs] == ["learning_rate"]
    assert "adamw" in assert_type(gradtx.list_optimizers(), list[str])
