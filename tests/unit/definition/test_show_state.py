"""A state prints on one line, whatever its arrays are."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.show_state import FEW
from tests.methods import METHODS
from tests.support.meshes import parameters

PARAMS = {"b": jnp.ones(3), "w": jnp.ones((2, 3))}
ADAM = "scale_by_adam/mu={b: f32[3], w: f32[2,3]}, scale_by_adam/nu={b: f32[3], w: f32[2,3]}"


def test_a_small_state() -> None:
    tx = gradtx.adamw(1e-3)
    _, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    assert repr(state) == f"State(count=1, {ADAM})"
    assert repr(gradtx.sgd(0.1).init(PARAMS)) == "State(count=0)"
    one = gradtx.adam(0.1).init(jnp.ones(3))
    assert repr(one) == "State(count=0, scale_by_adam/mu=f32[3], scale_by_adam/nu=f32[3])"


def test_numbers_are_shown_and_empty_slots_are_not() -> None:
    state = gradtx.guard(gradtx.sgd(0.1)).init(PARAMS)
    assert repr(state).startswith("State(count=0, guard/applied=0, guard/skipped=0,")
    assert "None" not in repr(state)


def test_a_large_state() -> None:
    params = {f"layer_{index}": jnp.ones((100, 250)) for index in range(FEW + 1)}
    state = gradtx.stored(gradtx.adam(0.1), "bf16").init(params)
    assert "scale_by_adam/mu=(5 arrays, bf16, 250 kB)" in repr(state)
    assert len(repr(state)) < 200


def test_without_values() -> None:
    """Traced, abstract and deleted arrays have shapes alone; other leaves print as they are."""
    tx, shapes = gradtx.adamw(1e-3), f"State(count=i32[], {ADAM})"
    assert repr(jax.eval_shape(tx.init, PARAMS)) == shapes
    printed: list[str] = []
    jax.jit(lambda state: printed.append(repr(state)))(tx.init(PARAMS))
    state = tx.init(PARAMS)
    for leaf in jax.tree.leaves(state):
        leaf.delete()
    assert printed == [repr(state)] == [shapes]
    names = jax.tree.map(lambda leaf: "data", tx.init(PARAMS))
    assert repr(names).startswith("State(count='data', scale_by_adam/mu={b: 'data', w: 'data'}")


@pytest.mark.parametrize("slots", [None, (), {}, 3.0, {"a": object()}, np.ones(2)])
def test_slots_of_any_kind(slots: Any) -> None:
    assert repr(gradtx.State(jnp.zeros((), int), slots)).startswith("State(count=0")


def test_every_method() -> None:
    """One line that names every slot, without a value of an array."""
    for name, row in METHODS.items():
        text = repr(jax.eval_shape(row.tx.init, parameters(jnp.float32)))
        assert "\n" not in text and "Array(" not in text and "array(" not in text, name
