"""Measures that stand in the state by name, and targets that follow the parameters."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import GradtxError, StructureError
from tests.support.peer import optax

W = {"a": jnp.array([1.0, -2.0]), "b": jnp.array([[3.0, 4.0]])}


# measures


def test_measures_are_optax_numbers_and_stand_in_the_state_by_name() -> None:
    def measures(library: Any) -> Any:
        norm = library.tree.norm if library is optax else library.global_norm
        smooth = {
            "smooth": library.measure_with_ema(norm, 0.9),
            "input_grad": library.measure_with_ema(norm, 0.9, debias=False),
        }
        return library.chain(
            library.trace(0.5),
            library.monitor({"norm": norm, "first": first, **smooth}),
            library.scale(-0.1),
        )

    ours, theirs = measures(gradtx), measures(optax)
    state, other = ours.init(W), theirs.init(W)
    assert {name: value.shape for name, value in state.slots["monitor"].items()} == {
        "norm": (),
        "first": (2,),
        "smooth": (),
        "input_grad": (),
    }
    for n in range(4):
        gradient = jax.tree.map(lambda leaf, n=n: leaf * (n - 1.5), W)
        (_, state), (_, other) = ours.update(gradient, state), theirs.update(gradient, other)
        for name, value in state.slots["monitor"].items():
            np.testing.assert_allclose(value, other[1].measurements[name], rtol=2e-6)


def first(updates: Any) -> Any:
    return updates["a"]


def test_averages_of_measures_by_hand() -> None:
    """Norms 5, 10, 0 with β = 0.5, corrected: 5, (0.25·5 + 0.5·10)/0.75, (0.125·5 +
    0.25·10)/0.875.
    """
    tx = gradtx.measure_with_ema(gradtx.global_norm, 0.5, accumulator_dtype=jnp.float16)
    state, found = tx.init(jnp.zeros(2)), []
    for size in (1.0, 2.0, 0.0):
        _, state = tx.update(size * jnp.array([3.0, -4.0]), state)
        found.append(state.slots["ema"].item())
    assert state.slots["ema"].dtype == jnp.float16 and found == pytest.approx(
        [5.0, 6.25 / 0.75, 3.125 / 0.875], rel=1e-3
    )


def test_a_measure_is_kept_in_float32_at_least_and_may_be_a_tree() -> None:
    params = {"a": jnp.array([1.0, 2.0], jnp.bfloat16)}
    tx = gradtx.snapshot("all", lambda updates: {"it": updates["a"], "entries": jnp.asarray(2)})
    state = tx.update(params, tx.init(params))[1]
    kept = state.slots["all"]
    assert (
        kept["it"].dtype == jnp.float32
        and kept["it"].tolist() == [1.0, 2.0]
        and kept["entries"].dtype == jnp.int32
    )


def test_what_is_no_measure_is_refused_by_name() -> None:
    for wrong, shown in ((3, "3"), (gradtx.trace(0.9), r"trace\(decay=0.9\)")):
        with pytest.raises(
            GradtxError,
            match=rf"monitor: norm is {shown}, which is not a measure; pass a function of the "
            r"updates, or measure_with",
        ):
            gradtx.monitor({"norm": wrong})


# targets


def test_incremental_update_keeps_the_dtype_of_the_old_and_rounds_once() -> None:
    old = {"w": jnp.array([1.0, 3.0], jnp.bfloat16), "n": jnp.asarray(1), "none": None}
    new = {"w": jnp.array([1.01171875, -1.0]), "n": jnp.asarray(2), "none": None}
    mixed = gradtx.incremental_update(new, old, 0.25)
    assert mixed["w"].dtype == jnp.bfloat16 and mixed["n"] == 2 and mixed["none"] is None
    expected = (
        0.25 * np.asarray(new["w"], np.float64) + 0.75 * np.asarray(old["w"], np.float64)
    ).astype(jnp.bfloat16)
    np.testing.assert_array_equal(mixed["w"], expected)
    ours, theirs = (
        library.incremental_update(W, jax.tree.map(jnp.ones_like, W), 0.3)
        for library in (gradtx, optax)
    )
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), ours, theirs)


def test_periodic_update_takes_the_new_when_it_is_due() -> None:
    old = {"w": jnp.zeros(1, jnp.bfloat16), "n": 1, "none": None}
    new = {"w": jnp.ones(1), "n": 2, "none": None}
    advance: Callable[..., Any] = jax.jit(gradtx.periodic_update)
    for count, due in enumerate([True, False, False, True, False]):
        found = advance(new, old, count, 3)
        assert found["w"].dtype == jnp.bfloat16 and found["none"] is None
        assert (float(found["w"][0]), int(found["n"])) == ((1.0, 2) if due else (0.0, 1))
        like = optax.periodic_update(W, jax.tree.map(jnp.zeros_like, W), count, 3)
        jax.tree.map(
            np.testing.assert_array_equal,
            gradtx.periodic_update(W, jax.tree.map(jnp.zeros_like, W), count, 3),
            like,
        )


@pytest.mark.parametrize(
    ("new", "text"),
    [
        (
            {"a": W["a"]},
            "incremental_update: the new and the old tensors differ in structure: 'b' is "
            "only in the old",
        ),
        (
            {**W, "b": jnp.ones(3)},
            r"incremental_update: 'b' has shape \(3,\) in the new tensors, \(1, 2\) in the old",
        ),
        ({**W, "b": None}, "'b' has shape None in the new tensors"),
    ],
)
def test_targets_of_another_structure_are_told_apart(new: Any, text: str) -> None:
    with pytest.raises(StructureError, match=text):
        gradtx.incremental_update(new, W, 0.5)
