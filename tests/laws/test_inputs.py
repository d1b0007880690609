"""Laws of what `update` receives: over every row of the table, and every storage.

Gradients of other dtypes, states read as NumPy arrays, counters at their maximum, containers that
look at their arrays, and leaves of 2³¹ entries and more.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.testing.laws import advance, close
from gradtx.testing.problems import gradients, parameters
from tests.methods import METHODS
from tests.support.containers import Layer
from tests.support.pairs import MAKERS

MAXIMUM = 2**31 - 1

CASES = {name: METHODS[name].tx for name in MAKERS} | {
    f"stored/{storage}": gradtx.stored(gradtx.adamw(1e-2), storage)
    for storage in ("bf16", "f16", "bf16+8", "packed16", "int8", "int4", "dynamic8")
}
CASES["adamw/cautious"] = gradtx.adamw(1e-2, cautious=True)

every = pytest.mark.parametrize("name", CASES)


def as_numpy(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)


@every
def test_a_state_of_numpy_arrays(name: str) -> None:
    """What `flax.serialization.from_bytes` returns continues with the same numbers."""
    tx, params = CASES[name], parameters()
    grads = gradients(params)
    _, state = advance(tx, grads, tx.init(params), params)
    read = jax.tree.map(np.asarray, state)
    expected, found = (advance(tx, grads, one, params) for one in (state, read))
    jax.tree.map(np.testing.assert_array_equal, as_numpy(expected), as_numpy(found))


def at_maximum(leaf: jax.Array) -> jax.Array:
    return jnp.full_like(leaf, MAXIMUM) if leaf.dtype == jnp.int32 else leaf


@every
def test_counters_at_their_maximum(name: str) -> None:
    """No counter wraps, and updates stay finite and, where they were, nonzero."""
    tx, params = CASES[name], parameters()
    grads = gradients(params)
    first, state = advance(tx, grads, tx.init(params), params)
    state, updates = jax.tree.map(at_maximum, state), [first]
    for _ in range(3):
        one, state = advance(tx, grads, state, params)
        updates.append(one)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state):
            assert leaf.dtype != jnp.int32 or (leaf >= 0).all(), jax.tree_util.keystr(path)
    arrays = [[np.asarray(leaf) for leaf in jax.tree.leaves(one)] for one in updates]
    assert all(np.isfinite(leaf).all() for one in arrays for leaf in one)
    moves = [any(leaf.any() for leaf in one) for one in arrays]
    assert any(moves[1:]) or not moves[0]


OWN_TREES = (
    *("adadelta", "lars", "qk_clip", "selective_transform", "by_role", "muon", "muon_clip"),
    *("adamuon", "normuon", "scale_by_adamuon", "scale_by_dion", "scale_by_muon"),
    *("scale_by_normuon", "scale_by_scion", "dion", "scion", "mud", "scale_by_mud"),
    *("muown", "scale_by_input_moments", "adamh", "muonh"),
)
"""Rows whose own function fills the container with bools or axes, which is theirs to answer for."""


@pytest.mark.parametrize("name", [name for name in CASES if name not in OWN_TREES])
def test_a_container_that_looks_at_its_arrays(name: str) -> None:
    """gradtx fills it with arrays alone, and with None where a leaf has none."""
    tx = CASES[name]
    params = {"a": Layer(jnp.ones((3, 4)), jnp.ones(4)), "b": jnp.ones(3)}
    grads = jax.tree.map(lambda leaf: 0.5 * leaf, params)
    state = tx.init(params)
    updates, state = advance(tx, grads, state, params)
    params = gradtx.apply_updates(params, updates)
    gradtx.eval_params(tx, state, params)
    gradtx.summary(tx, params)
    gradtx.metrics(tx, state)


def sized(shape: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
    return {"w": jax.ShapeDtypeStruct(shape, jnp.float32)}


@every
def test_leaves_of_more_entries_than_an_int32_counts(name: str) -> None:
    """Stacked layers of a model of 70 B parameters, and one large matrix."""
    tx = CASES[name]
    for shape in ((80, 8192, 28672), (65536, 65536)):
        state = jax.eval_shape(tx.init, sized(shape))
        update = functools.partial(advance, tx)
        updates, _ = jax.eval_shape(update, sized(shape), state, sized(shape))
        assert updates["w"].shape == shape


@every
def test_integer_gradients_of_float_parameters(name: str) -> None:
    """They count as floats, and integers beside integer parameters are left alone."""
    tx, params = CASES[name], parameters()
    grads = jax.tree.map(lambda leaf: jnp.sign(leaf) * 3, gradients(params))
    whole = jax.tree.map(lambda leaf: leaf.astype(jnp.int32), grads)
    expected, found = (advance(tx, one, tx.init(params), params) for one in (grads, whole))
    close(expected, found)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(found[0]["dense"]))


def test_the_pace_of_accumulation_at_the_maximum() -> None:
    """The micro-steps are cyclic: one update in every two steps, whatever the count of updates."""
    tx, grad, found = gradtx.accumulate(gradtx.sgd(1.0), 2), jnp.asarray(1.0), []
    state = jax.tree.map(at_maximum, tx.init(grad))
    for _ in range(5):
        update, state = tx.update(grad, state)
        found.append(float(update))
    assert found[1:] == [0.0, -1.0, 0.0, -1.0]
    assert state.count == MAXIMUM


def test_a_guard_at_the_maximum_still_sees_spikes() -> None:
    """The two counters of its norms do not wrap in their sum either."""
    tx = gradtx.guard(gradtx.sgd(1.0), zscore=3.0, warmup_steps=1)
    _, state = tx.update(jnp.asarray(1.0), tx.init(jnp.asarray(1.0)))
    state = jax.tree.map(at_maximum, state)
    for grad, expected in ((1.0, -1.0), (1.0, -1.0), (100.0, 0.0), (1.0, -1.0)):
        update, state = tx.update(jnp.asarray(grad), state)
        assert float(update) == expected
