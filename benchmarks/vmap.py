"""64 learning rates on a small network, 200 steps each: one program, against 64 of Optax's.

The program of gradtx trains a batch of definitions. The network (64, 32, 10) learns scikit-learn's
digits with Adam, 256 images in every step. Peers: a new jitted training for every learning rate, as
is common (it compiles 64 times), and one jitted training with the learning rate as an argument (it
compiles once)."""

import functools
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradtx
from benchmarks.harness import Row, arguments, compared, finish, interleave, seconds
from benchmarks.trace import forget

COUNT, STEPS, HIDDEN = 64, 200, 32
LEARNING_RATES = np.logspace(-4, -1, COUNT, dtype=np.float32)


@functools.cache
def digits(images: int = 256) -> tuple[jax.Array, jax.Array]:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return jnp.asarray(pixels[:images] / 16, jnp.float32), jnp.asarray(labels[:images])


@functools.cache
def initial_params() -> Any:
    first, second = jax.random.split(jax.random.key(0))
    return {
        "hidden": {"kernel": jax.random.normal(first, (64, HIDDEN)) / 8, "bias": jnp.zeros(HIDDEN)},
        "output": {
            "kernel": jax.random.normal(second, (HIDDEN, 10)) / HIDDEN**0.5,
            "bias": jnp.zeros(10),
        },
    }


def loss(params: Any, pixels: jax.Array, labels: jax.Array) -> jax.Array:
    hidden = jax.nn.relu(pixels @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    logits = hidden @ params["output"]["kernel"] + params["output"]["bias"]
    return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels])


def train(
    tx: Any, apply_updates: Any, params: Any, pixels: jax.Array, labels: jax.Array
) -> jax.Array:
    """The last loss of a training."""

    def step(carry: Any, _: None) -> Any:
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params, pixels, labels)
        updates, state = tx.update(grads, state, params)
        return (apply_updates(params, updates), state), value

    return jax.lax.scan(step, (params, tx.init(params)), None, STEPS)[1][-1]


def train_gradtx(
    tx: gradtx.GradientTransformation, params: Any, pixels: jax.Array, labels: jax.Array
) -> jax.Array:
    return train(tx, gradtx.apply_updates, params, pixels, labels)


def train_optax(learning_rate: Any, params: Any, pixels: jax.Array, labels: jax.Array) -> jax.Array:
    return train(optax.adam(learning_rate), optax.apply_updates, params, pixels, labels)


batched = jax.jit(jax.vmap(train_gradtx, in_axes=(0, None, None, None)))
shared = jax.jit(train_optax)


def run_batched() -> jax.Array:
    """A batch of definitions, trained in one program."""
    return batched(jax.vmap(gradtx.adam)(LEARNING_RATES), initial_params(), *digits())


def run_shared() -> list[jax.Array]:
    """One jitted training, called for every learning rate."""
    return [shared(learning_rate, initial_params(), *digits()) for learning_rate in LEARNING_RATES]


def run_separate() -> list[jax.Array]:
    """A jitted training for every learning rate."""
    return [
        jax.jit(functools.partial(train_optax, float(one)))(initial_params(), *digits())
        for one in LEARNING_RATES
    ]


def cold(run: Any) -> float:
    forget()
    return seconds(run)


def warm(run: Any) -> float:
    return seconds(run)


def check_agreement() -> None:
    """Raise unless both sides train to the same losses; where steps are large, rounding differences
    grow.
    """
    mine, theirs = np.asarray(run_batched()), np.asarray(run_shared())
    calm = LEARNING_RATES < 1e-3
    np.testing.assert_allclose(mine[calm], theirs[calm], rtol=1e-2)


def against(peer: Any, timer: Any, runs: int, warmup: int) -> dict[str, list[float]]:
    sides = {
        "gradtx": functools.partial(timer, run_batched),
        "optax": functools.partial(timer, peer),
    }
    return interleave(sides, runs, warmup)


def rows(runs: int) -> list[Row]:
    few = min(runs, 5)
    return [
        compared(
            "64 in one against 64 compiled: with compiling",
            against(run_separate, cold, min(runs, 3), 0),
        ),
        compared(
            "64 in one against one compiled: with compiling", against(run_shared, cold, few, 1)
        ),
        compared("64 in one against one compiled: without", against(run_shared, warm, runs, 2)),
    ]


def main() -> int:
    options = arguments(__doc__)
    check_agreement()
    return finish("vmap", rows(options.runs), options)


if __name__ == "__main__":
    sys.exit(main())
