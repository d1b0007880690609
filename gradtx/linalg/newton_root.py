r"""Newton's coupled iteration for inverse p-th roots: products of matrices alone.

z = (1 + p) / (2 ‖A‖_F),   H = z^(1/p) I,   N = z A
T = ((p + 1) I − N)/p,     H ← H T,   N ← Tᵖ N     until N is I; then H = A^(−1/p)
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from gradtx.definition.errors import HyperparamError, StructureError
from gradtx.definition.types import ArrayLike
from gradtx.linalg.checks import squares
from gradtx.linalg.power_iteration import power_iteration
from gradtx.tree.arithmetic import sqrt
from gradtx.tree.casts import compute_dtype, real_dtype

Precision = Any
"""A `jax.lax.Precision`, or its name."""
POWER_STEPS = 32
"""Steps of the power iteration for the largest eigenvalue. The ridge is a small part of it, so an
error of some percent does no harm.
"""
WORSE = 1.2
"""Growth of the residual that ends the iteration: from there on rounding dominates."""


class Stop(NamedTuple):
    """When the iteration ends."""

    steps: int | None
    max_steps: ArrayLike
    tolerance: ArrayLike


class Newton(NamedTuple):
    """The iteration; `active` is False once the residual is small, grows, or is nan."""

    step: jax.Array
    root: jax.Array
    rest: jax.Array
    residual: jax.Array
    active: jax.Array


def newton_root(a: jax.Array, p: Any, stop: Stop, precision: Precision = "highest") -> Newton:
    """Iterate for one positive definite matrix; p is a whole number, which may be traced.

    A zero matrix has the root 0.
    """
    advance = functools.partial(_advance, p, stop.tolerance, precision)
    state = _start(a, p, stop.tolerance)
    if stop.steps is not None:
        return jax.lax.fori_loop(0, stop.steps, lambda _, state: advance(state), state)
    return jax.lax.while_loop(
        lambda state: state.active & (state.step < stop.max_steps), advance, state
    )


def _start(a: jax.Array, p: Any, tolerance: ArrayLike) -> Newton:
    p = _as_float(p, a)
    norm = sqrt(jnp.sum(jnp.real(a * a.conj())))
    # The iteration converges for eigenvalues of N in (0, p + 1); this scale keeps them there.
    scale = (1 + p) / (2 * jnp.where(norm > 0, norm, 1))
    eye = jnp.eye(a.shape[-1], dtype=a.dtype)
    root = jnp.where(norm == 0, 0, scale ** (1 / p)).astype(norm.dtype) * eye
    rest = scale.astype(norm.dtype) * a
    residual = _residual(rest)
    # ~(... <= ...), not >: nan is active, so that it shows in the root.
    active = (norm != 0) & ~(residual <= tolerance)
    return Newton(jnp.zeros((), jnp.int32), root, rest, residual, active)


def _as_float(p: Any, a: jax.Array) -> Any:
    return p.astype(real_dtype(a.dtype)) if isinstance(p, Tracer) else p


def _residual(rest: jax.Array) -> jax.Array:
    """max |N − I|."""
    return jnp.max(jnp.abs(rest - jnp.eye(rest.shape[-1], dtype=rest.dtype)), initial=0)


def _advance(p: Any, tolerance: ArrayLike, precision: Precision, old: Newton) -> Newton:
    number = _as_float(p, old.rest)
    factor = ((number + 1) * jnp.eye(old.rest.shape[-1], dtype=old.rest.dtype) - old.rest) / number
    rest = product(power(factor, p, precision), old.rest, precision)
    residual = _residual(rest)
    step, active = old.step + 1, residual > tolerance
    new = Newton(step, product(old.root, factor, precision), rest, residual, active)
    # A residual that grows means that rounding dominates: the last root was the best one.
    is_better = ~(residual > WORSE * old.residual)
    end = old._replace(step=step, active=jnp.zeros((), bool))
    return jax.tree.map(lambda new, old: jnp.where(is_better, new, old), new, end)


def largest_eigenvalue(a: jax.Array) -> jax.Array:
    """The largest eigenvalue of one positive semi-definite matrix, in a fixed number of steps."""
    # The longest column has a part of the first eigenvector, unless the matrix is zero.
    lengths = jnp.sum(jnp.real(a * a.conj()), axis=0)

    def advance(_: int, vector: jax.Array) -> jax.Array:
        image = product(a, vector)
        length = sqrt(jnp.sum(jnp.real(image * image.conj())))
        return image / jnp.where(length > 0, length, 1)

    vector = jax.lax.fori_loop(0, POWER_STEPS, advance, a[:, jnp.argmax(lengths)])
    image = product(a, vector)
    return sqrt(jnp.sum(jnp.real(image * image.conj())))


def product(left: jax.Array, right: jax.Array, precision: Precision = "highest") -> jax.Array:
    """The product of two matrices."""
    # Accelerators would round float32 to bfloat16, and small eigenvalues would be lost.
    return jnp.matmul(left, right, precision=precision)


def power(a: jax.Array, exponent: Any, precision: Precision = "highest") -> jax.Array:
    """A multiplied by itself, by squaring; the exponent is 1 at least, and may be traced."""
    if isinstance(exponent, Tracer):
        return _power_by_loop(a, exponent, precision)
    # An odd exponent starts with A, an even one with A²: no product with the identity.
    while not exponent & 1:
        a, exponent = product(a, a, precision), exponent >> 1
    result = a
    while exponent > 1:
        a, exponent = product(a, a, precision), exponent >> 1
        if exponent & 1:
            result = product(result, a, precision)
    return result


def _power_by_loop(a: jax.Array, exponent: jax.Array, precision: Precision) -> jax.Array:
    def square(state: tuple[jax.Array, jax.Array, jax.Array]) -> Any:
        result, base, rest = state
        result = jnp.where(rest % 2 == 1, product(result, base, precision), result)
        return result, product(base, base, precision), rest // 2

    start = jnp.eye(a.shape[-1], dtype=a.dtype), a, exponent.astype(jnp.int32)
    return jax.lax.while_loop(lambda state: state[2] > 0, square, start)[0]


def matrix_inverse_pth_root(
    matrix: ArrayLike,
    p: ArrayLike,
    num_iters: ArrayLike = 100,
    ridge_epsilon: ArrayLike = 1e-6,
    error_tolerance: ArrayLike = 1e-6,
    precision: Precision = jax.lax.Precision.HIGHEST,
) -> tuple[jax.Array, jax.Array]:
    """The inverse p-th root of a positive semi-definite matrix, by Newton's coupled iteration.

    (A + ρ λ I)^(−1/p), with λ the largest eigenvalue of A, by power iteration. Arithmetic is
    float32 at least. The iteration ends once max |N − I| is small, or grows by a fifth: the root
    before is then the result. A zero matrix has the root 0, and so has a matrix within rounding of
    it.

    When: one matrix, and you want the error. When not: batches of matrices, gradients, or a
    condition number above 1e6; `gradtx.linalg.inverse_root` has both methods.

    Args:
      matrix: A, symmetric, (n, n).
      p: a whole number, 1 or more; it may be traced.
      num_iters: the largest number of steps.
      ridge_epsilon: ρ ≥ 0, in units of λ.
      error_tolerance: tolerance of max |N − I|, and of the power iteration.
      precision: precision of the products on accelerators.

    Returns: the root, in the dtype of A, and the last max |N − I|.

    Raises:
      HyperparamError: p is below 1, or not whole.
      StructureError: not a square matrix, or integers.

    >>> import jax.numpy as jnp
    >>> from gradtx.linalg.newton_root import matrix_inverse_pth_root
    >>> a = jnp.array([[5.0, 4.0], [4.0, 5.0]])  # eigenvalues 9 and 1
    >>> half, error = matrix_inverse_pth_root(a, 2, ridge_epsilon=0.0)
    >>> jnp.abs(half @ a @ half).round(3).tolist(), bool(error < 1e-6)
    ([[1.0, 0.0], [0.0, 1.0]], True)

    See also: `inverse_root`.

    Higham 2008, Functions of Matrices, equation 7.18; Guo and Higham 2006, A Schur-Newton method
    for the matrix p-th root.
    """
    array = single("matrix_inverse_pth_root", matrix)
    exponent = p if isinstance(p, Tracer) else _whole(p)
    precise = array.astype(compute_dtype(array.dtype))
    largest, _ = power_iteration(
        precise, num_iters=num_iters, error_tolerance=error_tolerance, precision=precision
    )
    # Divided by the largest entry: squares of large or small entries would leave the floats.
    size = jnp.max(jnp.abs(precise), initial=0)
    size = jnp.where(size > 0, size, 1)
    ridge = jnp.asarray(ridge_epsilon).astype(size.dtype) * (largest / size)
    shifted = precise / size + ridge * jnp.eye(array.shape[-1], dtype=precise.dtype)
    result = newton_root(shifted, exponent, Stop(None, num_iters, error_tolerance), precision)
    root = result.root * size ** (-1 / _as_float(exponent, size))
    return root.astype(array.dtype), jnp.where(jnp.any(precise != 0), result.residual, 0)


def single(where: str, a: ArrayLike) -> jax.Array:
    """Convert the argument to one square matrix, or raise."""
    array = squares(where, a)
    if array.ndim != 2:
        raise StructureError(
            f"{where}: the argument has shape {array.shape}; give one matrix, and jax.vmap for more"
        )
    return array


def _whole(p: Any) -> int:
    if not p >= 1 or p != int(p):
        raise HyperparamError(
            f"matrix_inverse_pth_root: p = {p!r} must be a whole number, 1 or more"
        )
    return int(p)
