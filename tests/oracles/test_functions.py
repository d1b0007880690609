"""Every public function beside its float64 reference, beside Optax, and by finite differences."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from tests.functions import FUNCTIONS
from tests.functions.row import Case, Function
from tests.support.functions import called, cast, deviations, differ

DOUBLE = 1e-12  # some thousand roundings of float64
DIFFERENCE = 1e-5  # of a central difference of float64 with steps of 1e-5
CASES = [(name, case) for name, row in FUNCTIONS.items() for case in row.cases]
each_case = pytest.mark.parametrize(("name", "case"), CASES)


def jitted(row: Function):
    return jax.jit(row.call, static_argnames=row.static) if row.static else jax.jit(row.call)


@each_case
def test_the_float64_reference(name, case):
    found = deviations(name, case)
    assert found.wide <= DOUBLE and found.narrow <= FUNCTIONS[name].single


@each_case
def test_jit_computes_what_eager_computes(name, case):
    row = FUNCTIONS[name]
    eager = called(row.call, row, row.cases[case], jnp.float32)
    assert differ(called(jitted(row), row, row.cases[case], jnp.float32), eager) <= row.single


@pytest.mark.parametrize(
    ("name", "case"), [(name, case) for name, case in CASES if FUNCTIONS[name].peer]
)
def test_optax_computes_the_same(name, case):
    found = deviations(name, case).optax
    assert found is not None and found <= DOUBLE


def weighted_sum(results: Any) -> Any:
    """One number of all results, each entry with a weight of its own."""
    weights = [jnp.cos(jnp.arange(jnp.size(leaf))) for leaf in jax.tree.leaves(results)]
    return sum(
        jnp.vdot(weight, jnp.real(leaf).ravel())
        for weight, leaf in zip(weights, map(jnp.asarray, jax.tree.leaves(results)), strict=True)
    )


def slopes(row: Function, case: Case, position: int) -> tuple[Any, Any]:
    """The derivative along one direction, by JAX and by a central difference."""
    args, kwargs = cast((case.args, dict(case.kwargs)), jnp.float64)

    def value(point):
        return weighted_sum(row.call(*args[:position], point, *args[position + 1 :], **kwargs))

    point = args[position]
    direction = jax.tree.map(lambda x: jnp.sin(1.0 + jnp.arange(x.size)).reshape(x.shape), point)
    forth, back = (
        jax.tree.map(lambda x, d, t=t: x + t * d, point, direction) for t in (1e-5, -1e-5)
    )
    products = jax.tree.map(lambda g, d: jnp.sum(g * d), jax.grad(value)(point), direction)
    return sum(jax.tree.leaves(products)), (value(forth) - value(back)) / 2e-5


@pytest.mark.parametrize(
    ("name", "case"), [(name, case) for name, case in CASES if FUNCTIONS[name].differentiable]
)
def test_gradients_are_those_of_finite_differences(name, case):
    row = FUNCTIONS[name]
    with jax.enable_x64(True):
        for position in row.differentiable:
            gradient, difference = slopes(row, row.cases[case], position)
            assert abs(gradient - difference) <= DIFFERENCE * max(1.0, abs(difference))
