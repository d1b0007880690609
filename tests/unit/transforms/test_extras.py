"""Curvature estimates, Sophia, and differential privacy, in the corners that the rows of the table
do not reach.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import HyperparamError, MissingExtraError, StructureError
from tests.support.close import close
from tests.support.peer import optax

ONE, NAN = jnp.array(1.0), jnp.array(jnp.nan)

contrib = optax.contrib


def bowl(w: Any) -> Any:
    return 0.5 * w["x"] @ MATRIX @ w["x"] + 3.0 * w["y"] ** 2


MATRIX = jnp.array([[2.0, 1.0, 0.0], [1.0, -1.0, 0.5], [0.0, 0.5, 3.0]])


def test_the_mean_of_the_estimates_is_the_diagonal() -> None:
    """An entry's variance is the sum of squares of its row beside the diagonal: 1, 1.25 and 0.25;
    an integer is left alone.
    """
    w = {"x": jnp.ones(3), "y": ONE, "n": jnp.array(3)}
    grads = {**w, "n": jnp.array(7)}
    tx = gradtx.hutchinson_estimator_diag_hessian(random_seed=5)
    draw = jax.jit(lambda count: tx.update(grads, gradtx.State(count, {}), w, obj_fn=bowl)[0])
    found = [draw(jnp.int32(count)) for count in range(2000)]
    x = np.stack([one["x"] for one in found])
    np.testing.assert_allclose(x.mean(0), [2.0, -1.0, 3.0], atol=4 * np.sqrt(1.25 / 2000))
    np.testing.assert_allclose(x.var(0), [1.0, 1.25, 0.25], rtol=0.1)
    assert found[0]["n"] == 7 and all(one["y"] == 6.0 for one in found)
    again = gradtx.hutchinson_estimator_diag_hessian(random_seed=6)
    assert any(
        (again.update(grads, gradtx.State(jnp.int32(c), {}), w, obj_fn=bowl)[0]["x"] != x[c]).any()
        for c in range(5)
    )


def test_signs_differ_between_arrays() -> None:
    tx, w = gradtx.hutchinson_estimator_diag_hessian(), {"a": jnp.ones(64), "b": jnp.ones(64)}
    coupled = tx.update(w, tx.init(w), w, obj_fn=lambda w: jnp.sum(w["a"] * w["b"]))[0][
        "a"
    ]  # H z of a is z of b
    assert set(coupled.tolist()) == {-1.0, 1.0} and abs(float(coupled.mean())) < 0.5


def test_the_curvature_is_measured_at_every_kth_step_only() -> None:
    calls = []

    def loss(w: Any) -> Any:
        calls.append(1)
        return jnp.sum(w**4)

    w, tx = jnp.ones(3), gradtx.sophia(0.1, update_interval=4)
    state = tx.init(w)
    called = []
    for _ in range(9):
        _, state = tx.update(w, state, w, obj_fn=loss)
        called.append(len(calls))
    assert [bool(n) for n in np.diff([0, *called])] == [
        True,
        False,
        False,
        False,
        True,
        False,
        False,
        False,
        True,
    ]


def test_errors_of_sophia() -> None:
    with pytest.raises(
        HyperparamError,
        match=r"sophia: update_interval = 0 must be a whole number of steps, 1 or more",
    ):
        gradtx.sophia(0.1, update_interval=0)
    tx = gradtx.sophia(0.1)
    with pytest.raises(MissingExtraError, match="needs obj_fn"):
        tx.update(ONE, tx.init(ONE), ONE)
    z = jnp.ones(2, jnp.complex64)
    with pytest.raises(
        StructureError,
        match=r"hutchinson_estimator_diag_hessian is not defined for complex numbers, and '' "
        r"is c64\[2\]",
    ):
        tx.update(z, tx.init(z), z, obj_fn=lambda z: jnp.sum(jnp.abs(z)))


def test_sophia_prints_how_many_entries_are_within_the_bound(
    capfd: pytest.CaptureFixture[str],
) -> None:
    w = jnp.array([1.0, 100.0])
    tx = gradtx.sophia(0.1, b1=0.0, eps=1.0, verbose=True, print_win_rate_every_n_steps=2)
    step, state = jax.jit(functools.partial(tx.update, obj_fn=jnp.sum)), tx.init(w)
    for _ in range(4):
        _, state = step(w * 0.5, state, w)
    jax.effects_barrier()
    assert capfd.readouterr().out == "sophia: 50.0% of the entries are within the bound\n" * 2


# Privacy


def examples(batch: int) -> dict[str, jax.Array]:
    generator = np.random.default_rng(0)
    return {
        name: jnp.asarray(generator.normal(size=(batch, *shape)), jnp.float32)
        for name, shape in (("a", (3, 4)), ("b", ()))
    }


PARAMS = {"a": jnp.zeros((3, 4)), "b": jnp.zeros(())}


def test_without_noise_it_is_that_of_optax() -> None:
    grads, clip = examples(5), 3.0
    ours = gradtx.differentially_private_aggregate(clip, 0.0)
    theirs = contrib.differentially_private_aggregate(clip, 0.0, jax.random.key(0))
    updates, _ = jax.jit(ours.update)(grads, ours.init(PARAMS), PARAMS)
    close(updates, theirs.update(grads, theirs.init(PARAMS), PARAMS)[0], 1e-5)
    norms = jnp.sqrt(jnp.sum(grads["a"] ** 2, axis=(1, 2)) + grads["b"] ** 2)
    assert bool(jnp.any(norms > clip)) and bool(jnp.any(norms < clip))


def test_the_noise_has_the_variance_of_the_paper() -> None:
    """(noise_multiplier c / B)^2 = (2 * 3 / 4)^2, other numbers at every step and for every array,
    the same for the same key.
    """
    params = {"a": jnp.zeros(20_000), "b": jnp.zeros(20_000)}
    grads = jax.tree.map(lambda w: jnp.zeros((4, *w.shape)), params)
    tx = gradtx.dpsgd(1.0, 3.0, 2.0, key=jax.random.key(1))
    first, state = tx.update(grads, tx.init(params), params)
    second, _ = tx.update(grads, state, params)
    again, _ = tx.update(grads, tx.init(params), params)
    other, _ = gradtx.dpsgd(1.0, 3.0, 2.0, seed=2).update(grads, tx.init(params), params)
    for noise in (first["a"], first["b"], second["a"]):
        assert abs(float(noise.std()) - 1.5) < 0.05 and abs(float(noise.mean())) < 0.05
    for one in (first["b"], second["a"], other["a"]):
        assert abs(float(jnp.corrcoef(first["a"], one)[0, 1])) < 0.05
    close(first, again)


def test_an_example_that_is_not_finite_counts_for_nothing() -> None:
    tx = gradtx.differentially_private_aggregate(1.0, 0.0)
    updates, _ = tx.update(
        {"a": jnp.array([[NAN, 1.0], [0.3, 0.4]]), "b": jnp.array([9.0, 0.0])}, tx.init({})
    )
    assert (
        np.isnan(updates["a"][0])
        and updates["a"][1].item() == pytest.approx(0.2)
        and updates["b"].item() == 0.0
    )


def test_gradients_per_example_have_a_batch_axis() -> None:
    tx = gradtx.dpsgd(0.1, 1.0, 1.0)
    wrong = {"a": jnp.ones((5, 3, 4)), "b": jnp.ones(())}
    with pytest.raises(
        StructureError, match=r"gradients per example, .*: 'a' is f32\[5,3,4\], and 'b' is f32\[\]"
    ):
        tx.update(wrong, tx.init(PARAMS), PARAMS)
    with pytest.raises(
        StructureError,
        match="the gradients and the parameters differ in structure: 'b' is only in the parameters",
    ):
        tx.update({"a": jnp.ones((5, 3, 4))}, tx.init(PARAMS), PARAMS)
    with pytest.raises(
        HyperparamError, match="key = 1 and seed = 2 mean the same; pass one of them"
    ):
        gradtx.dpsgd(0.1, 1.0, 1.0, key=1, seed=2)
