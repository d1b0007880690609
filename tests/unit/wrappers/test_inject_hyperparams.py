"""`inject_hyperparams` around a function of the user's: Optax runs beside it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.definition.errors import HyperparamError

PARAMS = {"w": jnp.array([1.0, -2.0])}


def rate(count: Any) -> Any:
    return 0.1 / (1.0 + count)


def pair_of(lib: Any) -> Callable[..., Any]:
    def make(lr: Any) -> Any:
        def init(params: Any) -> Any:
            return optax.EmptyState()

        def update(updates: Any, state: Any, params: Any = None) -> Any:
            return jax.tree.map(lambda u: -lr * u, updates), state

        return lib.GradientTransformation(init, update)

    return make


def decayed_of(lib: Any) -> Callable[..., Any]:
    def make(lr: Any, decay: Any = 0.1) -> Any:
        return lib.chain(lib.add_decayed_weights(decay), lib.scale(-lr))

    return make


def masked_of(lib: Any) -> Callable[..., Any]:
    def make(lr: Any, mask: Any, nesterov: bool = True) -> Any:
        return lib.chain(lib.add_decayed_weights(0.1, mask), lib.sgd(lr, 0.9, nesterov))

    return make


def everywhere(params: Any) -> Any:
    return jax.tree.map(lambda leaf: True, params)


CASES: dict[str, Callable[[Any], Any]] = {
    "MultiSteps": lambda lib: lib.inject_hyperparams(lambda lr: lib.MultiSteps(lib.sgd(lr), 2))(
        lr=rate
    ),
    "MultiSteps of adam": lambda lib: lib.inject_hyperparams(
        lambda lr: lib.MultiSteps(lib.adam(lr), 3).gradient_transformation()
    )(rate),
    "apply_if_finite": lambda lib: lib.inject_hyperparams(
        lambda lr: lib.apply_if_finite(lib.sgd(lr), 9)
    )(rate),
    "a plain pair": lambda lib: lib.inject_hyperparams(pair_of(lib))(lr=rate),
    "a plain pair and a number": lambda lib: lib.inject_hyperparams(pair_of(lib))(lr=0.3),
    "arithmetic": lambda lib: lib.inject_hyperparams(decayed_of(lib))(rate),
    "a root": lambda lib: lib.inject_hyperparams(lambda lr: lib.sgd(0.1 * jnp.sqrt(lr), 0.9))(rate),
    "static arguments": lambda lib: lib.inject_hyperparams(
        masked_of(lib), static_args=("mask", "nesterov")
    )(rate, everywhere),
    "inside of a chain": lambda lib: lib.chain(
        lib.clip(1.0),
        lib.inject_hyperparams(lambda lr: lib.MultiSteps(lib.sgd(lr), 2).gradient_transformation())(
            lr=rate
        ),
    ),
}


def run(tx: Any, steps: int, jitted: bool, spoil: bool) -> tuple[list[Any], Any]:
    """The updates and the last state; with `spoil` the gradient of one step is nan."""
    update, state, all_updates = jax.jit(tx.update) if jitted else tx.update, tx.init(PARAMS), []
    for step in range(steps):
        bad = jnp.nan if spoil and step == 2 else 1.0
        grads = jax.tree.map(lambda leaf, step=step, bad=bad: (leaf + step) * bad, PARAMS)
        updates, state = update(grads, state, PARAMS)
        all_updates.append(updates)
    return all_updates, state


@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_as_optax_does(case: str, jitted: bool) -> None:
    """A schedule counts the calls of `update`, skipped micro-steps among them."""
    spoil = case == "apply_if_finite"
    ours, state = run(CASES[case](gradtx), 8, jitted, spoil)
    theirs, their_state = run(CASES[case](optax), 8, jitted, spoil)
    for mine, other in zip(ours, theirs, strict=True):
        # Optax computes bias corrections in another order.
        np.testing.assert_allclose(mine["w"], other["w"], rtol=2e-5)
    if case != "inside of a chain":
        assert {*state.hyperparams} == {*their_state.hyperparams}
        for name, value in state.hyperparams.items():
            assert float(value) == pytest.approx(float(their_state.hyperparams[name]))


def test_numbers_in_the_state_act() -> None:
    tx = gradtx.inject_hyperparams(pair_of(gradtx))(lr=0.5)
    state = tx.init(PARAMS)
    state.hyperparams["lr"] = jnp.array(2.0)
    updates, state = jax.jit(tx.update)(PARAMS, state)
    assert updates["w"].tolist() == [-2.0, 4.0]
    assert gradtx.hyperparams(tx, at=state) == {"lr": 2.0}
    assert gradtx.hyperparams(gradtx.replace(tx, lr=0.25)) == {"lr": 0.25}


def test_the_path_of_a_state_is_that_of_the_function_s_result() -> None:
    tx = gradtx.inject_hyperparams(lambda lr: gradtx.sgd(lr, momentum=0.9))(0.1)
    assert {*gradtx.flatten_state(tx.init(PARAMS))} == {
        "count",
        "slots/hyperparams/lr",
        *gradtx.flatten_state(gradtx.sgd(0.1, momentum=0.9).init(PARAMS)),
    }


def test_an_unknown_static_argument_is_told() -> None:
    with pytest.raises(
        HyperparamError,
        match=r"^inject_hyperparams: static_args has 'masc', which is not an argument of make; did "
        r"you mean 'mask'\?$",
    ):
        gradtx.inject_hyperparams(masked_of(gradtx), static_args="masc")(0.1, everywhere)
    assert gradtx.inject_hyperparams(gradtx.adamw, static_args=("mask", "b1"))(0.1, mask="w")
    with pytest.raises(HyperparamError, match=r"^inject_hyperparams: hyperparam_dtype = 'int8' is"):
        gradtx.inject_hyperparams(gradtx.sgd, hyperparam_dtype="int8")


def test_a_function_without_numbers_is_its_result() -> None:
    assert gradtx.inject_hyperparams(lambda: gradtx.sgd(0.1))() == gradtx.sgd(0.1)


def test_multi_steps_in_a_chain_is_its_definition() -> None:
    """So that readers of a state see through it."""
    steps = gradtx.MultiSteps(gradtx.sgd(0.1), 2)
    assert gradtx.chain(steps) == gradtx.chain(
        gradtx.accumulate(gradtx.sgd(0.1), 2, accumulator_dtype=jnp.float32)
    )


def test_a_key_of_the_user_s_own_is_carried_along() -> None:
    """Beside one wrapper, and beside several that share the name in a state."""
    inner = gradtx.tunable(gradtx.adam(0.1), "b1")
    for tx in (
        gradtx.inject_hyperparams(gradtx.adam)(0.1),
        gradtx.tunable(gradtx.guard(inner, max_norm=None), "learning_rate"),
    ):
        state = tx.init(PARAMS)
        state.hyperparams.update(note=jnp.array(3), learning_rate=jnp.array(0.5))
        for update in (tx.update, jax.jit(tx.update)):
            updates, state = update(PARAMS, state)
            assert updates["w"].tolist() == pytest.approx([-0.5, 0.5])
            assert int(state.hyperparams["note"]) == 3
        assert float(gradtx.hyperparams(tx, at=state)["learning_rate"]) == 0.5
