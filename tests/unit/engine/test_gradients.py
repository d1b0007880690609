"""The gradients of `update`: of the parameters' kind of number, or an error with the path."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import GradtxError, MissingParamsError, StructureError

PARAMS = {"w": jnp.ones(2)}
TX = gradtx.sgd(0.1)


def update(tx: gradtx.GradientTransformation, grads: Any, params: Any) -> Any:
    return tx.update(grads, tx.init(params), params)[0]


def stepped(tx: gradtx.GradientTransformation, grads: Any, params: Any) -> Any:
    new = gradtx.update_params(tx, grads, tx.init(params), params)[0]
    return jax.tree.map(lambda one, old: one - old, new, params)


@pytest.mark.parametrize("run", [update, stepped])
@pytest.mark.parametrize("dtype", [jnp.int32, jnp.int8, jnp.uint8])
def test_integers_are_gradients_of_floats(run: Callable[..., Any], dtype: Any) -> None:
    """Downhill, and as floats: 1.5 is clipped in floats, too."""
    grads = {"w": jnp.array([1, 2], dtype)}
    np.testing.assert_allclose(run(TX, grads, PARAMS)["w"], [-0.1, -0.2], rtol=1e-6)
    clipped = gradtx.chain(gradtx.clip(1.5), gradtx.sgd(1.0))
    np.testing.assert_allclose(run(clipped, grads, PARAMS)["w"], [-1.0, -1.5])


def test_bools_and_numbers_of_python() -> None:
    grads = {"w": jnp.array([True, False])}
    np.testing.assert_allclose(update(TX, grads, PARAMS)["w"], [-0.1, 0.0], rtol=1e-6)
    for grad in (3, 3.0, np.float32(3.0), jnp.asarray(3.0)):
        for param in (1.0, np.float32(1.0), jnp.asarray(1.0)):
            found = update(TX, {"w": grad}, {"w": param})["w"]
            np.testing.assert_allclose(found, -0.3, rtol=1e-6)


def test_integers_are_computed_in_the_compute_dtype() -> None:
    """257 is no bfloat16."""
    params = {"w": jnp.ones(1, jnp.bfloat16)}
    found = update(gradtx.scale(1.0), {"w": jnp.array([257])}, params)["w"]
    assert found.dtype == jnp.float32 and found.tolist() == [257.0]


def test_another_float_dtype_stays() -> None:
    params = {"w": jnp.ones(1, jnp.bfloat16)}
    assert update(TX, PARAMS | {"w": jnp.ones(1)}, params)["w"].dtype == jnp.float32


def test_a_real_gradient_of_a_complex_parameter() -> None:
    """The decay sees the imaginary part."""
    tx = gradtx.chain(gradtx.add_decayed_weights(1.0), gradtx.sgd(1.0))
    found = update(tx, {"w": jnp.array([1.0])}, {"w": jnp.array([2.0 + 3.0j])})
    np.testing.assert_allclose(found["w"], [-3.0 - 3.0j])


@pytest.mark.parametrize("run", [update, stepped])
@pytest.mark.parametrize(
    ("grads", "text"),
    [
        (
            {"w": jnp.ones(2) * 1j},
            "gradient at 'w' is c64[2], its parameter f32[2]: a real parameter has a real "
            "gradient, pass its real part",
        ),
        (
            {"w": np.zeros(2, jax.dtypes.float0)},
            "gradient at 'w' is float0[2], the gradient of an integer, its parameter f32[2]: pass "
            "an array of floats, or None where there is no gradient",
        ),
        (
            {"w": "up"},
            "gradient at 'w' is a str, its parameter f32[2]: pass an array of floats, or None "
            "where there is no gradient",
        ),
        (
            {"w": jnp.ones(3, int)},
            "gradient at 'w' has shape (3,), its parameter (2,): pass the parameters that the "
            "gradients were taken with respect to",
        ),
        (
            None,
            "the gradients of {name} are None: pass a tree like the parameters; an empty tree is "
            "{{}}",
        ),
    ],
)
def test_what_no_gradient_is(run: Callable[..., Any], grads: Any, text: str) -> None:
    for tx in (TX, gradtx.adam(0.1), gradtx.guard(gradtx.adam(0.1)), gradtx.lookahead(TX, 2, 0.5)):
        with pytest.raises(StructureError) as caught:
            run(tx, grads, PARAMS)
        assert str(caught.value) == text.format(name=tx.name)


def test_none_in_the_place_of_a_tree() -> None:
    """None stands for one array without a gradient, not for several."""
    params = {"a": PARAMS, "b": jnp.ones(1)}
    with pytest.raises(StructureError) as caught:
        update(TX, {"a": None, "b": jnp.ones(1)}, params)
    assert str(caught.value) == (
        "gradient at 'a' is None, and the parameters have 'a/w' there: pass a tree like the "
        "parameters, with None for each array that has no gradient"
    )
    found = update(TX, {"a": {"w": None}, "b": jnp.ones(1)}, params)
    assert found["a"] == {"w": None}
    assert update(TX, {}, {}) == {} and update(TX, {"a": None}, {"a": {}}) == {"a": None}


def test_floats_beside_an_integer() -> None:
    with pytest.raises(StructureError) as caught:
        update(TX, {"n": jnp.ones(2)}, {"n": jnp.ones(2, jnp.int32)})
    assert str(caught.value) == (
        "gradient at 'n' is f32[2], its parameter i32[2], which no rule changes: pass None there, "
        "or the parameters that the gradients belong to"
    )


def test_integers_without_parameters() -> None:
    """Beside floats nobody knows whether they belong to one; those of `jax.grad`, float0, never."""
    both = {**PARAMS, "x": jnp.ones(2)}
    with pytest.raises(MissingParamsError) as caught:
        TX.update({"w": jnp.array([1, 2]), "x": jnp.ones(2)}, TX.init(both))
    assert str(caught.value) == (
        "gradient at 'w' is i32[2], and only its parameter says whether it is a number to train: "
        "call update(grads, state, params), or cast it to floats"
    )
    with pytest.raises(MissingParamsError, match="add_decayed_weights needs the parameters"):
        decayed = gradtx.add_decayed_weights(0.1)
        decayed.update({"n": jnp.array(1), "w": jnp.ones(2)}, decayed.init(PARAMS))
    grads = {"n": np.zeros(2, jax.dtypes.float0), "w": jnp.ones(2)}
    updates, _ = TX.update(grads, TX.init({**PARAMS, "n": jnp.ones(2, jnp.int32)}))
    assert updates["n"] is grads["n"]


@pytest.mark.parametrize("run", [jax.jit, lambda function: function], ids=["jit", "eager"])
def test_integers_alone_are_computed_in_floats(run: Any) -> None:
    """No leaf can belong to a parameter that is left alone: nothing would be trained."""
    tx = gradtx.chain(gradtx.clip(1.5), gradtx.sgd(0.5, momentum=0.9))
    grads, floats = {"w": jnp.array([1, 2]), "x": None}, {"w": jnp.array([1.0, 2.0]), "x": None}
    state = tx.init(PARAMS | {"x": None})
    found, right = run(tx.update)(grads, state)[0], tx.update(floats, state)[0]
    assert found["x"] is None
    np.testing.assert_array_equal(found["w"], right["w"])


def test_gradients_per_example_may_be_integers() -> None:
    tx = gradtx.differentially_private_aggregate(10.0, 0.0, jax.random.key(0))
    found = update(tx, {"w": jnp.array([[1, 2], [3, 4]])}, PARAMS)
    np.testing.assert_allclose(found["w"], [2.0, 3.0], rtol=1e-6)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_updates_that_are_no_floats(rounding: Any) -> None:
    """`apply_updates` adds integers, and refuses what is not of the parameter's kind."""

    def apply(update: Any) -> Any:
        return gradtx.apply_updates(PARAMS, {"w": update}, rounding, step=1)["w"]

    assert apply(jnp.array([1, 2])).tolist() == [2.0, 3.0]
    assert apply(jnp.array([1, 2])).dtype == jnp.float32
    with pytest.raises(GradtxError) as caught:
        apply(jnp.ones(2) * 1j)
    assert str(caught.value) == (
        "update at 'w' is c64[2], its parameter f32[2]: a real parameter has a real update, pass "
        "its real part"
    )
