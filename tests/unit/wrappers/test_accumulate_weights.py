"""accumulate: micro-batches that weigh more or less; weights and numbers of them that are none."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import HyperparamError

ONE, INF = jnp.array(1.0), jnp.array(jnp.inf)


# Weights


def weighed(tx: Any, grads: Any, weights: Any, jit: bool = False) -> tuple[list[float], Any]:
    update = jax.jit(tx.update) if jit else tx.update
    state, seen = tx.init(ONE), []
    for grad, weight in zip(grads, weights, strict=True):
        updates, state = update(jnp.asarray(grad), state, weight=weight)
        seen.append(float(updates))
    return seen, state


@pytest.mark.parametrize("jit", [False, True])
def test_tokens_weigh(jit: bool) -> None:
    tx = gradtx.accumulate(gradtx.scale(1.0), 3)
    seen, state = weighed(tx, [1.0, 4.0, 9.0, 1.0, 1.0, 7.0], [2, 1, 1, 0, 1, jnp.asarray(2)], jit)
    np.testing.assert_allclose(seen, [0.0, 0.0, 15 / 4, 0.0, 0.0, 5.0], rtol=1e-6)
    assert int(state.slots["accumulate"].weight) == 3


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_weighs_nothing_adds_nothing(place: int, jit: bool) -> None:
    """The mean over no tokens is nan, at the first micro-step too, where the last sum is still
    there.
    """
    tx, grads, weights = gradtx.accumulate(gradtx.scale(1.0), 3), [5.0, 7.0], [1, 1]
    grads.insert(place, jnp.nan)
    weights.insert(place, 0)
    assert weighed(tx, [2.0] * 3 + grads, [1] * 3 + weights, jit)[0] == [
        0.0,
        0.0,
        2.0,
        0.0,
        0.0,
        6.0,
    ]


def test_weights_that_sum_to_zero() -> None:
    tx = gradtx.accumulate(gradtx.trace(0.5), 2)
    with pytest.raises(
        HyperparamError,
        match=r"^accumulate: the weights of the last 2 micro-batches sum to 0, so they have no "
        r"mean: give each micro-batch a weight > 0, or omit empty micro-batches$",
    ):
        weighed(tx, [1.0, 2.0], [0, 0])
    seen, state = weighed(tx, [2.0, 2.0, 1.0, 2.0, 3.0, 5.0], [1, 1, 0, 0, 1, 1], jit=True)
    assert seen == [0.0, 2.0, 0.0, 0.0, 0.0, 5.0], (
        "no update, the trace as it was, and the next one begins"
    )
    assert int(state.count) == 2


@pytest.mark.parametrize(
    ("weight", "text"),
    [
        (
            -1.0,
            r"^accumulate: weight = -1\.0 is outside its range \[0, inf\): give the size "
            r"of the micro-batch, its number of tokens for example$",
        ),
        (np.nan, r"^accumulate: weight = nan is outside its range"),
        (np.inf, r"^accumulate: weight = inf is outside its range"),
        (
            np.ones(3),
            r"^accumulate: weight= has shape \(3,\): give one number for the "
            r"micro-batch, its number of tokens for example$",
        ),
    ],
)
def test_weights_out_of_range(weight: Any, text: str) -> None:
    tx = gradtx.accumulate(gradtx.sgd(0.1), 2)
    with pytest.raises(HyperparamError, match=text):
        tx.update(ONE, tx.init(ONE), weight=weight)


@pytest.mark.parametrize(
    ("every", "text"),
    [
        (0, r"accumulate: every = 0 is outside its range \[1, inf\]"),
        (-4, r"accumulate: every = -4 is outside its range \[1, inf\]"),
        (0.5, r"accumulate: every = 0\.5 is outside its range \[1, inf\]"),
        ("2", r"accumulate: every = '2' is neither a number, an array nor a schedule"),
    ],
)
def test_numbers_of_micro_steps_out_of_range(every: Any, text: str) -> None:
    with pytest.raises(HyperparamError, match=text):
        gradtx.accumulate(gradtx.sgd(0.1), every)
    with pytest.raises(HyperparamError, match="accumulate"):
        gradtx.MultiSteps(gradtx.sgd(0.1), every)


def test_half_a_micro_step_is_refused_and_plain_numbers_are_parameters() -> None:
    with pytest.raises(
        HyperparamError,
        match=r"accumulate: every = 2.5 is not a number of micro-steps; give a whole number$",
    ):
        gradtx.accumulate(gradtx.sgd(1.0), 2.5)
    tx = gradtx.accumulate(gradtx.sgd(1.0), 1)
    assert float(tx.update(2.0, tx.init(1.0), 1.0)[0]) == -2.0
