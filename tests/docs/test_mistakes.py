"""Mistakes that users of JAX, Optax and PyTorch make: each is answered with cause and cure."""

import pathlib
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.docs.mistakes_definitions import DEFINITIONS
from tests.docs.mistakes_states import STATES
from tests.docs.mistakes_steps import STEPS
from tests.support.mistakes import ADAM, TUNABLE, X, loss, params

CASES = {**DEFINITIONS, **STATES, **STEPS}
NOTED = (jax.errors.ConcretizationTypeError,)
"""Errors of JAX that gradtx explains in a note."""


def test_the_table_has_sixty_mistakes() -> None:
    assert len(CASES) == len(DEFINITIONS) + len(STATES) + len(STEPS) >= 60


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_answered(
    case: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call, kind, text = CASES[case]
    with pytest.raises(kind) as caught:
        call()
    error: Any = caught.value
    assert type(error) is kind
    if isinstance(error, NOTED):
        assert text in error.__notes__
    else:
        assert (getattr(error, "strerror", None) or str(error)) == text
    # One sentence of gradtx's own, and a cure behind the cause.
    assert "\n" not in text and len(text) < 420
    assert any(mark in text for mark in (": ", "; ", ", and must "))


def test_numpy_float64_is_cast_without_a_warning() -> None:
    """As `jnp.asarray` casts it: a user whose data come from NumPy has done nothing wrong."""
    weights = {"w": np.ones((3, 2)), "b": np.zeros(2)}
    step = gradtx.make_step(loss, ADAM)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = ADAM.init(weights)
        updates, _ = ADAM.update(weights, state, weights)
        new, state, _ = step(gradtx.apply_updates(weights, updates), state, np.ones((4, 3)))
        step(new, state, np.ones((4, 3)))
    assert {leaf.dtype for leaf in jax.tree.leaves(state.slots)} == {np.dtype("float32")}
    assert step._cache_size() == 1


@pytest.mark.parametrize("name", ["adagrad", "cocob", "soap", "normuon", "sm3", "came", "lbfgs"])
def test_numpy_float64_makes_no_warning_at_init(name: str) -> None:
    """Each makes its slots in another way."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        getattr(gradtx, name)(1e-2).init({"w": np.ones((3, 2))})


def test_one_array_in_two_places_is_copied() -> None:
    """JAX refuses to donate it; nobody sees from the outside that the step wanted to."""
    w = jnp.ones((3, 2))
    shared = {"w": w, "v": w, "b": jnp.zeros(2)}
    new, *_ = gradtx.make_step(loss, ADAM)(shared, ADAM.init(shared), X)
    assert new["w"][0, 0] != 1 and new["v"][0, 0] == 1


def test_the_parameters_may_be_a_batch_too() -> None:
    """A target network begins as the network itself."""
    online = params()
    target = online

    def distance(p: Any, other: Any) -> jax.Array:
        return loss(p, X) + loss(other, X)

    step = gradtx.make_step(distance, ADAM)
    new, state, first = step(online, ADAM.init(online), target)
    _, _, second = step(new, state, target)
    assert 0 < second < first and loss(target, X) == loss(params(), X)


@pytest.mark.parametrize(
    "value", [0.5, 1, np.float64(0.5), jnp.array(0.5), jnp.array(1), jnp.bfloat16(0.5)], ids=repr
)
def test_a_number_in_hyperparams_compiles_nothing(value: Any) -> None:
    update = jax.jit(TUNABLE.update)
    state = TUNABLE.init(params())
    _, state = update(params(), state, params())
    assert type(state.slots["hyperparams"]) is dict
    for _ in range(2):
        state.hyperparams["learning_rate"] = value
        held = state.hyperparams["learning_rate"]
        assert held.dtype == jnp.float32 and not held.weak_type and held == value
        updates, state = update(params(), state, params())
        assert abs(updates["w"][0, 0] + float(value)) < 1e-5  # eps, and rounding
    assert update._cache_size() == 1  # pyright: ignore
    state = state._replace(hyperparams={"learning_rate": value})
    update(params(), state, params())
    assert update._cache_size() == 1  # pyright: ignore


def test_hyperparams_are_a_dict_to_everybody_else() -> None:
    state = TUNABLE.init(params())
    held = state.hyperparams
    held |= {"learning_rate": 0.5}
    held.update(mine=3.0)  # an entry of one's own is carried along
    assert state.hyperparams == {"learning_rate": 0.5, "mine": 3.0} and isinstance(held, dict)
    assert type(jax.tree.map(lambda one: one, held)) is dict
    assert TUNABLE.update(params(), state, params())[1].hyperparams["mine"] == 3.0
    assert held.pop("mine") == 3.0 and held.setdefault("learning_rate", 1.0) == 0.5
    assert list(state.slots["hyperparams"]) == ["learning_rate"]


def test_hyperparams_keep_their_devices() -> None:
    device = jax.devices()[-1]
    state = jax.device_put(TUNABLE.init(params()), device)
    state.hyperparams["learning_rate"] = 0.5
    held = state.hyperparams["learning_rate"]
    assert held.committed and held.devices() == {device}


def test_a_clip_behind_adam_is_not_a_mistake() -> None:
    tx = gradtx.chain(ADAM, gradtx.clip(1e-4))
    updates, _ = tx.update(params(), tx.init(params()), params())
    assert updates["w"][0, 0] == jnp.float32(-1e-4)
