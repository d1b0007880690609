"""schedule_free_plus: losses that are no numbers, its warmup, and what it shares."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import HyperparamError, MissingExtraError
from tests.oracles import core as ref
from tests.oracles import tails
from tests.oracles.compose import each

W = jnp.array([3.0, -4.0])


def steps(tx: Any, values: Any, state: Any = None) -> tuple[list[Any], Any]:
    """x after every step of a constant gradient."""
    y, found = W, []
    state = tx.init(W) if state is None else state
    for value in values:
        updates, state = jax.jit(tx.update)(
            jnp.array([2.0, -1.0]), state, y, value=jnp.asarray(value)
        )
        y = gradtx.apply_updates(y, updates)
        found.append(np.asarray(gradtx.eval_params(tx, state, y)))
    return found, state


def test_gradients_of_a_loss_are_taken_at_y() -> None:
    """Beside the reference that holds x, y and z, on a loss with a minimum of 0."""
    tx = gradtx.schedule_free_plus_adamw(
        anneal_steps=20.0, average_warmup=4.0, weight_decay=0.5, norm_decay=0.8
    )
    oracle = tails.free_plus(
        each(ref.adam, b1=0.9, b2=0.95), anneal=20.0, warm=4, decay=0.5, norm_decay=0.8
    )
    loss = lambda w: jnp.sum(jnp.cosh(w) - 1)  # noqa: E731
    with jax.enable_x64(True):
        theirs, memory = np.array([1.5, -0.5, 0.25]), {}
        y = jnp.asarray(theirs)
        state = tx.init(y)
        for t in range(1, 31):
            value, grads = jax.value_and_grad(loss)(y)
            updates, state = jax.jit(tx.update)(grads, state, y, value=value)
            y = y + updates
            (update,) = oracle(
                [np.sinh(theirs)], [theirs], memory, t, value=np.sum(np.cosh(theirs) - 1)
            )
            theirs = theirs + update
            np.testing.assert_allclose(y, theirs, rtol=1e-9, atol=1e-12)
            x = gradtx.eval_params(tx, state, y)
            np.testing.assert_allclose(x, memory["x"][0], rtol=1e-9, atol=1e-12)
        assert loss(gradtx.eval_params(tx, state, y)) < 0.05 * loss(jnp.array([1.5, -0.5, 0.25]))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_no_number_makes_a_step_of_zero(bad: float) -> None:
    tx = gradtx.schedule_free_plus(gradtx.scale_by_sign(), average_warmup=10.0)
    found, state = steps(tx, [2.0, bad, 2.0])
    np.testing.assert_array_equal(found[1], found[0])
    assert np.isfinite(found[2]).all() and (found[2] != found[1]).all()
    assert np.isfinite(state.slots["schedule_free_plus"]["norm"])


def test_a_loss_of_zero_makes_no_step() -> None:
    tx = gradtx.schedule_free_plus(gradtx.scale_by_sign())
    found, _ = steps(tx, [0.0])
    np.testing.assert_array_equal(found[0], W)


def test_the_loss_must_be_given() -> None:
    tx = gradtx.schedule_free_plus_adamw()
    with pytest.raises(MissingExtraError, match=r"needs value: call update\(grads, state, params"):
        tx.update(W, tx.init(W), W)


def test_a_point_that_does_not_contain_x_is_refused() -> None:
    with pytest.raises(HyperparamError, match=r"beta = 0\.0 is outside its range \(0, 1\]"):
        gradtx.schedule_free_plus(gradtx.scale_by_sign(), beta=0.0)
