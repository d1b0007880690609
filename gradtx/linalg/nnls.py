r"""Non-negative least squares by the fast projected gradient method.

x ← max(y − (AᵀA y − Aᵀb) / L, 0),   t' = (1 + √(1 + 4 t²)) / 2,   y ← x + (t − 1) / t' (x − x_old)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.definition.errors import HyperparamError, StructureError
from gradtx.definition.types import ArrayLike
from gradtx.tree.casts import compute_dtype, widest


class _Point(NamedTuple):
    """The iteration: the solution so far, the point of the next gradient, and the weight t."""

    x: jax.Array
    y: jax.Array
    t: jax.Array


def nnls(
    A: ArrayLike, b: ArrayLike, iters: int, unroll: int | bool = 1, L: ArrayLike | None = None
) -> jax.Array:
    """Non-negative least squares: minimize ‖A x − b‖ with x ≥ 0.

    Accelerated projected gradient steps of length 1 / L. Arithmetic is float32 at least, and
    products have full precision. The objective falls as 1 / k² in the number of steps; the result
    is differentiable.

    When: mixtures and calibration within a program. When not: a few exact solutions on the host;
    `scipy.optimize.nnls` ends at the exact face.

    Args:
      A: A, (M, N).
      b: b, (M,), or (M, K) for K problems.
      iters: the number of steps, at least 0; 100 to 10,000.
      unroll: steps in one iteration of the loop, as in `jax.lax.scan`.
      L: a bound of the largest eigenvalue of AᵀA; None: ‖AᵀA‖_F.

    Returns: x ≥ 0, (N,) or (N, K).

    Raises:
      StructureError: shapes that do not fit.
      HyperparamError: `iters` is below 0.

    >>> import jax.numpy as jnp
    >>> from gradtx.linalg.nnls import nnls
    >>> x = nnls(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([5.0, 6.0]), 1000)
    >>> x.round(3).tolist()  # the first unknown is 0 at best, the second 34 / 20
    [0.0, 1.7000000476837158]

    Polyak 2015, Projected gradient method for non-negative least square, Contemporary Mathematics
    636; the weights are those of Beck and Teboulle 2009, FISTA, equation 4.2.
    """
    matrix, target = jnp.asarray(A), jnp.asarray(b)
    _check(matrix, target, iters)
    dtype = widest(matrix.dtype, target.dtype)
    wide = compute_dtype(dtype)
    matrix, target = matrix.astype(wide), target.astype(wide)
    gram = jnp.matmul(matrix.mT, matrix, precision="highest")
    image = jnp.matmul(matrix.mT, target, precision="highest")
    bound = jnp.sqrt(jnp.sum(gram * gram)) if L is None else jnp.asarray(L).astype(wide)
    # A zero matrix has no gradient: any step length will do.
    length = 1 / jnp.where(bound > 0, bound, 1)

    def step(old: _Point, _: None) -> tuple[_Point, None]:
        grad = jnp.matmul(gram, old.y, precision="highest") - image
        x = jnp.maximum(old.y - length * grad, 0)
        t = (1 + jnp.sqrt(1 + 4 * old.t * old.t)) / 2
        return _Point(x, x + (old.t - 1) / t * (x - old.x), t), None

    start = jnp.zeros_like(image)
    last, _ = jax.lax.scan(
        step, _Point(start, start, jnp.zeros((), wide)), length=iters, unroll=unroll
    )
    return last.x.astype(wide if jnp.issubdtype(dtype, jnp.integer) else dtype)


def _check(matrix: jax.Array, target: jax.Array, iters: int) -> None:
    if matrix.ndim != 2 or target.ndim not in (1, 2) or target.shape[0] != matrix.shape[0]:
        raise StructureError(
            f"nnls: A has shape {matrix.shape} and b {target.shape}; give (M, N) and (M,) or (M, K)"
        )
    if iters < 0:
        raise HyperparamError(f"nnls: iters = {iters!r} must be 0 or more")
