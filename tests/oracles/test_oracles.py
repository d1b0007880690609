"""Every method against its float64 reference, and beside Optax and torch where they have it."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.methods import METHODS
from tests.support.parity import optimizers, positions
from tests.support.torch_rows import TORCH, TORCH_MUON, torch_trace
from tests.support.trees import deviation, follow, follow_reference


@functools.cache
def reference(name: str) -> Any:
    return follow_reference(METHODS[name].oracle, extra=METHODS[name].extra)


@functools.cache
def in_float64(name: str) -> Any:
    with jax.enable_x64(True):
        return follow(METHODS[name].tx, jnp.float64, extra=METHODS[name].extra)


OTHERS = [name for name in METHODS if name not in optimizers()]
"""Those that tests/oracles/test_parity.py does not compare already."""


@pytest.mark.parametrize("name", OTHERS)
def test_float64(name: str) -> None:
    """Step by step, to the rounding of float64."""
    assert deviation(in_float64(name), reference(name)) <= METHODS[name].float64


@pytest.mark.parametrize("name", OTHERS)
def test_float32(name: str) -> None:
    """Step by step; 1e-5 leaves room for 1 - beta in float32, 1e-6 relative at beta = 0.99, and for
    sums that cancel.
    """
    method = METHODS[name]
    assert (
        deviation(follow(method.tx, jnp.float32, extra=method.extra), reference(name))
        <= method.float32
    )


@pytest.mark.parametrize("name", [name for name in OTHERS if METHODS[name].optax is not None])
def test_beside_optax(name: str) -> None:
    """Optax's numbers, to the rounding of float64."""
    with jax.enable_x64(True):
        theirs = follow(METHODS[name].optax, jnp.float64, extra=METHODS[name].extra)
    assert deviation(in_float64(name), theirs) <= max(METHODS[name].float64, METHODS[name].optax64)


@pytest.mark.parametrize("name", TORCH)
def test_beside_torch(name: str) -> None:
    """Torch's numbers, from recorded traces; it multiplies and divides in another order."""
    with jax.enable_x64(True):
        ours = positions(follow(TORCH[name], jnp.float64))
    for mine, theirs in zip(ours, torch_trace(name), strict=True):
        for w, trace in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(w, trace, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", TORCH_MUON)
def test_muon_beside_torch(name: str) -> None:
    """Torch iterates in bfloat16, which rounds a direction to within some hundredths: 20 steps are
    off by a tenth of one step at most.
    """
    with jax.enable_x64(True):
        ours = [mine[0] for mine in positions(follow(TORCH_MUON[name], jnp.float64))]
    theirs = [found[0] for found in torch_trace(name)]
    assert np.abs(np.subtract(ours, theirs)).max() <= 0.1 * np.abs(np.diff(theirs, axis=0)).max()


def test_adam_in_float32_is_closer_than_optax() -> None:
    """The bias correction keeps the digits that 1 - b2**t loses: at t = 2, 1e-5 of the update."""
    ours, theirs = (
        deviation(follow(tx, jnp.float32), reference("adam"))
        for tx in (METHODS["adam"].tx, METHODS["adam"].optax)
    )
    assert ours <= 2e-6 and theirs >= 5e-6
