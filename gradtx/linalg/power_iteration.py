r"""Power iteration: the eigenvalue of the largest size, and its eigenvector.

z ← A v₀;   v ← z / ‖z‖,   z ← A v,   λ ← v̄ · z     until ‖z − λ v‖ ≤ τ |λ|
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.definition.errors import HyperparamError, StructureError
from gradtx.definition.types import ArrayLike
from gradtx.linalg.checks import squares
from gradtx.tree.algebra import add_scale, scale
from gradtx.tree.casts import compute_dtype, real_dtype
from gradtx.tree.dtypes import cast
from gradtx.tree.reductions import norm, vdot


class _Power(NamedTuple):
    """The iteration: the image of the last vector, and its part along that vector."""

    step: jax.Array
    image: Any
    value: jax.Array
    active: jax.Array


def power_iteration(
    matrix: ArrayLike | Callable[[Any], Any],
    *,
    v0: Any = None,
    num_iters: ArrayLike = 100,
    error_tolerance: ArrayLike = 1e-6,
    precision: Any = jax.lax.Precision.HIGHEST,
    key: jax.Array | None = None,
) -> tuple[jax.Array, Any]:
    """Power iteration for the dominant eigenvalue of a matrix, or of a linear function of trees.

    v ← A v / ‖A v‖ and λ = v̄ · A v, until ‖A v − λ v‖ ≤ τ |λ|. Arithmetic is float32 at least. A
    zero matrix has λ = 0 and the vector 0.

    When: the sharpness of a loss, by its Hessian-vector product; the spectral norm of a
    symmetric matrix. When not: two eigenvalues have the same size, as ±1 have: it does not
    converge.

    Args:
      matrix: A, (n, n), or a function v ↦ A v of a tree.
      v0: the first vector, (n,), or a tree like the argument of the function; None: uniform in
        [−1, 1], for a matrix.
      num_iters: the largest number of steps.
      error_tolerance: τ.
      precision: precision of the products on accelerators.
      key: random key for `v0`; None: `jax.random.PRNGKey(0)`.

    Returns: the eigenvalue, and the eigenvector of norm 1, a vector or a tree.

    Raises:
      HyperparamError: a function without `v0`.
      StructureError: not a square matrix, integers, or a `v0` of another length.

    >>> import jax, jax.numpy as jnp
    >>> from gradtx.linalg.power_iteration import power_iteration
    >>> value, vector = power_iteration(jnp.array([[2.0, 1.0], [1.0, 2.0]]))
    >>> round(value.item(), 4), jnp.abs(vector).round(3).tolist()
    (3.0, [0.7070000171661377, 0.7070000171661377])
    >>> loss = lambda x: x[0] ** 2 + 3 * x[1] ** 2
    >>> hvp = lambda v: jax.jvp(jax.grad(loss), (jnp.zeros(2),), (v,))[1]
    >>> round(power_iteration(hvp, v0=jnp.ones(2))[0].item(), 3)
    6.0

    See also: `gradtx.linalg.eigenbasis`.

    Golub and Van Loan 2013, Matrix Computations, section 7.3.
    """
    if callable(matrix):
        if v0 is None:
            raise HyperparamError(
                "power_iteration: matrix is a function and v0 is None; give v0, a tree like its "
                "argument"
            )
        multiply, start = matrix, v0
    else:
        multiply, start = _matrix_product(matrix, precision), _start(matrix, v0, key)
    wide = jax.tree.map(lambda leaf: jnp.asarray(leaf).astype(_wide(leaf)), start)
    value, vector = _iterate(multiply, wide, num_iters, error_tolerance)
    if callable(matrix):
        return value, vector
    dtype = jnp.asarray(matrix).dtype
    return value.astype(dtype), cast(vector, dtype)


def _wide(leaf: Any) -> Any:
    return compute_dtype(jnp.result_type(leaf))


def _matrix_product(matrix: Any, precision: Any) -> Callable[[Any], Any]:
    array = squares("power_iteration", matrix)
    if array.ndim != 2:
        raise StructureError(
            f"power_iteration: the argument has shape {array.shape}; give one matrix, and jax.vmap "
            "for more"
        )
    precise = array.astype(compute_dtype(array.dtype))
    return lambda vector: jnp.matmul(precise, vector, precision=precision)


def _start(matrix: Any, v0: Any, key: jax.Array | None) -> jax.Array:
    array = jnp.asarray(matrix)
    dtype, shape = compute_dtype(array.dtype), array.shape[:1]
    if v0 is None:
        key = jax.random.PRNGKey(0) if key is None else key
        vector = jax.random.uniform(key, shape, real_dtype(dtype), -1.0, 1.0)
        return vector.astype(dtype)
    if jnp.shape(v0) != shape:
        raise StructureError(
            f"power_iteration: v0 has shape {jnp.shape(v0)}, the matrix {array.shape}; v0 must be "
            f"{shape}"
        )
    return jnp.asarray(v0).astype(dtype)


def _iterate(
    multiply: Callable[[Any], Any], start: Any, num_iters: ArrayLike, tolerance: ArrayLike
) -> tuple[jax.Array, Any]:
    def advance(old: _Power) -> _Power:
        vector = _unit(old.image)
        image = multiply(vector)
        value = vdot(vector, image)
        residual = norm(add_scale(image, -value, vector))
        bound = jnp.asarray(tolerance).astype(residual.dtype) * jnp.abs(value)
        return _Power(old.step + 1, image, value, residual > bound)

    image = multiply(start)
    value = jax.tree.map(jnp.zeros_like, vdot(start, image))
    first = _Power(jnp.zeros((), jnp.int32), image, value, jnp.ones((), bool))
    last = jax.lax.while_loop(lambda one: one.active & (one.step < num_iters), advance, first)
    return last.value, _unit(last.image)


def _unit(tree: Any) -> Any:
    """A tree divided by its norm; 0 stays 0."""
    length = norm(tree)
    return scale(1 / jnp.where(length > 0, length, 1), tree)
