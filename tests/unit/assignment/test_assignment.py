"""The Hungarian algorithm: least cost with ties, forbidden pairs, batches, and refusals."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

import gradtx
from gradtx.assignment import base_hungarian_algorithm, hungarian_algorithm

solve = jax.jit(hungarian_algorithm)


def least(cost):
    return cost[scipy.optimize.linear_sum_assignment(cost)].sum()


def checked(cost):
    """The cost of an assignment that uses no row and no column twice."""
    i, j = map(np.asarray, solve(jnp.asarray(cost)))
    assert i.tolist() == sorted(set(i.tolist())) and len(set(j.tolist())) == min(cost.shape)
    return cost[i, j].sum()


MATRICES = {
    "products": lambda n, m: np.outer(np.arange(1.0, n + 1), np.arange(1.0, m + 1)),
    "ties": lambda n, m: np.random.default_rng(0).integers(0, 3, (n, m)).astype(float),
    "equal": lambda n, m: np.ones((n, m)),
    "negative": lambda n, m: -np.random.default_rng(1).integers(0, 99, (n, m)).astype(float),
    "one column": lambda n, m: np.random.default_rng(2).integers(1, 9, (n, m)) - 9.0 * np.eye(1, m),
}


@pytest.mark.parametrize("kind", MATRICES)
@pytest.mark.parametrize("shape", [(12, 12), (12, 30), (30, 12)])
def test_the_cost_is_the_least(kind, shape):
    """Costs are integers, so that float32 is exact."""
    cost = MATRICES[kind](*shape)
    assert checked(cost) == least(cost)


@pytest.mark.parametrize("seed", range(6))
def test_later_paths_need_the_duals(seed):
    """Without duals a search is greedy, and fails in four of these six matrices."""
    cost = np.random.default_rng(seed).integers(0, 1000, (30, 30)).astype(float)
    assert checked(cost) == least(cost)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=12, max_size=12))
def test_no_permutation_is_cheaper(entries):
    cost = np.array(entries, float).reshape(3, 4)
    totals = [cost[range(3), order].sum() for order in itertools.permutations(range(4), 3)]
    assert checked(cost) == min(totals) == checked(cost.T)


def test_a_large_matrix_in_single_precision():
    cost = np.random.default_rng(3).uniform(size=(120, 150)).astype(np.float32)
    # 120 costs below 1, each with the rounding of some 100 sums of float32.
    assert abs(checked(cost) - least(cost.astype(np.float64))) < 120 * 100 * 6e-8


def test_batches_are_vmapped():
    costs = np.random.default_rng(4).integers(0, 99, (6, 5, 7)).astype(float)
    i, j = jax.vmap(hungarian_algorithm)(jnp.asarray(costs))
    assert i.shape == j.shape == (6, 5)
    for cost, rows, columns in zip(costs, np.asarray(i), np.asarray(j), strict=True):
        assert cost[rows, columns].sum() == least(cost)


def test_infinity_forbids_a_pair():
    cost = np.where(np.eye(6) + np.eye(6, k=1) + np.eye(6, k=-5) > 0, 1.0, np.inf)
    cost[0, 0] = np.inf  # now only the shifted diagonal is left
    i, j = hungarian_algorithm(cost)
    assert (j - i).tolist() == [1, 1, 1, 1, 1, -5]
    i, j = hungarian_algorithm(np.full((3, 3), np.inf))
    assert sorted(j.tolist()) == [0, 1, 2]


def test_costs_may_be_integers_or_narrow():
    cost = np.array([[8, 4, 7], [5, 2, 3], [9, 6, 7], [9, 4, 8]])
    for dtype in (np.int32, np.int8, jnp.bfloat16, np.float16, np.uint8):
        i, j = hungarian_algorithm(jnp.asarray(cost, dtype))
        assert cost[i, j].sum() == 15 and i.dtype == j.dtype == jnp.int32
    with jax.numpy_dtype_promotion("strict"):
        assert hungarian_algorithm(jnp.asarray(cost, jnp.bfloat16))[1].tolist() == [0, 2, 1]
    with jax.enable_x64(True):
        assert hungarian_algorithm(jnp.asarray(cost, jnp.float64))[1].dtype == jnp.int32


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_an_empty_matrix_has_no_pairs(shape):
    i, j = hungarian_algorithm(jnp.zeros(shape))
    assert i.shape == j.shape == (0,) and i.dtype == j.dtype == jnp.int32


def test_the_gradient_of_the_cost_is_the_assignment():
    cost = jnp.asarray(np.random.default_rng(5).normal(size=(4, 6)), jnp.float32)
    grads = jax.grad(lambda cost: cost[hungarian_algorithm(cost)].sum())(cost)
    assert grads.sum() == 4.0 and set(np.unique(grads)) == {0.0, 1.0}


@pytest.mark.parametrize("fault", [jnp.nan, -jnp.inf, jnp.inf])
def test_a_fault_in_a_program_ends(fault):
    for cost in (jnp.ones((3, 3)).at[1, 1].set(fault), jnp.full((3, 3), fault)):
        assert sorted(solve(cost)[1].tolist()) == [0, 1, 2]


def test_a_batch_is_cut_over_devices():
    """Within shard_map the loops carry values that vary over devices."""
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("data")
    costs = jnp.asarray(np.random.default_rng(6).normal(size=(3, 4, 5)))

    def columns(costs):
        return jax.vmap(hungarian_algorithm)(costs)[1]

    cut = jax.shard_map(columns, mesh=mesh, in_specs=spec, out_specs=spec)
    assert jax.jit(cut)(costs).tolist() == columns(costs).tolist()


REFUSALS = {
    r"^hungarian_algorithm: cost_matrix\[0, 1\] is nan: pass finite costs, or inf for a pair that "
    r"is forbidden$": lambda: hungarian_algorithm(jnp.array([[1.0, jnp.nan]])),
    r"^hungarian_algorithm: cost_matrix\[1, 0\] is -inf: pass finite costs": (
        lambda: hungarian_algorithm(np.array([[1.0], [-np.inf]]))
    ),
    r"^base_hungarian_algorithm: cost_matrix has shape \(2, 3, 3\), and must be a matrix: one row "
    r"for each worker, one column for each task; for a batch of matrices take jax.vmap$": (
        lambda: base_hungarian_algorithm(jnp.ones((2, 3, 3)))
    ),
    r"^hungarian_algorithm: cost_matrix has shape \(3,\), and must be a matrix": (
        lambda: jax.eval_shape(hungarian_algorithm, jnp.ones(3))
    ),
    r"^hungarian_algorithm: cost_matrix is complex64, and complex numbers have no order": (
        lambda: hungarian_algorithm(jnp.ones((3, 3), jnp.complex64))
    ),
}


@pytest.mark.parametrize("text", REFUSALS)
def test_costs_that_are_refused(text):
    with pytest.raises(gradtx.StructureError, match=text):
        REFUSALS[text]()
