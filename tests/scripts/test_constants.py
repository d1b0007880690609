"""Scripts that hold an optimizer where a framework wants a constant."""

import functools
import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from flax.training.train_state import TrainState

import gradtx
from tests.scripts.twice import PARAMS, assert_equal_numbers, train


def static_argument(optax: Any) -> Any:
    @functools.partial(jax.jit, static_argnums=0)
    def step(tx: Any, params: Any) -> Any:
        return train(tx, steps=2, params=params)

    return step(optax.sgd(jnp.array(0.1)), PARAMS), step(optax.sgd(jnp.array(0.2)), PARAMS)


def key_of_a_dict(optax: Any) -> Any:
    rates = {optax.sgd(jnp.array(rate)): rate for rate in (0.1, 0.2)}
    return {rate: train(tx, steps=1) for tx, rate in rates.items()}


def optimizer_of_nnx(optax: Any) -> Any:
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    rate = jnp.array(0.1)
    tx = optax.chain(optax.clip(jnp.array(1.0)), optax.adam(rate))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model: Any, optimizer: Any) -> None:
        optimizer.update(model, nnx.grad(lambda model: (model(jnp.ones((1, 3))) ** 2).sum())(model))

    for _ in range(3):
        step(model, optimizer)
    return model.kernel[...]


def injected_optimizer_of_nnx(optax: Any) -> Any:
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    make = optax.inject_hyperparams(optax.adam, hyperparam_dtype=jnp.float32)
    optimizer = nnx.Optimizer(model, make(learning_rate=jnp.array(0.1)), wrt=nnx.Param)
    optimizer.update(model, nnx.grad(lambda model: (model(jnp.ones((1, 3))) ** 2).sum())(model))
    return model.kernel[...]


def train_states(optax: Any) -> Any:
    """`TrainState` keeps `tx` as static data: two of one rate share a program."""
    traces = []

    @jax.jit
    def step(state: Any) -> Any:
        traces.append(1)
        return state.apply_gradients(grads=state.params)

    tx = optax.sgd(jnp.array(0.1))
    states = [TrainState.create(apply_fn=None, params=PARAMS, tx=tx) for _ in range(2)]
    params = [step(step(state)).params for state in states]
    assert len(traces) == 1
    return params


def traced_rates(optax: Any) -> Any:
    """The rate of a state that is created inside of vmap, jit and scan."""

    def run(rate: Any) -> Any:
        state = TrainState.create(apply_fn=None, params=PARAMS, tx=optax.adam(rate))
        step = lambda state, _: (state.apply_gradients(grads=state.params), None)  # noqa: E731
        return jax.lax.scan(step, state, length=3)[0].params

    return jax.jit(jax.vmap(run))(jnp.array([0.1, 0.2]))


SCRIPTS: list[Callable[[Any], Any]] = [
    static_argument,
    key_of_a_dict,
    optimizer_of_nnx,
    injected_optimizer_of_nnx,
    train_states,
    traced_rates,
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_script(script: Callable[[Any], Any]) -> None:
    assert_equal_numbers(script)


def test_equal_arrays_are_one_static_argument() -> None:
    """Optax's pairs of closures compile again for every call of the builder."""
    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def step(tx: Any, grads: Any) -> Any:
        traces.append(1)
        return tx.update(grads, tx.init(grads))[0]

    for rate in (0.1, 0.1, 0.2):
        step(gradtx.sgd(jnp.array(rate)), PARAMS)
    assert len(traces) == 2


def test_a_definition_with_arrays_is_pickled() -> None:
    tx = gradtx.adam(jnp.array(0.1), b1=jnp.array(0.8))
    assert pickle.loads(pickle.dumps(tx)) == tx == gradtx.from_config(gradtx.to_config(tx))
