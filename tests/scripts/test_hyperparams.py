"""Scripts that inject the arguments of a function of their own.

The numbers of schedules, plain pairs and `MultiSteps` are in
`tests/unit/wrappers/test_inject_hyperparams.py`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from tests.scripts.twice import PARAMS, assert_equal_numbers, train


def writes_at_the_root(optax: Any) -> Any:
    tx = optax.inject_hyperparams(optax.adamw)(learning_rate=0.1, weight_decay=0.01)
    state = tx.init(PARAMS)
    state.hyperparams["learning_rate"] = jnp.array(0.5)
    return train(tx, state=state)


def writes_in_a_loop_under_jit(optax: Any) -> Any:
    """The rate of every step comes from the loop."""
    tx = optax.inject_hyperparams(optax.sgd)(learning_rate=0.0, momentum=0.9)

    @jax.jit
    def step(params: Any, state: Any, rate: Any) -> Any:
        state.hyperparams["learning_rate"] = rate
        updates, state = tx.update(params, state)
        return jax.tree.map(jnp.add, params, updates), state

    params, state = PARAMS, tx.init(PARAMS)
    for rate in jnp.linspace(0.1, 0.0, 4):
        params, state = step(params, state, rate)
    return params, state.hyperparams["learning_rate"]


def gradient_through_a_rate(optax: Any) -> Any:
    """A hypergradient: of the loss after two steps, by the rate in the state."""
    tx = optax.inject_hyperparams(optax.sgd)(learning_rate=0.1)

    def loss(rate: Any) -> Any:
        state = tx.init(PARAMS)
        state.hyperparams["learning_rate"] = rate
        params = train(tx, steps=2, state=state)
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))

    return jax.grad(loss)(jnp.array(0.1))


def static_decorator(optax: Any) -> Any:
    """The number of members and their dtype are chosen at the call."""

    @optax.inject_hyperparams
    def plain(learning_rate: Any, decay: Any) -> Any:
        return optax.chain(
            optax.add_decayed_weights(decay * learning_rate), optax.scale(-jnp.sqrt(learning_rate))
        )

    def several(learning_rate: Any, num_betas: int, mu_dtype: Any) -> Any:
        traces = [optax.trace(0.1 * n, accumulator_dtype=mu_dtype) for n in range(num_betas)]
        return optax.chain(*traces, optax.scale(-learning_rate))

    make = optax.inject_hyperparams(several, static_args=("num_betas", "mu_dtype"))
    return train(plain(0.1, decay=0.2)), train(make(0.1, num_betas=3, mu_dtype=jnp.float32))


def static_names_of_a_builder(optax: Any) -> Any:
    def masks(params: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.ndim > 1, params)

    adamw = optax.inject_hyperparams(optax.adamw, static_args=("mask", "mu_dtype", "nesterov"))
    sgd = optax.inject_hyperparams(optax.sgd, static_args="nesterov")
    return (
        train(adamw(0.1, mask=masks, mu_dtype=jnp.bfloat16, nesterov=True)),
        train(sgd(0.1, 0.9, nesterov=True)),
    )


def warmup_of_an_argument(optax: Any) -> Any:
    def make(peak: Any, warmup_steps: int) -> Any:
        return optax.sgd(optax.linear_schedule(0.0, peak, warmup_steps))

    return train(optax.inject_hyperparams(make, static_args=["warmup_steps"])(0.5, warmup_steps=3))


def schedule_of_calls(optax: Any) -> Any:
    """The rate follows the calls, also those that do not update."""
    rate = optax.piecewise_constant_schedule(1.0, {1: 0.5, 2: 0.5, 3: 0.5})
    tx = optax.inject_hyperparams(lambda lr: optax.MultiSteps(optax.sgd(lr), 2))(lr=rate)
    return train(tx, steps=6)


def schedule_of_a_number_in_a_guard(optax: Any) -> Any:
    tx = optax.apply_if_finite(
        optax.inject_hyperparams(optax.adam)(optax.linear_schedule(1.0, 0.1, 4)), 3
    )
    return train(tx)


def reads_the_rate_to_log_it(optax: Any) -> Any:
    tx = optax.inject_hyperparams(optax.adam)(optax.cosine_decay_schedule(0.1, 10))
    state, rates = tx.init(PARAMS), []
    for _ in range(3):
        _, state = tx.update(PARAMS, state, PARAMS)
        rates.append(state.hyperparams["learning_rate"])
    return rates


SCRIPTS: list[Callable[[Any], Any]] = [
    writes_at_the_root,
    writes_in_a_loop_under_jit,
    gradient_through_a_rate,
    static_decorator,
    static_names_of_a_builder,
    warmup_of_an_argument,
    schedule_of_calls,
    schedule_of_a_number_in_a_guard,
    reads_the_rate_to_log_it,
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_script(script: Callable[[Any], Any]) -> None:
    assert_equal_numbers(script)
