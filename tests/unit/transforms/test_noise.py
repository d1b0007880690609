"""Noise: its variance, where it differs, where it comes again, and the laws."""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import HyperparamError
from gradtx.testing import LAWS


def steps(tx: Any, gradients: Any) -> list[Any]:
    state, found = tx.init(gradients[0]), []
    for gradient in gradients:
        updates, state = tx.update(gradient, state)
        found.append(updates)
    return found


def test_noise_has_the_variance_of_the_paper() -> None:
    """η / (1 + t)^γ at t = 0, 1, 2, 3, over 40 000 draws each; mean 0, and normal: kurtosis 3."""
    gradient = jnp.full((200, 200), 0.5)
    for count, update in enumerate(steps(gradtx.add_noise(2.0, 0.55, key=1), [gradient] * 4)):
        noise = np.asarray(update, np.float64) - 0.5
        variance = 2.0 / (1 + count) ** 0.55
        assert noise.var() == pytest.approx(variance, rel=0.03)  # 4 standard errors
        assert abs(noise.mean()) < 4 * (variance / noise.size) ** 0.5
        assert np.mean(noise**4) / noise.var() ** 2 == pytest.approx(3.0, rel=0.05)


def test_noise_is_independent_over_arrays_steps_and_seeds_and_comes_again() -> None:
    tree = {"a": jnp.zeros(5000), "b": jnp.zeros(5000)}
    first, second = steps(gradtx.add_noise(1.0, 0.0, key=1), [tree] * 2)
    other, _ = steps(gradtx.add_noise(1.0, 0.0, key=2), [tree] * 2)
    draws = np.stack([first["a"], first["b"], second["a"], second["b"], other["a"]])
    assert np.abs(np.corrcoef(draws) - np.eye(5)).max() < 0.06
    again = steps(gradtx.add_noise(1.0, 0.0, key=1), [{**tree, "c": jnp.zeros(3)}] * 2)
    np.testing.assert_array_equal(again[1]["b"], second["b"])  # whatever stands beside it


def test_a_number_is_the_seed_of_a_key() -> None:
    gradient = [jnp.zeros(4)]
    typed = steps(gradtx.add_noise(1.0, 0.5, jax.random.key(3)), gradient)[0]
    for tx in (
        gradtx.add_noise(1.0, 0.5, 3),
        gradtx.add_noise(1.0, 0.5, seed=3),
        gradtx.noisy_sgd(1.0, eta=1.0, gamma=0.5, seed=3),
    ):
        found = steps(tx, gradient)[0]
        np.testing.assert_array_equal(-found if tx.name == "noisy_sgd" else found, typed)
    old = steps(gradtx.add_noise(1.0, 0.5, jax.random.PRNGKey(3)), gradient)[0]
    np.testing.assert_array_equal(old, typed)
    np.testing.assert_array_equal(
        steps(gradtx.add_noise(1.0, 0.5), gradient)[0],
        steps(gradtx.add_noise(1.0, 0.5, key=0), gradient)[0],
    )


def test_no_variance_is_no_noise() -> None:
    gradient = jnp.array([1.0, -0.0, jnp.inf])
    for update in steps(gradtx.add_noise(0.0, 0.55), [gradient] * 3):
        np.testing.assert_array_equal(update, gradient)


def test_noise_is_the_same_in_every_precision_and_complex_where_the_gradient_is() -> None:
    tx = gradtx.add_noise(1.0, 0.5, key=1)
    single = steps(tx, [jnp.zeros(8)])[0]
    np.testing.assert_array_equal(
        steps(tx, [jnp.zeros(8, jnp.bfloat16)])[0], single.astype(jnp.bfloat16)
    )
    with jax.enable_x64(True):
        np.testing.assert_allclose(steps(tx, [jnp.zeros(8, jnp.float64)])[0], single, rtol=1e-6)
    draws = steps(tx, [jnp.zeros(20_000, jnp.complex64)])[0]
    assert float(draws.real.var()) == pytest.approx(0.5, rel=0.05) and float(
        draws.imag.var()
    ) == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("law", sorted(LAWS))
def test_laws_of_noise(law: str) -> None:
    """All but one: an array of another name draws other noise."""
    tx = gradtx.add_noise(0.1, 0.55, key=5)
    with pytest.raises(AssertionError) if law == "leaf_order" else contextlib.nullcontext():
        LAWS[law](tx)


def test_a_batch_of_seeds_in_one_program() -> None:
    batch = gradtx.replace(gradtx.add_noise(1.0, 0.5, key=0), key=jnp.arange(3))
    got = jax.vmap(
        lambda tx: steps(tx, [jnp.zeros(4)])[0], in_axes=(gradtx.vmap_axes(batch, "key"),)
    )(batch)
    for seed, row in enumerate(got):
        np.testing.assert_array_equal(
            row, steps(gradtx.add_noise(1.0, 0.5, key=seed), [jnp.zeros(4)])[0]
        )


def test_a_key_and_a_seed_together_are_refused() -> None:
    with pytest.raises(
        HyperparamError, match="add_noise: key = 1 and seed = 2 mean the same; pass one of them"
    ):
        gradtx.add_noise(0.1, 0.5, 1, seed=2)
    with pytest.raises(HyperparamError, match="mean the same"):
        gradtx.noisy_sgd(0.1, key=1, seed=2)


def test_noise_in_x64_needs_no_implicit_promotion() -> None:
    with jax.numpy_dtype_promotion("strict"), jax.enable_x64(True):
        grad = jnp.zeros(3, jnp.float64)
        tx = gradtx.add_noise(1.0, 0.0, 0)
        assert tx.update(grad, tx.init(grad))[0].dtype == jnp.float64
