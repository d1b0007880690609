"""Every method against its float64 reference, and beside Optax and torch where they have it."""

import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.methods import METHODS
from tests.trees import deviation, follow, follow_reference, start

TRACES = np.load(pathlib.Path(__file__).parent / "traces" / "torch.npz")

TORCH = {
    "sgd": gradtx.sgd(0.1),
    "sgd/momentum": gradtx.sgd(0.1, momentum=0.9),
    "sgd/nesterov": gradtx.sgd(0.1, momentum=0.9, nesterov=True),
    "adagrad": gradtx.adagrad(0.1, initial_accumulator_value=0.0, eps=1e-10, eps_in_sqrt=False),
    "rmsprop": gradtx.rmsprop(0.01, decay=0.99, eps=1e-8, eps_in_sqrt=False),
    "rmsprop/centered": gradtx.rmsprop(0.01, decay=0.9, eps=1e-2, eps_in_sqrt=False, centered=True, momentum=0.9),
    "adam": gradtx.adam(0.01),
    "adam/l2": gradtx.chain(gradtx.add_decayed_weights(0.1), gradtx.adam(0.01)),
    "adamw": gradtx.adamw(0.01, b2=0.99, weight_decay=0.1),
}


@functools.cache
def reference(name: str) -> Any:
    return follow_reference(METHODS[name].oracle, extra=METHODS[name].extra)


@functools.cache
def in_float64(name: str) -> Any:
    with jax.enable_x64(True):
        return follow(METHODS[name].tx, jnp.float64, extra=METHODS[name].extra)


@pytest.mark.parametrize("name", METHODS)
def test_float64(name: str) -> None:
    """Step by step, to the rounding of float64."""
    assert deviation(in_float64(name), reference(name)) <= METHODS[name].float64


@pytest.mark.parametrize("name", METHODS)
def test_float32(name: str) -> None:
    """Step by step; 1e-5 leaves room for 1 - beta in float32, 1e-6 relative at beta = 0.99, and for sums that cancel."""
    method = METHODS[name]
    assert deviation(follow(method.tx, jnp.float32, extra=method.extra), reference(name)) <= method.float32


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.optax is not None])
def test_beside_optax(name: str) -> None:
    """Optax's numbers, to the rounding of float64."""
    with jax.enable_x64(True):
        theirs = follow(METHODS[name].optax, jnp.float64, extra=METHODS[name].extra)
    assert deviation(in_float64(name), theirs) <= METHODS[name].float64


@pytest.mark.parametrize("name", TORCH)
def test_beside_torch(name: str) -> None:
    """Torch's numbers, from recorded traces; it multiplies and divides in another order."""
    with jax.enable_x64(True):
        ours = follow(TORCH[name], jnp.float64)
    params = start()
    for step, updates in enumerate(ours):
        params = [w + u for w, u in zip(params, updates, strict=True)]
        for leaf, w in enumerate(params):
            np.testing.assert_allclose(w, TRACES[f"{name}/{leaf}"][step], rtol=1e-11, atol=1e-13)


def test_adam_in_float32_is_closer_than_optax() -> None:
    """The bias correction keeps the digits that 1 - b2**t loses: at t = 2, 1e-5 of the update."""
    ours, theirs = (deviation(follow(tx, jnp.float32), reference("adam")) for tx in (METHODS["adam"].tx, METHODS["adam"].optax))
    assert ours <= 2e-6 and theirs >= 5e-6
