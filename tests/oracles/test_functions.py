"""Every public function beside its float64 reference, beside Optax, and by finite differences."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.functions import FUNCTIONS
from tests.functions.row import Case, Function

DOUBLE = 1e-12  # some thousand roundings of float64
DIFFERENCE = 1e-5  # of a central difference of float64 with steps of 1e-5
CASES = [(name, case) for name, row in FUNCTIONS.items() for case in row.cases]
each_case = pytest.mark.parametrize(("name", "case"), CASES)


def cast(tree: Any, dtype: Any) -> Any:
    """The arrays of `tree`, the floats and complex numbers among them in a precision."""

    def leaf(value):
        if not isinstance(value, np.ndarray | np.generic):
            return value
        if np.issubdtype(value.dtype, np.complexfloating):
            return jnp.asarray(value, np.result_type(dtype, np.complex64))
        return jnp.asarray(value, dtype if np.issubdtype(value.dtype, np.floating) else None)

    return jax.tree.map(leaf, tree)


def called(function, row: Function, case: Case, dtype: Any) -> Any:
    args, kwargs = cast((case.args, dict(case.kwargs)), dtype)
    return function(*args, **kwargs)


def jitted(row: Function):
    return jax.jit(row.call, static_argnames=row.static) if row.static else jax.jit(row.call)


def differ(found: Any, right: Any) -> float:
    """The largest deviation, relative to the largest entry (at least 1e-3)."""
    assert jax.tree.structure(found) == jax.tree.structure(right)
    worst = 0.0
    leaves = [list(map(np.asarray, jax.tree.leaves(tree))) for tree in (found, right)]
    for ours, theirs in zip(*leaves, strict=True):
        assert ours.shape == theirs.shape
        if not np.issubdtype(theirs.dtype, np.inexact):
            np.testing.assert_array_equal(ours, theirs)
            continue
        finite = np.isfinite(theirs)
        np.testing.assert_array_equal(ours[~finite], theirs[~finite])
        size = max(1e-3, float(np.max(np.abs(theirs[finite]), initial=0.0)))
        gap = np.max(np.abs(ours[finite] - theirs[finite]), initial=0.0)
        worst = max(worst, float(gap) / size)
    return worst


@each_case
def test_the_float64_reference(name, case):
    row = FUNCTIONS[name]
    right = row.reference(*row.cases[case].args, **row.cases[case].kwargs)
    with jax.enable_x64(True):
        assert differ(called(row.call, row, row.cases[case], jnp.float64), right) <= DOUBLE
    assert differ(called(row.call, row, row.cases[case], jnp.float32), right) <= row.single


@each_case
def test_jit_computes_what_eager_computes(name, case):
    row = FUNCTIONS[name]
    eager = called(row.call, row, row.cases[case], jnp.float32)
    assert differ(called(jitted(row), row, row.cases[case], jnp.float32), eager) <= row.single


@pytest.mark.parametrize(
    ("name", "case"), [(name, case) for name, case in CASES if FUNCTIONS[name].peer]
)
def test_optax_computes_the_same(name, case):
    row = FUNCTIONS[name]
    assert row.peer is not None
    with jax.enable_x64(True):
        with jax.numpy_rank_promotion("allow"):
            right = called(row.peer, row, row.cases[case], jnp.float64)
        assert differ(called(row.call, row, row.cases[case], jnp.float64), right) <= DOUBLE


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
