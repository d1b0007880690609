"""`project`: a set as a member of a chain, as data, with selectors and functions."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import projections
from gradtx.transforms.project import PROJECTIONS, project

PARAMS = {"mix": jnp.array([[0.5, 0.5], [0.9, 0.1]]), "bias": jnp.array([0.0, 3.0])}
GRADS = {"mix": jnp.array([[1.0, -1.0], [0.3, 0.0]]), "bias": jnp.array([5.0, -1.0])}


def stepped(tx, params=PARAMS, grads=GRADS):
    updates, _ = tx.update(grads, tx.init(params), params)
    return gradtx.apply_updates(params, updates)


def test_it_is_the_projection_of_the_next_parameters():
    tx = gradtx.chain(gradtx.sgd(0.5), project("l2_ball", scale=1.5))
    right = projections.projection_l2_ball(stepped(gradtx.sgd(0.5)), 1.5)
    assert jax.tree.all(jax.tree.map(np.allclose, stepped(tx), right))


def test_where_and_axis_choose_the_vectors():
    tx = gradtx.chain(gradtx.sgd(0.5), project("simplex", "mix", axis=-1))
    params = stepped(tx)
    assert params["bias"].tolist() == stepped(gradtx.sgd(0.5))["bias"].tolist()
    assert params["mix"].tolist() == [[0.0, 1.0], [pytest.approx(0.825), pytest.approx(0.175)]]


def test_a_path_that_matches_nothing():
    tx = project("simplex", "mixx")
    with pytest.raises(gradtx.SelectionError, match=r"^project: 'mixx' matches none of the 2"):
        tx.update(GRADS, tx.init(PARAMS), PARAMS)


@pytest.mark.parametrize("kind", PROJECTIONS)
def test_every_kind_ends_in_its_set(kind):
    values: dict[str, Any] = {"lower": -0.5, "upper": 0.5, "a": 1.0, "b": 0.25, "scale": 0.75}
    values = {name: values[name] for name in PROJECTIONS[kind][1]}
    params = stepped(gradtx.chain(gradtx.sgd(0.5), project(kind, **values)))
    again = getattr(projections, f"projection_{kind}")(params, **values)
    assert jax.tree.all(jax.tree.map(lambda x, y: np.allclose(x, y, atol=1e-6), params, again))


def test_kinds_are_those_of_the_projections():
    names = {name for name in dir(projections) if name.startswith("projection_")}
    assert names == {f"projection_{kind}" for kind in PROJECTIONS}


def test_a_definition_is_data():
    tx = project("l2_ball", "mix", axis=-1, scale=2.0)
    assert str(tx) == "project(kind='l2_ball', where='mix', axis=-1, scale=2.0)"
    assert gradtx.from_config(json.loads(json.dumps(gradtx.to_config(tx)))) == tx
    assert gradtx.hyperparams(tx) == {"scale": 2.0}
    assert hash(gradtx.replace(tx, scale=3.0)) == hash(
        project("l2_ball", "mix", axis=-1, scale=3.0)
    )


def test_radii_are_batched_differentiated_and_scheduled():
    base = gradtx.chain(gradtx.sgd(0.5), project("l2_ball", "bias", scale=1.0))
    txs = gradtx.replace(base, scale=jnp.array([0.5, 1.0]))
    bias = jax.vmap(lambda tx: stepped(tx)["bias"], (gradtx.vmap_axes(txs, "scale"),))(txs)
    np.testing.assert_allclose(jnp.linalg.norm(bias, axis=1), [0.5, 1.0], rtol=1e-6)

    def size(scale):
        return jnp.sum(stepped(gradtx.replace(base, scale=scale))["bias"] ** 2)

    np.testing.assert_allclose(jax.grad(size)(0.8), 1.6, rtol=1e-6)
    tx = gradtx.replace(base, scale=lambda count: 1.0 / (1 + count))
    updates, state = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    params = gradtx.apply_updates(PARAMS, updates)
    updates, _ = tx.update(GRADS, state, params)
    bias = gradtx.apply_updates(params, updates)["bias"]
    np.testing.assert_allclose(jnp.linalg.norm(bias), 0.5, rtol=1e-6)


def test_a_new_radius_compiles_nothing():
    step = jax.jit(stepped)
    for scale in (0.5, 1.0, 2.0):
        step(gradtx.chain(gradtx.sgd(0.5), project("simplex", scale=scale)))
    assert step._cache_size() == 1  # pyright: ignore[reportAttributeAccessIssue]


def halve_sum(tree, scale):
    return jax.tree.map(lambda x: scale * x, tree)


def lose_axis(tree, **arguments):
    return jax.tree.map(jnp.sum, tree)


def test_a_function_may_name_the_set():
    params = stepped(gradtx.chain(gradtx.sgd(0.5), project(halve_sum, "bias", scale=0.5)))
    np.testing.assert_allclose(params["bias"], 0.5 * stepped(gradtx.sgd(0.5))["bias"])
    text = (
        r"^project: .*lose_axis.* returned arrays of the shapes \[\(\)\], and received \[\(2,\)\]: "
    )
    with pytest.raises(gradtx.StructureError, match=text):
        stepped(project(lose_axis, "bias"))


def test_bounds_hold_and_faults_stay():
    tx = project("box", lower=0.0, upper=1.0)
    grads = {"mix": GRADS["mix"].at[0, 0].set(jnp.nan), "bias": GRADS["bias"].at[0].set(jnp.inf)}
    params = stepped(tx, grads=grads)
    assert np.isnan(params["mix"]).sum() == 1 and np.isinf(params["bias"]).sum() == 1
    assert params["mix"][0, 1] == 0.0 and params["bias"][1] == 1.0
    ball = stepped(project("l2_ball"), grads=grads)
    assert np.isfinite(ball["mix"]).sum() == 3


def test_low_precision_and_strict_promotion():
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    with jax.numpy_dtype_promotion("strict"):
        for params, grads in ((half, half), (PARAMS, half)):
            tx = project("simplex", axis=-1)
            updates, _ = tx.update(grads, tx.init(params), params)
            assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(jnp.bfloat16)}


MISTAKES = {
    r"^project: kind = 'ball' is unknown; choose one of 'box', 'halfspace', ": (
        lambda: project("ball")  # pyright: ignore[reportArgumentType]
    ),
    r"^project: box needs upper: pass upper=\.\.\.$": lambda: project("box", lower=0.0),
    r"^project: simplex does not use lower; its arguments are scale$": (
        lambda: project("simplex", lower=0.0)
    ),
    r"^project: non_negative does not use scale; its arguments are none$": (
        lambda: project("non_negative", scale=1.0)
    ),
    r"^project: scale = -1.0 is outside its range \[0, inf\)$": (
        lambda: project("simplex", scale=-1.0)
    ),
    r"^projection_box: lower = 1.0 is above upper = 0.0 at 'bias', so that the box is empty": (
        lambda: stepped(project("box", lower=1.0, upper=0.0))
    ),
}


@pytest.mark.parametrize("text", MISTAKES)
def test_mistakes(text):
    with pytest.raises(gradtx.HyperparamError, match=text):
        MISTAKES[text]()


def test_parameters_are_needed():
    tx = project("simplex")
    with pytest.raises(gradtx.MissingParamsError, match=r"^project needs the parameters"):
        tx.update(GRADS, tx.init(PARAMS))
