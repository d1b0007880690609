"""ADOPT, ACProp and MARS: their first steps, bounds, and what each refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import StructureError
from tests.support.following import updates_of
from tests.support.torch_rows import torch_trace
from tests.support.trees import follow, start

Z = {"z": jnp.array([3 - 4j, 0.01j]), "r": jnp.array([0.5, -2.0])}


# methods


def test_the_first_step_of_adopt_is_zero_for_every_bound() -> None:
    for tx in (
        gradtx.adopt(0.1),
        gradtx.adopt(0.1, use_clipping=False),
        gradtx.adopt(0.1, nesterov=True, clip_value_fn=5.0),
    ):
        assert updates_of(tx, [jnp.array([3.0, -1e9, 0.0])])[0].tolist() == [0.0, 0.0, 0.0]


def test_the_bound_of_adopt_may_be_a_number_a_schedule_or_a_function() -> None:
    gradients = [jnp.array([1.0])] + [jnp.array([100.0])] * 3
    bounds = {
        "number": 2.0,
        "schedule": gradtx.linear_schedule(0.0, 3.0, 3),
        "function": lambda count: 2.0 * count,
    }
    expected = {"number": [2.0, 2.0, 2.0], "schedule": [1.0, 2.0, 3.0], "function": [2.0, 4.0, 6.0]}
    for kind, bound in bounds.items():
        tx = gradtx.scale_by_adopt(b1=0.0, b2=0.0, clip_value_fn=bound)
        capped = [
            min(want, 100.0 / last)
            for want, last in zip(expected[kind], [1.0, 100.0, 100.0], strict=True)
        ]
        assert [u.item() for u in updates_of(tx, gradients)[1:]] == pytest.approx(capped)
    assert gradtx.from_config(gradtx.to_config(gradtx.adopt(0.1))) == gradtx.adopt(0.1)


def test_adopt_refuses_complex_arrays_only_where_it_clips() -> None:
    with pytest.raises(StructureError, match="scale_by_adopt is not defined for complex numbers"):
        gradtx.adopt(0.1).init(Z)
    free = updates_of(gradtx.adopt(0.1, b1=0.0, use_clipping=False), [Z["z"], Z["z"]])[1]
    np.testing.assert_allclose(free, -0.1 * Z["z"] / jnp.abs(Z["z"]), rtol=1e-5)


def test_acprop_is_finite_for_a_constant_gradient() -> None:
    updates = updates_of(
        gradtx.acprop(0.1, weight_decay=0.0), [jnp.array([0.0, 1e-20, 1.0])] * 30, jnp.zeros(3)
    )
    assert all(bool(jnp.all(jnp.isfinite(u))) for u in updates)


def test_mars_corrects_matrices_alone_and_starts_without_a_change() -> None:
    params = {"bias": jnp.zeros(3), "kernel": jnp.zeros((2, 2))}
    gradients = [
        jax.tree.map(lambda leaf, n=n: leaf + 0.1 * (n + 1) ** 2, params) for n in range(3)
    ]
    tx = gradtx.scale_by_mars(0.9, 0.95, gamma=0.5, vector_b1=0.9, vector_b2=0.95)
    ours, plain = updates_of(tx, gradients), updates_of(gradtx.scale_by_adam(0.9, 0.95), gradients)
    for n, (found, adam) in enumerate(zip(ours, plain, strict=True)):
        np.testing.assert_allclose(found["bias"], adam["bias"], rtol=1e-6)
        assert np.allclose(found["kernel"], adam["kernel"], rtol=1e-5) == (n == 0)
    slots = tx.init(params).slots
    assert slots["matrices"]["mars_correction"].grad == {
        "bias": None,
        "kernel": pytest.approx(np.zeros((2, 2))),
    }
    assert slots["vectors"].mu["kernel"] is None


def test_mars_beside_pytorch_optimizer() -> None:
    """Its trace: a change from 0 at first, a learning rate of 3e-3 for vectors, and ε/√(1 − β2^t)
    in place of ε, which costs 1e-6 here.
    """
    parts = {
        name: gradtx.mars(eta, weight_decay=0.1, from_zero=True)
        for name, eta in (("matrix", 0.01), ("vector", 3e-3))
    }
    tx = gradtx.partition(
        parts,
        functools.partial(jax.tree.map, lambda param: "matrix" if param.ndim > 1 else "vector"),
    )
    with jax.enable_x64(True):
        updates = follow(tx, jnp.float64)
    params = start()
    for found, recorded in zip(updates, torch_trace("mars"), strict=True):
        params = [w + u for w, u in zip(params, found, strict=True)]
        for w, theirs in zip(params, recorded, strict=True):
            np.testing.assert_allclose(w, theirs, rtol=1e-6, atol=1e-6)


def test_mars_correction_bounds_every_array_and_keeps_nan_where_it_is() -> None:
    u = updates_of(
        gradtx.mars_correction(),
        [
            {
                "a": jnp.array([30.0, 40.0]),
                "b": jnp.array([0.3, 0.4]),
                "c": jnp.array([jnp.nan, 5.0]),
            }
        ],
    )[0]
    np.testing.assert_allclose(u["a"], [0.6, 0.8], rtol=1e-6)
    np.testing.assert_allclose(u["b"], [0.3, 0.4], rtol=1e-6)
    assert np.isnan(u["c"][0]) and u["c"][1] == 0.0
