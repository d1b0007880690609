"""Schedules with a state of their own, injected: Optax runs beside them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.definition.errors import HyperparamError
from gradtx.schedules.stateful import StatefulSchedule, WrappedSchedule
from gradtx.wrappers.inject_hyperparams import inject_stateful_hyperparams

PARAMS = {"w": jnp.array([1.0, -2.0])}


class HalveOnRise:
    """The rate is halved wherever the loss is larger than the last one."""

    def init(self) -> dict[str, jax.Array]:
        return {"rate": jnp.array(1.0, jnp.float32), "loss": jnp.array(5.0, jnp.float32)}

    def update(self, state: Any, *, value: Any, **extra: Any) -> dict[str, jax.Array]:
        factor = jnp.where(value > state["loss"], 0.5, 1.0)
        return {"rate": factor * state["rate"], "loss": value}

    def __call__(self, state: Any, **extra: Any) -> jax.Array:
        return state["rate"]


class Loss(HalveOnRise):
    """The rate is the loss of this step: an extra argument that `init` does not have."""

    def __call__(self, state: Any, *, value: Any = 1.0, **extra: Any) -> Any:
        return value


def scaled(lib: Any) -> Callable[..., Any]:
    def make(lr: Any, decay: Any) -> Any:
        return lib.chain(lib.add_decayed_weights(decay), lib.scale(-lr))

    return make


CASES: dict[str, Callable[[Any], Any]] = {
    "a builder": lambda lib: lib.inject_hyperparams(lib.adamw)(HalveOnRise(), weight_decay=0.1),
    "a function": lambda lib: lib.inject_hyperparams(scaled(lib))(HalveOnRise(), decay=0.1),
    "two": lambda lib: lib.inject_hyperparams(scaled(lib))(HalveOnRise(), decay=Loss()),
    "beside a schedule": lambda lib: lib.inject_hyperparams(scaled(lib))(
        Loss(), decay=lib.linear_schedule(1.0, 0.0, 3)
    ),
    "MultiSteps inside": lambda lib: lib.inject_hyperparams(
        lambda lr: lib.MultiSteps(lib.sgd(lr), 2).gradient_transformation()
    )(HalveOnRise()),
    "MultiSteps outside": lambda lib: lib.MultiSteps(
        lib.inject_hyperparams(lib.sgd)(HalveOnRise()), 2
    ).gradient_transformation(),
    "in a chain": lambda lib: lib.chain(
        lib.clip(1.0), lib.inject_hyperparams(lib.sgd)(HalveOnRise())
    ),
}


def run(tx: Any, update: Callable[..., Any]) -> list[Any]:
    state, updates = tx.init(PARAMS), []
    for value in (3.0, 4.0, 5.0, 1.0, 2.0):
        grads = jax.tree.map(lambda leaf, value=value: leaf + value, PARAMS)
        update_, state = update(grads, state, PARAMS, value=jnp.array(value, jnp.float32))
        updates.append(update_["w"])
    return updates


@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_as_optax_does(case: str, jitted: bool) -> None:
    """The value comes of the state before the step; the state sees the extra arguments."""
    mine, other = CASES[case](gradtx), CASES[case](optax)
    wrap = jax.jit if jitted else lambda function: function
    # Optax computes bias corrections in another order; entries of 3 to 30 are subtracted.
    np.testing.assert_allclose(
        run(mine, wrap(mine.update)), run(other, wrap(other.update)), rtol=2e-5, atol=1e-5
    )


def test_a_state_shows_values_and_states() -> None:
    tx = inject_stateful_hyperparams(gradtx.sgd)(WrappedSchedule(gradtx.linear_schedule(1, 0, 4)))
    state = tx.init(PARAMS)
    state, _ = jax.lax.scan(lambda state, _: (tx.update(PARAMS, state)[1], 0), state, length=3)
    assert float(state.hyperparams["learning_rate"]) == 0.5  # that of the last update
    assert int(state.slots["hyperparams_states"]["learning_rate"].count) == 3
    assert float(gradtx.hyperparams(tx, at=state)["learning_rate"]) == 0.5
    assert hash(tx) == hash(
        inject_stateful_hyperparams(gradtx.sgd)(WrappedSchedule(gradtx.linear_schedule(1, 0, 4)))
    )


def test_a_wrapped_schedule_is_one_of_optax() -> None:
    rate = optax.linear_schedule(1.0, 0.0, 4)
    mine: Any = WrappedSchedule(rate)
    other: Any = optax.schedules.WrappedSchedule(rate)
    state = mine.init()
    assert other.update(state).count == mine.update(state).count == 1
    assert other(state) == mine(state) == 1.0 and isinstance(mine, StatefulSchedule)
    top = state._replace(count=jnp.array(2**31 - 1, jnp.int32))
    assert int(mine.update(top).count) == 2**31 - 1, "it saturates"


def test_a_skipped_step_leaves_the_state_of_a_schedule() -> None:
    tx = gradtx.guard(gradtx.inject_hyperparams(gradtx.sgd)(HalveOnRise()))
    state = tx.init(PARAMS)
    bad = jax.tree.map(lambda leaf: leaf * jnp.nan, PARAMS)
    _, after = tx.update(bad, state, PARAMS, value=jnp.array(9.0, jnp.float32))
    for name in ("hyperparams", "hyperparams_states"):
        before, now = state.slots[name], after.slots[name]
        assert jax.tree.all(jax.tree.map(jnp.array_equal, before, now))


def test_a_value_that_is_not_one_number_is_refused() -> None:
    class Two(HalveOnRise):
        def __call__(self, state: Any, **extra: Any) -> jax.Array:
            return jnp.ones(2)

    with pytest.raises(
        HyperparamError,
        match=r"^the stateful schedule of 'learning_rate' returned f32\[2\], and must return one "
        r"number$",
    ):
        gradtx.inject_hyperparams(gradtx.sgd)(Two())


class Total:
    """The sum of what `update` receives; its state begins as an integer."""

    def init(self) -> Any:
        return {"total": jnp.zeros((), jnp.int32)}

    def update(self, state: Any, *, addend: Any, **extra: Any) -> Any:
        return {"total": state["total"] + addend}

    def __call__(self, state: Any, **extra: Any) -> Any:
        return state["total"]


def test_a_value_that_begins_as_an_integer_is_a_float_in_the_state() -> None:
    tx, w = gradtx.inject_hyperparams(gradtx.scale)(step_size=Total()), jnp.ones(3)
    state = tx.init(w)
    assert state.hyperparams["step_size"].dtype == jnp.float32
    for _ in range(2):
        updates, state = tx.update(w, state, addend=jnp.float32(0.25))
    assert updates.tolist() == [0.25] * 3 and state.hyperparams["step_size"] == 0.25  # pyright: ignore[reportPossiblyUnboundVariable]
