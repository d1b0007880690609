"""`jax.numpy_dtype_promotion("strict")`: every transformation, wrapper and storage runs there, and
traces the program of standard promotion: so the numbers are the same to the bit.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import gradtx
from gradtx.definition import errors
from gradtx.testing.laws import numbers
from gradtx.testing.problems import extras, gradients
from tests.methods import METHODS
from tests.support.meshes import parameters
from tests.support.pairs import MAKERS
from tests.support.wrappers import WRAPPERS

TX = gradtx.GradientTransformation


def constant(count: Any, *, value: float) -> jax.Array:
    """A schedule whose value is no weak type: strict promotion casts nothing to or from it."""
    return jnp.full(jnp.shape(count), value, float)


def scheduled(tx: TX) -> TX:
    """The definition with every number as a schedule."""
    values = numbers(tx).items()
    return gradtx.replace(tx, **{n: functools.partial(constant, value=v) for n, v in values})


def program(tx: TX, params: Any, promotion: str) -> str:
    """The program of `init` and a step, as text."""
    with jax.numpy_dtype_promotion(promotion):
        grads = gradients(params)
        step = functools.partial(tx.update, **extras(tx, params, grads))
        state, shapes = jax.make_jaxpr(tx.init, return_shape=True)(params)
        return f"{state}\n{jax.make_jaxpr(step)(grads, shapes, params)}"


def assert_same_program(tx: TX, params: Any) -> None:
    assert program(tx, params, "strict") == program(tx, params, "standard")


@pytest.mark.parametrize("name", MAKERS)
def test_every_method_under_strict_promotion(name: str) -> None:
    for dtype in (jnp.float32, jnp.bfloat16):
        assert_same_program(METHODS[name].tx, parameters(dtype))


@pytest.mark.parametrize("name", MAKERS)
def test_every_method_with_schedules_under_strict_promotion(name: str) -> None:
    assert_same_program(scheduled(METHODS[name].tx), parameters(jnp.bfloat16))


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_every_wrapper_and_storage_under_strict_promotion(wrapper: str) -> None:
    tree = {**parameters(jnp.bfloat16), "wide": jnp.ones((4, 8)), "step": jnp.asarray(3)}
    for tx in (gradtx.adamw(1e-3), gradtx.muon(1e-2)):
        for one in (WRAPPERS[wrapper](tx), scheduled(WRAPPERS[wrapper](tx))):
            assert_same_program(one, tree)


@pytest.mark.parametrize("name", MAKERS)
def test_complex_arrays_under_strict_promotion(name: str) -> None:
    """Real numbers times complex arrays are meant; a rule for real arrays refuses as ever."""
    tree = {"z": jnp.ones((4, 8), jnp.complex64), "w": jnp.ones((4, 8))}
    try:
        expected = step_types(METHODS[name].tx, tree, "standard")
    except errors.GradtxError as error:
        with pytest.raises(type(error)):
            step_types(METHODS[name].tx, tree, "strict")
        return
    assert step_types(METHODS[name].tx, tree, "strict") == expected


def step_types(tx: TX, params: Any, promotion: str) -> Any:
    """The types of updates and state after a step."""
    with jax.numpy_dtype_promotion(promotion):
        grads = gradients(params)
        step = functools.partial(tx.update, **extras(tx, params, grads))
        shapes = jax.eval_shape(step, grads, jax.eval_shape(tx.init, params), params)
        return jax.tree.map(jax.typeof, shapes)


def test_strict_promotion_in_float64() -> None:
    """Leaves of several precisions, and schedules in the widest."""
    with jax.enable_x64(True):
        tree = {**parameters(jnp.float32), "wide": jnp.ones((4, 8), jnp.float64)}
        for name in ("adamw", "clip_by_global_norm", "lbfgs", "prodigy", "polyak_sgd", "zclip"):
            assert_same_program(scheduled(METHODS[name].tx), tree)


@pytest.mark.parametrize("name", MAKERS)
def test_every_method_under_strict_promotion_in_float64(name: str) -> None:
    """What a rule makes in float32, as random numbers, meets parameters in float64."""
    with jax.enable_x64(True):
        assert_same_program(METHODS[name].tx, parameters(jnp.float64))
