"""A learning rate sweep: every method over a grid, all rates of one method in one program."""

from typing import Any, NamedTuple

import _network as network
import jax
import jax.numpy as jnp
import numpy as np

import gradtx

SIZES = (64, 32, 10)
BATCH = 64

ANY = 1.0
"""A placeholder: `_train_all` replaces it."""

METHODS = {
    "SGD": gradtx.sgd(ANY),
    "Momentum": gradtx.sgd(ANY, momentum=0.9),
    "Nesterov": gradtx.sgd(ANY, momentum=0.9, nesterov=True),
    "AdaGrad": gradtx.adagrad(ANY, initial_accumulator_value=0.0, eps=1e-8, eps_in_sqrt=False),
    "RMSProp": gradtx.rmsprop(ANY, decay=0.9, eps=1e-8, eps_in_sqrt=False),
    "Adam": gradtx.adam(ANY),
    "AdamW": gradtx.adamw(ANY, weight_decay=0.01),
    "Lion": gradtx.lion(ANY),
}
"""Textbook methods in textbook form, and two later methods."""


class Result(NamedTuple):
    """The results of one method, for every learning rate."""

    rates: np.ndarray
    loss: np.ndarray
    """On the validation images, after the last step."""
    accuracy: np.ndarray
    """On the test images."""
    diverged: np.ndarray
    """Whether the loss ended higher than it began, or is not finite."""

    @property
    def best(self) -> int:
        """The learning rate with the lowest loss, by position."""
        return int(np.argmin(np.where(self.diverged, np.inf, self.loss)))


def race(tx: Any, rates: np.ndarray, data: network.Data, seed: int, steps: int) -> Result:
    """Train once per learning rate, from the same start on the same batches."""
    rng = np.random.default_rng(seed)
    params = network.init(rng, SIZES)
    indices = network.batches(rng, len(data.train.x), BATCH, steps)
    start = float(network.loss(params, data.valid))
    loss, accuracy = map(
        np.asarray,
        _train_all(tx, jnp.asarray(rates, jnp.float32), params, data, jnp.asarray(indices)),
    )
    return Result(rates, loss, accuracy, ~(loss <= start))


@jax.jit
def _train_all(
    tx: Any, rates: jax.Array, params: Any, data: network.Data, indices: jax.Array
) -> Any:
    """The definition is data, so a batch of learning rates is a batch of optimizers."""
    return jax.vmap(
        lambda rate: _train(gradtx.replace(tx, learning_rate=rate), params, data, indices)
    )(rates)


def _train(
    tx: Any, params: Any, data: network.Data, indices: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def step(carry: Any, batch: jax.Array) -> Any:
        params, state = carry
        grads = jax.grad(network.loss)(params, network.take(data.train, batch))
        updates, state = tx.update(grads, state, params)
        return (gradtx.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), indices)
    return network.loss(params, data.valid), network.accuracy(params, data.test)
