"""PSGD Kron, GaLore, Dion and Scion beside their references: what spreads, what costs, what is
degenerate, and what is refused.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import GradtxError, HyperparamError, StructureError
from tests.methods.muon import Axes, last_two
from tests.support.peer import optax

DIRECTIONS = {
    "psgd_kron": gradtx.scale_by_psgd_kron(),
    "galore": gradtx.scale_by_galore(2, dimensions=last_two),
    "dion": gradtx.scale_by_dion(0.5),
    "scion": gradtx.scale_by_scion(),
}
STEPS = {name: jax.jit(tx.update) for name, tx in DIRECTIONS.items()}


def batch(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(3, 4, 3)).astype(np.float32)


@pytest.mark.parametrize("name", DIRECTIONS)
def test_nan_stays_in_its_matrix(name: str) -> None:
    """And the others move as if it were not there."""
    grads, state = batch(), DIRECTIONS[name].init(jnp.zeros((3, 4, 3)))
    whole, _ = STEPS[name](jnp.asarray(grads), state)
    for bad in (np.nan, np.inf):
        grads[1, 2, 0] = bad
        updates, _ = STEPS[name](jnp.asarray(grads), state)
        np.testing.assert_array_equal(updates[jnp.array([0, 2])], whole[jnp.array([0, 2])])
        assert not bool(jnp.isfinite(updates[1, 2, 0]))


@pytest.mark.parametrize("name", DIRECTIONS)
def test_zero_and_singular_matrices(name: str) -> None:
    """Zero gives zero, one row among zeros stays alone, twice; and what follows moves."""
    grads = np.zeros((3, 4, 3), np.float32)
    grads[1, 2], grads[2] = 2.0, 1.0
    state = DIRECTIONS[name].init(jnp.zeros((3, 4, 3)))
    for _ in range(2):
        updates, state = STEPS[name](jnp.asarray(grads), state)
        assert bool(jnp.all(jnp.isfinite(updates)))
        assert not updates[0].any()
        assert (
            np.linalg.matrix_rank(updates[1], tol=1e-3)
            == np.linalg.matrix_rank(updates[2], tol=1e-3)
            == 1
        )
    updates, _ = STEPS[name](jnp.asarray(batch()), state)
    assert bool(jnp.all(jnp.isfinite(updates))) and all(updates[i].any() for i in range(3))


# PSGD Kron


def test_factors_by_the_length_of_axes() -> None:
    params = {
        "long": jnp.zeros((2, 5, 3)),
        "vector": jnp.zeros(5),
        "row": jnp.zeros((1, 5)),
        "scalar": jnp.zeros(()),
    }
    kept = (
        gradtx.scale_by_psgd_kron(max_size=4, init_scale=16.0)
        .init(params)
        .slots["scale_by_psgd_kron"]
    )
    assert jax.tree.map(jnp.shape, kept.left) == {
        "long": (2, 5),
        "vector": None,
        "row": None,
        "scalar": None,
    }
    assert jax.tree.map(jnp.shape, kept.right) == {
        "long": (2, 3, 3),
        "vector": (5,),
        "row": (5,),
        "scalar": (1,),
    }
    assert kept.left["long"].max() == 4.0 and kept.right["vector"].max() == 16.0


def test_fits_are_spread_over_steps_and_matrices() -> None:
    """At a quarter of a fit per step: after every four steps one more for every matrix, and never
    for all at once.
    """
    grads = jnp.ones((32, 2, 3))
    tx = gradtx.scale_by_psgd_kron(update_probability=0.25)
    state, step, moved = tx.init(grads), jax.jit(tx.update), []
    for _ in range(8):
        before = state.slots["scale_by_psgd_kron"].left
        _, state = step(grads, state)
        moved.append(np.any(before != state.slots["scale_by_psgd_kron"].left, axis=(1, 2)))
    assert np.sum(moved, axis=0).tolist() == [2] * 32 and np.sum(moved, axis=1).tolist() == [8] * 8


def test_factors_are_balanced() -> None:
    """Which no direction shows."""
    grads = jnp.full((4, 3), 1e-3)
    tx = gradtx.scale_by_psgd_kron(balance_every=2)
    state, step, apart = tx.init(grads), jax.jit(tx.update), []
    for _ in range(4):
        _, state = step(grads, state)
        kept = state.slots["scale_by_psgd_kron"]
        apart.append(
            round(abs(float(jnp.max(jnp.abs(kept.left)) / jnp.max(jnp.abs(kept.right)) - 1)), 5)
        )
    assert apart[0] > 0 and apart[1] == 0 and apart[2] > 0 and apart[3] == 0


def test_a_step_without_a_fit_does_not_pay() -> None:
    """Noise and triangular systems are inside a branch alone."""
    tx = gradtx.scale_by_psgd_kron()
    grads = jnp.ones((4, 3))
    jaxpr = jax.make_jaxpr(tx.update)(grads, tx.init(grads)).jaxpr
    outside, children = names(jaxpr), names(jaxpr, branches=True)
    assert {"triangular_solve", "random_bits"} <= children - outside and "cond" in outside


def names(jaxpr: Any, branches: bool = False) -> set[str]:
    """The operations of a program, calls included, branches only if asked."""
    found = set[str]()
    for equation in jaxpr.eqns:
        found.add(equation.primitive.name)
        if branches or equation.primitive.name != "cond":
            for inner in jax.tree.leaves(
                list(equation.params.values()), is_leaf=lambda value: hasattr(value, "jaxpr")
            ):
                found |= names(inner.jaxpr, branches) if hasattr(inner, "jaxpr") else set()
    return found


# GaLore


def test_axes_by_number_are_those_of_optax() -> None:
    kind = optax.contrib.GaLoreDimensionNumbers
    params = {
        "attention": jnp.zeros((3, 2, 4)),
        "out": jnp.zeros((2, 4, 3)),
        "plain": jnp.zeros((4, 3)),
    }
    grads = {
        name: jax.random.normal(jax.random.key(i), leaf.shape)
        for i, (name, leaf) in enumerate(params.items())
    }
    said = {"attention": (0, (1, 2)), "out": ((0, 1), 2)}
    ours = gradtx.scale_by_galore(
        2,
        1,
        0.5,
        gradtx.identity(),
        {**{name: Axes(*axes) for name, axes in said.items()}, "plain": None},
    )
    theirs = optax.contrib.scale_by_galore(
        2,
        1,
        0.5,
        optax.identity(),
        {**{name: kind(*axes) for name, axes in said.items()}, "plain": None},
    )
    found, expected = (tx.update(grads, tx.init(params), params)[0] for tx in (ours, theirs))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), found, expected)
    np.testing.assert_array_equal(found["plain"], grads["plain"])


def test_axes_for_all_arrays_at_once_leave_vectors_alone() -> None:
    """As Optax's: one kind of axes for every array of two axes or more."""
    params = {"w": jnp.ones((6, 2, 4)), "v": jnp.ones((3, 2, 4)), "bias": jnp.ones(6)}
    updates = {}
    for library, numbers in ((gradtx, Axes), (optax.contrib, optax.contrib.GaLoreDimensionNumbers)):
        tx = library.galore(0.1, 2, 1, weight_dimension_numbers=numbers(0, (1, 2)))
        updates[library], _ = tx.update(params, tx.init(params), params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), *updates.values())


def test_a_base_optimizer_that_needs_parameters_is_refused() -> None:
    with pytest.raises(GradtxError, match=r"adamw\(.*needs the parameters.*weight_decay"):
        gradtx.galore(1e-3, base_optimizer=gradtx.adamw(1e-3))


def test_a_projector_outlives_a_gradient_that_is_not_finite() -> None:
    grads, tx = jnp.asarray(batch()[0]), gradtx.scale_by_galore(2, 1)
    step = jax.jit(tx.update)
    _, before = step(grads, tx.init(grads))
    _, after = step(grads.at[0, 0].set(jnp.inf), before)
    np.testing.assert_array_equal(
        after.slots["scale_by_galore"].projector, before.slots["scale_by_galore"].projector
    )


def test_optax_may_be_the_base_optimizer_and_slots_may_be_stored() -> None:
    params = {"w": jnp.ones((64, 128)), "b": jnp.ones(3)}
    plain, stored = (
        gradtx.scale_by_galore(4),
        gradtx.stored(gradtx.scale_by_galore(4), "bf16", min_size=0),
    )
    theirs = gradtx.scale_by_galore(4, base_optimizer=optax.scale_by_adam())
    (ours, _), (other, _) = (tx.update(params, tx.init(params)) for tx in (plain, theirs))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), ours, other)
    kept = stored.init(params).slots["scale_by_galore"]
    assert (
        kept.projector["w"].dtype == jnp.float32
        and kept.base["scale_by_adam"].mu["w"].dtype == jnp.bfloat16
    )


# Scion


def test_each_kind_of_layer_has_its_norm() -> None:
    params = {
        "embed": jnp.zeros((4, 2)),
        "kernel": jnp.zeros((2, 8)),
        "lm_head": jnp.zeros((2, 4)),
        "bias": jnp.zeros(2),
    }
    grads = jax.tree.map(
        lambda leaf: jnp.eye(*leaf.shape) if leaf.ndim == 2 else jnp.array([1.0, -5.0]), params
    )
    tx = gradtx.scion(0.5, radius=3.0, head_radius=10.0, rest_radius=2.0, ns_coeffs="deepseek")
    updates, _ = tx.update(grads, tx.init(params), params)
    expected = {
        "embed": 0.5 * 2,
        "kernel": 0.5 * 3 * 2,
        "lm_head": 0.5 * 10 / 2,
    }  # the half of 2 sign, 3 √(8/2) O and 10 sign / 2
    for name, size in expected.items():
        np.testing.assert_allclose(updates[name], -size * grads[name], atol=1e-2)
    assert updates["bias"].tolist() == [-1.0, 1.0]


# what is refused


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: gradtx.scale_by_psgd_kron(max_size=0), "max_size = 0"),
        (lambda: gradtx.scale_by_psgd_kron(balance_every=2.5), "balance_every = 2.5"),  # pyright: ignore[reportArgumentType]
        (lambda: gradtx.scale_by_galore(0), "rank = 0"),
        (lambda: gradtx.scale_by_galore(update_proj_gap=0), "update_proj_gap = 0"),
        (lambda: gradtx.galore(1e-3, side="left"), "side = 'left'"),  # pyright: ignore[reportArgumentType]
        (lambda: gradtx.dion(1e-3, 1.5), r"rank_fraction = 1.5 is outside its range \(0, 1\]"),
        (lambda: gradtx.scale_by_dion(scaling="other"), "scaling = 'other'"),  # pyright: ignore[reportArgumentType]
        (lambda: gradtx.scale_by_scion(norm="rms"), "norm = 'rms'"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_arguments_out_of_their_range(make: Any, text: str) -> None:
    with pytest.raises(HyperparamError, match=text):
        make()


@pytest.mark.parametrize("name", ["dion", "scion"])
def test_vectors_are_refused_by_path(name: str) -> None:
    tx, params = DIRECTIONS[name], {"b": jnp.zeros(3)}
    with pytest.raises(StructureError, match=r"'b' has shape \(3,\), which is not a matrix"):
        tx.update(params, tx.init(params))


def test_a_projector_waits_for_a_gradient_that_is_not_zero() -> None:
    """Singular vectors of zero are axes, which would hold until the next refresh; the other matrix
    of the batch keeps what it has.
    """
    tx = gradtx.scale_by_galore(2, 200, 1.0, gradtx.identity(), dimensions=[("w", "batch in out")])
    first, second = (
        {"w": jnp.asarray(np.random.default_rng(seed).normal(size=(2, 6, 4)), jnp.float32)}
        for seed in (0, 1)
    )
    begun = {"w": first["w"].at[1].set(0.0)}
    early, state = tx.update(begun, tx.init(first))
    late, state = tx.update(second, state)
    assert early["w"][0].any() and not early["w"][1].any()
    np.testing.assert_array_equal(late["w"][1], tx.update(second, tx.init(first))[0]["w"][1])
    np.testing.assert_array_equal(
        late["w"][0], tx.update(second, tx.update(first, tx.init(first))[1])[0]["w"][0]
    )
