"""Explicit meshes, the default of `jax.make_mesh`: every transformation and every storage runs on
arrays whose types say how they are cut, and gives the numbers of one device.
"""

import functools
from typing import Any

import jax
import numpy as np
import pytest

import gradtx
from tests.methods import METHODS
from tests.support.meshes import CODECS, PLACES, on_mesh, plain, problem, types
from tests.support.pairs import MAKERS

NUMBERED = list(enumerate(MAKERS))


def storages(number: int, name: str) -> list[gradtx.GradientTransformation]:
    """A transformation as it is, and with its slots in two codecs, in turn."""
    tx = METHODS[name].tx
    codecs = [CODECS[(2 * number + one) % len(CODECS)] for one in range(2)]
    return [tx, *(gradtx.stored(tx, codec, min_size=0, block=2) for codec in codecs)]  # pyright: ignore[reportArgumentType]


def next_state(
    tx: gradtx.GradientTransformation, grads: Any, state: Any, params: Any, extra: Any
) -> tuple[Any, Any]:
    """The types of updates and state after a step."""
    step = functools.partial(tx.update, **extra)
    return jax.eval_shape(step, grads, state, params)


@pytest.mark.parametrize(("number", "name"), NUMBERED)
def test_types_stay_on_explicit_meshes(number: int, name: str) -> None:
    """A step is legal, updates are cut as gradients, and a second step changes no type."""
    for tx, (shape, is_set) in zip(storages(number, name), PLACES[number % 2 :], strict=False):
        with on_mesh(shape, is_set) as put:
            params, grads, extra = problem(tx, put)
            start = jax.eval_shape(tx.init, params)
            updates, state = next_state(tx, grads, start, params, extra)
            _, later = next_state(tx, grads, state, params, extra)
        assert types(state) == types(later)
        assert types(updates) == types(grads)


@pytest.mark.parametrize(("number", "name"), NUMBERED)
def test_numbers_on_explicit_meshes_are_those_of_one_device(number: int, name: str) -> None:
    tx = METHODS[name].tx
    if "soap" in name:
        # The first gradient is diagonal in its own eigenbasis: ε hides the rounding beside it.
        tx = gradtx.replace(tx, eps=0.1)
    expected = two_steps(tx, plain)
    with on_mesh(*PLACES[number % len(PLACES)]) as put:
        ours = two_steps(tx, put)
    assert_close(ours, expected)


def two_steps(tx: gradtx.GradientTransformation, put: Any) -> Any:
    """Updates and state after two steps under `jit`, as NumPy arrays."""
    params, grads, extra = problem(tx, put)
    step = jax.jit(functools.partial(tx.update, **extra))
    _, state = step(grads, tx.init(params), params)
    return jax.tree.map(np.asarray, step(grads, state, params))


def assert_close(ours: Any, expected: Any) -> None:
    """Equality up to sums in another order, relative to an array's largest entry."""
    # Newton-Schulz and roots of factors multiply the rounding of a sum, 1e-7, by a thousand.
    for path, array in gradtx.flatten_state(expected).items():
        pair = (gradtx.flatten_state(ours)[path], array)
        left, right = (np.asarray(one, complex) for one in pair)
        if "basis" in path:  # an eigenvector has no sign of its own
            left, right = np.abs(left), np.abs(right)
        # The gradient at the minimum of a line is a difference of numbers near 1.
        size = np.max(np.abs(right), initial=1.0 if "linesearch/grad" in path else 1e-6)
        np.testing.assert_allclose(left / size, right / size, rtol=0, atol=5e-4, err_msg=path)
