"""Forms of weight decay: what each is the limit of, and their errors."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import HyperparamError

W = jnp.array([3.0, -0.2, 0.0, -5.0, 0.4])
G = jnp.array([1.0, 1.0, -1.0, -2.0, 0.0])


def step(form: Any, rate: float = 0.1, decay: float = 0.5, **flags: Any) -> np.ndarray:
    tx = gradtx.descend(gradtx.identity(), rate, decay, decay_form=form, **flags)
    return np.asarray(W + tx.update(G, tx.init(W), W)[0])


def test_huber_without_a_bound_is_proximal_and_near_adamw() -> None:
    """θ/(1 + q) in place of (1 − q) θ: they differ by q² θ, q = η λ, and by q η u."""
    np.testing.assert_allclose(step("huber"), step("proximal"), rtol=1e-6)
    np.testing.assert_allclose(step("huber", huber_delta=math.inf), step("proximal"), rtol=1e-6)
    far = [np.abs(step("huber", q, 0.1) - step("decoupled", q, 0.1)).max() for q in (0.2, 0.1)]
    assert 3.5 <= far[0] / far[1] <= 4.5  # of second order


def test_huber_pulls_large_weights_by_a_constant() -> None:
    """At δ = 1 the weights 3 and −5 lose η λ δ, the others a share."""
    found, q = step("huber", huber_delta=1.0), 0.05
    moved = np.asarray(W) - 0.1 * np.asarray(G)
    np.testing.assert_allclose(found[[0, 3]], moved[[0, 3]] - q * np.sign(moved[[0, 3]]), rtol=1e-6)
    np.testing.assert_allclose(found[[1, 2, 4]], moved[[1, 2, 4]] / (1 + q), rtol=1e-6)


def test_huber_is_the_proximal_map_of_hubers_loss() -> None:
    """The minimum of (x − m)²/2 + q h(x), h Huber's loss with the bound δ, by a search."""
    delta, q = 0.7, 0.05
    found, moved = step("huber", huber_delta=delta), np.asarray(W) - 0.1 * np.asarray(G)
    grid = np.linspace(-6, 6, 240001)
    huber = np.where(np.abs(grid) <= delta, grid**2 / 2, delta * (np.abs(grid) - delta / 2))
    best = [grid[np.argmin((grid - one) ** 2 / 2 + q * huber)] for one in moved]
    np.testing.assert_allclose(found, best, atol=1e-4)


def test_strict_and_cautious_differ_where_the_direction_is_zero() -> None:
    """The last weight has a direction of 0."""
    assert step("cautious")[4] == pytest.approx(0.4 * 0.95)
    assert step("strict_cautious")[4] == pytest.approx(0.4)
    np.testing.assert_array_equal(step("cautious")[:4], step("strict_cautious")[:4])


def test_corrected_decay_is_the_decay_that_follows_the_rate() -> None:
    """θ ← θ − η_t (u + λ_t θ) with λ_t = λ_max η_t / η_max, written out."""
    rates, peak, most = [0.1, 0.3, 0.2, 0.05], 0.3, 0.4
    tx = gradtx.descend(
        gradtx.identity(),
        lambda count: jnp.asarray(rates)[count],
        most,
        decay_form="corrected",
        peak_learning_rate=peak,
    )
    params, state, expected = W, tx.init(W), np.asarray(W, np.float64)
    for rate in rates:
        updates, state = tx.update(G, state, params)
        params = gradtx.apply_updates(params, updates)
        expected = expected - rate * (np.asarray(G) + most * rate / peak * expected)
    np.testing.assert_allclose(params, expected, rtol=1e-5, atol=1e-7)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "delta 0": (
        {"decay_form": "huber", "huber_delta": 0.0},
        r"adamw: huber_delta = 0.0 is outside its range \(0, inf\]",
    ),
    "delta below 0": (
        {"decay_form": "huber", "huber_delta": -1.0},
        r"adamw: huber_delta = -1.0 is outside its range \(0, inf\]",
    ),
    "delta of another form": (
        {"decay_form": "proximal", "huber_delta": 1.0},
        "huber_delta = 1.0 belongs to decay_form='huber', and the form is 'proximal'",
    ),
    "no peak": (
        {"decay_form": "corrected", "learning_rate": gradtx.linear_schedule(1.0, 0.0, 9)},
        "decay_form='corrected' divides by the largest learning rate, and linear_schedule",
    ),
}


@pytest.mark.parametrize("name", sorted(WRONG))
def test_bad_input_is_named(name: str) -> None:
    flags, message = WRONG[name]
    with pytest.raises(HyperparamError, match=message):
        call: dict[str, Any] = {"learning_rate": 0.1, **flags}
        gradtx.adamw(**call).rules  # noqa: B018


def test_delta_is_data() -> None:
    """Hyperparameters of a batch of definitions: one δ each."""
    tx = gradtx.adamw(0.1, weight_decay=0.5, decay_form="huber", huber_delta=0.5)

    def run(delta: jax.Array) -> jax.Array:
        one = gradtx.replace(tx, huber_delta=delta)
        return one.update(G, one.init(W), W)[0]

    updates = jax.vmap(run)(jnp.array([0.1, 10.0]))
    assert updates.shape == (2, 5) and not np.allclose(updates[0], updates[1])
