"""Power iteration, inverse p-th roots and non-negative least squares: corners and bad input."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import nnls as exact_nnls

import gradtx
from gradtx.linalg.newton_root import matrix_inverse_pth_root
from gradtx.linalg.nnls import nnls
from gradtx.linalg.power_iteration import power_iteration

A = jnp.array([[2.0, 1.0], [1.0, 3.0]])
OPTAX: Any = optax
OURS = {one.__name__: one for one in (power_iteration, matrix_inverse_pth_root, nnls)}


@pytest.mark.parametrize("name", OURS)
def test_arguments_are_those_of_optax(name: str) -> None:
    ours, theirs = (inspect.signature(one) for one in (OURS[name], getattr(optax, name)))
    assert [(p.name, p.default, p.kind) for p in ours.parameters.values()] == [
        (p.name, p.default, p.kind) for p in theirs.parameters.values()
    ]


@pytest.mark.parametrize("tolerance", [1.0, 0.2, 0.05, 1e-3, 1e-6])
def test_power_iteration_ends_where_optax_ends(tolerance: float) -> None:
    starts: list[Any] = [{"v0": jnp.array([1.0, 0.0])}, {}, {"key": jax.random.key(5)}]
    for kwargs in starts:
        ours, theirs = (
            f(A, error_tolerance=tolerance, **kwargs)
            for f in (power_iteration, OPTAX.power_iteration)
        )
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, other, rtol=2e-6)


def test_power_iteration_of_functions_of_trees_and_other_dtypes() -> None:
    value, vector = power_iteration(lambda v: {"a": A @ v["a"]}, v0={"a": jnp.ones(2)})
    np.testing.assert_allclose(A @ vector["a"], value * vector["a"], rtol=1e-4)
    half, column = power_iteration(A.astype(jnp.bfloat16))
    assert half.dtype == column.dtype == jnp.bfloat16 and abs(half - 3.618) < 0.01
    hermitian = jnp.array([[2.0, 1j], [-1j, 3.0]])
    value, vector = power_iteration(hermitian)
    np.testing.assert_allclose(value, (5 + 5**0.5) / 2, rtol=1e-5)
    np.testing.assert_allclose(hermitian @ vector, value * vector, rtol=1e-4)
    value, vector = power_iteration(jnp.zeros((2, 2)))
    assert value == 0 and vector.tolist() == [0.0, 0.0]
    assert jnp.isnan(power_iteration(jnp.full((2, 2), jnp.nan))[0])


def test_roots_of_traced_p_of_scales_and_corners() -> None:
    for p in (1, 2, 3, 4, 5):
        root, error = jax.jit(matrix_inverse_pth_root)(A, p)
        np.testing.assert_allclose(root, matrix_inverse_pth_root(A, p)[0], rtol=1e-5)
        power = jnp.linalg.matrix_power(root, p) @ A
        np.testing.assert_allclose(power, jnp.eye(2), atol=3e-5)
        assert error <= 1e-6
    for scale in (1e30, 1e-30):  # Optax has nan here
        root, _ = matrix_inverse_pth_root(scale * A, 2)
        right = matrix_inverse_pth_root(A, 2)[0] * scale**-0.5
        np.testing.assert_allclose(root, right, rtol=1e-4)
    assert not matrix_inverse_pth_root(jnp.zeros((3, 3)), 4)[0].any()
    np.testing.assert_allclose(
        matrix_inverse_pth_root(jnp.array([[4.0]]), 2)[0], [[0.5]], rtol=1e-5
    )
    assert matrix_inverse_pth_root(A.astype(jnp.bfloat16), 2)[0].dtype == jnp.bfloat16
    few, error = matrix_inverse_pth_root(A, 2, num_iters=1)
    theirs = optax.matrix_inverse_pth_root(A, 2, num_iters=1)
    np.testing.assert_allclose(error, theirs[1], rtol=1e-5)
    np.testing.assert_allclose(few, theirs[0], rtol=1e-5)


def test_nnls_reaches_the_exact_solution() -> None:
    rng = np.random.default_rng(0)
    for _ in range(3):
        matrix, target = rng.normal(size=(8, 4)), rng.normal(size=8)
        right = exact_nnls(matrix, target)[0]
        found = nnls(matrix, target, 3000)
        np.testing.assert_allclose(found, right, atol=1e-5)
        assert (found >= 0).all()
    assert nnls(jnp.zeros((3, 2)), jnp.ones(3), 5).tolist() == [0.0, 0.0]
    assert nnls(A.astype(jnp.bfloat16), jnp.ones(2, jnp.bfloat16), 3).dtype == jnp.bfloat16
    assert nnls(jnp.eye(2, dtype=int), jnp.array([1, -1]), 50).round(3).tolist() == [1.0, 0.0]
    np.testing.assert_allclose(nnls(A, A[0], 9, unroll=True), nnls(A, A[0], 9), rtol=1e-6)


BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "not square": (lambda: power_iteration(jnp.ones((2, 3))), gradtx.StructureError, "not square"),
    "a stack": (
        lambda: power_iteration(jnp.ones((4, 2, 2))),
        gradtx.StructureError,
        r"power_iteration: .*\(4, 2, 2\); give one matrix, and jax.vmap",
    ),
    "integers": (lambda: power_iteration(jnp.eye(2, dtype=int)), gradtx.StructureError, "int32"),
    "v0": (
        lambda: power_iteration(A, v0=jnp.ones(3)),
        gradtx.StructureError,
        r"v0 has shape \(3,\), the matrix \(2, 2\); v0 must be \(2,\)",
    ),
    "no v0": (
        lambda: power_iteration(lambda v: v),
        gradtx.HyperparamError,
        "matrix is a function and v0 is None; give v0",
    ),
    "p of 0": (
        lambda: matrix_inverse_pth_root(A, 0),
        gradtx.HyperparamError,
        "p = 0 must be a whole number, 1 or more",
    ),
    "p of 2.5": (
        lambda: matrix_inverse_pth_root(A, 2.5),
        gradtx.HyperparamError,
        "p = 2.5 must be a whole number, 1 or more",
    ),
    "root of no square": (
        lambda: matrix_inverse_pth_root(jnp.ones((2, 3)), 2),
        gradtx.StructureError,
        r"matrix_inverse_pth_root: .*\(2, 3\), which is not square",
    ),
    "root of a stack": (
        lambda: matrix_inverse_pth_root(jnp.ones((4, 2, 2)), 2),
        gradtx.StructureError,
        "give one matrix, and jax.vmap for more",
    ),
    "b": (
        lambda: nnls(A, jnp.ones(3), 5),
        gradtx.StructureError,
        r"nnls: A has shape \(2, 2\) and b \(3,\); give \(M, N\) and \(M,\) or \(M, K\)",
    ),
    "A of three axes": (
        lambda: nnls(jnp.ones((2, 2, 2)), jnp.ones(2), 5),
        gradtx.StructureError,
        r"nnls: A has shape \(2, 2, 2\)",
    ),
    "iters": (lambda: nnls(A, A[0], -1), gradtx.HyperparamError, "iters = -1 must be 0 or more"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()


def test_all_work_under_strict_promotion() -> None:
    def run() -> Any:
        return (
            power_iteration(A, error_tolerance=jnp.float32(1e-6)),
            jax.jit(matrix_inverse_pth_root)(A, jnp.int32(3), ridge_epsilon=jnp.float32(1e-6)),
            nnls(A, A[0], 5, L=jnp.float32(30.0)),
        )

    standard = run()
    with jax.numpy_dtype_promotion("strict"):
        strict = run()
    for one, other in zip(jax.tree.leaves(strict), jax.tree.leaves(standard), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
