"""The formulas of the textbook, to the letter, in float64: each is reached by arguments alone.

The formulas are in docs/textbook.md. tau = 1, 2, 3, ...; w, g, r, s are float64 scalars or vectors.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

STEPS = 30
ETA, MU, BETA, DELTA = 0.1, 0.8, 0.9, 1e-6
START = np.array([1.5, -2.0, 0.3])


def curve(w: np.ndarray) -> np.ndarray:
    """dE/dw of E = sum(a w^2 / 2) + sum(cos w), which is not quadratic."""
    return np.array([1.0, 10.0, 0.1]) * w - np.sin(w)


def by_hand(step: Callable[[np.ndarray, dict[str, Any], int], np.ndarray]) -> np.ndarray:
    w, memory, path = START, {}, []
    for tau in range(1, STEPS + 1):
        w = step(w, memory, tau)
        path.append(w)
    return np.array(path)


def by_gradtx(
    tx: gradtx.GradientTransformation, at: Callable[[Any, Any], Any] | None = None
) -> np.ndarray:
    """The path of w; `at` reads out other parameters than those that are stored."""
    with jax.enable_x64(True):
        w, path = jnp.asarray(START), []
        state = tx.init(w)
        for _ in range(STEPS):
            updates, state = tx.update(jnp.asarray(curve(np.asarray(w))), state, w)
            w = gradtx.apply_updates(w, updates)
            path.append(np.asarray(w if at is None else at(w, state)))
    return np.array(path)


def sgd(w: np.ndarray, memory: dict[str, Any], tau: int) -> np.ndarray:
    return w - ETA * curve(w)


def momentum(w: np.ndarray, memory: dict[str, Any], tau: int) -> np.ndarray:
    memory["dw"] = MU * memory.get("dw", 0.0) - ETA * curve(w)
    return w + memory["dw"]


def momentum_scheduled(w: np.ndarray, memory: dict[str, Any], tau: int) -> np.ndarray:
    memory["dw"] = MU * memory.get("dw", 0.0) - linear(tau) * curve(w)
    return w + memory["dw"]


def nesterov(w: np.ndarray, memory: dict[str, Any], tau: int) -> np.ndarray:
    dw = memory.get("dw", 0.0)
    memory["dw"] = MU * dw - ETA * curve(w + MU * dw)
    return w + memory["dw"]


def adagrad(w: np.ndarray, memory: dict[str, Any], tau: int) -> np.ndarray:
    g = curve(w)
    memory["r"] = memory.get("r", 0.0) + g**2
    return w - ETA * g / (np.sqrt(memory["r"]) + DELTA)


def rmsprop(w: np.ndarray, memory: dict[str, Any], tau: int) -> np.ndarray:
    g = curve(w)
    memory["r"] = BETA * memory.get("r", 0.0) + (1 - BETA) * g**2
    return w - ETA * g / (np.sqrt(memory["r"]) + DELTA)


def adam(w: np.ndarray, memory: dict[str, Any], tau: int) -> np.ndarray:
    g = curve(w)
    memory["s"] = 0.9 * memory.get("s", 0.0) + 0.1 * g
    memory["r"] = 0.99 * memory.get("r", 0.0) + 0.01 * g**2
    return w - ETA * (memory["s"] / (1 - 0.9**tau)) / (
        np.sqrt(memory["r"] / (1 - 0.99**tau)) + DELTA
    )


def linear(tau: float) -> float:
    return (1 - tau / 20) * 0.1 + (tau / 20) * 0.01 if tau < 20 else 0.01


def power_law(tau: float) -> float:
    return 0.1 * (1 + tau / 5) ** -0.7


def exponential(tau: float) -> float:
    return 0.1 * 0.5 ** (tau / 8)


SCHEDULES = {
    "linear": (gradtx.linear_schedule(0.1, 0.01, 20), linear),
    "power law": (gradtx.power_law_schedule(0.1, 5, -0.7), power_law),
    "exponential": (gradtx.exponential_decay(0.1, 8, 0.5), exponential),
}

from_one = gradtx.shift_schedule(SCHEDULES["linear"][0], 1)

METHODS = {
    "sgd": (gradtx.sgd(ETA), sgd),
    "momentum": (gradtx.sgd(ETA, momentum=MU), momentum),
    "momentum under a schedule": (
        gradtx.chain(gradtx.scale_by_learning_rate(from_one), gradtx.trace(MU)),
        momentum_scheduled,
    ),
    "adagrad": (
        gradtx.adagrad(ETA, initial_accumulator_value=0.0, eps=DELTA, eps_in_sqrt=False),
        adagrad,
    ),
    "rmsprop": (gradtx.rmsprop(ETA, decay=BETA, eps=DELTA, eps_in_sqrt=False), rmsprop),
    "adam": (gradtx.adam(ETA, b1=0.9, b2=0.99, eps=DELTA), adam),
}


@pytest.mark.parametrize("name", METHODS)
def test_method(name: str) -> None:
    tx, step = METHODS[name]
    np.testing.assert_allclose(by_gradtx(tx), by_hand(step), rtol=1e-12)


def test_nesterov() -> None:
    """gradtx stores the point w + mu dw where the gradient is taken; w is read out by subtracting
    mu dw.
    """
    tx = gradtx.chain(gradtx.scale_by_learning_rate(ETA), gradtx.trace(MU, nesterov=True))
    np.testing.assert_allclose(
        by_gradtx(tx, lambda y, state: y - MU * state.slots["trace"].trace),
        by_hand(nesterov),
        rtol=1e-12,
    )
    same = gradtx.sgd(ETA, momentum=MU, nesterov=True)
    np.testing.assert_allclose(by_gradtx(same), by_gradtx(tx), rtol=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule(name: str) -> None:
    schedule, formula = SCHEDULES[name]
    with jax.enable_x64(True):
        for tau in range(60):
            np.testing.assert_allclose(schedule(tau), formula(tau), rtol=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_sgd_under_a_schedule_that_starts_at_one(name: str) -> None:
    schedule, formula = SCHEDULES[name]
    expected = by_hand(lambda w, memory, tau: w - formula(tau) * curve(w))
    np.testing.assert_allclose(
        by_gradtx(gradtx.sgd(gradtx.shift_schedule(schedule, 1))), expected, rtol=1e-12
    )
