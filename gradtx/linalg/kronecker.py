r"""Kronecker factors: the second moments of a matrix, E[vec G vec Gᵀ] ≈ L ⊗ R, as one small square
matrix per axis.

L ← β L + w G Gᵀ   (n × n),   R ← β R + w Gᵀ G   (m × m),   w = 1 − β for an average
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.definition.errors import HyperparamError, StructureError
from gradtx.definition.types import ArrayLike
from gradtx.linalg.checks import matrices
from gradtx.linalg.newton_schulz import adjoint
from gradtx.tree import casts
from gradtx.tree.arithmetic import where_summable


class Factors(NamedTuple):
    """A square matrix for the rows and one for the columns; None where an axis has none."""

    left: jax.Array | None
    right: jax.Array | None


def factor_sides(
    shape: tuple[int, ...], max_dim: int = 10_000, *, one_sided: bool = False
) -> tuple[bool, bool]:
    """Choose the sides of a matrix that get a Kronecker factor: (rows, columns).

    They are the sides of at most `max_dim`, or the shorter of them alone.

    When: Shampoo and SOAP; the factor of an axis of 50 000 would have 2.5e9 entries. One side alone
    costs a third or less. When not: every axis is short.

    Args:
      shape: shape of the matrix, or of a batch of them; the last two axes count.
      max_dim: the longest axis with a factor; 1024 to 10 000.
      one_sided: only the shorter axis, the rows where both are equal.

    >>> from gradtx.linalg import factor_sides
    >>> factor_sides((768, 50257)), factor_sides((768, 3072))
    ((True, False), (True, True))
    >>> factor_sides((768, 3072), one_sided=True)
    (True, False)

    See also: `kronecker_factors`, `split_blocks`.

    Vyas and others 2024, SOAP, arXiv 2409.11321, section 7.
    """
    if len(shape) < 2:
        raise StructureError(f"factor_sides: shape = {shape} is not that of a matrix")
    if max_dim < 1:
        raise HyperparamError(f"factor_sides: max_dim = {max_dim!r} is below 1")
    rows, columns = shape[-2:]
    left, right = rows <= max_dim, columns <= max_dim
    return (
        left and not (one_sided and columns < rows),
        right and not (one_sided and rows <= columns),
    )


def kronecker_factors(x: ArrayLike, sides: tuple[bool, bool] = (True, True)) -> Factors:
    """The two Gram matrices of a matrix: L = X Xᵀ and R = Xᵀ X.

    X is (..., n, m), a batch of matrices; arithmetic and result are float32 at least.

    When: the statistics of Shampoo, SOAP and their kin. When not: the factors are averaged;
    `update_factors` does both.

    Args:
      x: X, real or complex.
      sides: which of the two, as `factor_sides` chooses; the other is None.

    Raises:
      StructureError: fewer than two axes, or integers.

    >>> import jax.numpy as jnp
    >>> from gradtx.linalg import kronecker_factors
    >>> left, right = kronecker_factors(jnp.array([[1.0, 2.0, 0.0]]))
    >>> left.tolist(), right.tolist()
    ([[5.0]], [[1.0, 2.0, 0.0], [2.0, 4.0, 0.0], [0.0, 0.0, 0.0]])

    See also: `update_factors`, `inverse_root`, `eigenbasis`.

    Gupta, Koren and Singer 2018, arXiv 1802.09568, section 3.
    """
    array = matrices("kronecker_factors", x)
    array = array.astype(casts.compute_dtype(array.dtype))
    return Factors(
        array @ adjoint(array) if sides[0] else None, adjoint(array) @ array if sides[1] else None
    )


def update_factors(
    factors: Factors, x: ArrayLike, decay: ArrayLike, weight: ArrayLike | None = None
) -> Factors:
    """One step of the average, or sum, of both Kronecker factors.

    L ← β L + w X Xᵀ, R ← β R + w Xᵀ X. A factor stays as it was where squares of X overflow, and
    where X is not finite.

    When: at every step of Shampoo, SOAP and their kin. When not: an average without the bias of its
    start at zero; divide by 1 − βᵗ.

    Args:
      factors: L and R; None stays None, and each factor keeps its dtype.
      x: X, (..., n, m).
      decay: β in [0, 1]; 0.95 to 0.999; 1 forgets nothing.
      weight: w; None is 1 − β; 1 with decay = 1 gives the sum of Shampoo's paper.

    Raises:
      StructureError: fewer than two axes, or factors of other shapes.

    >>> import jax.numpy as jnp
    >>> from gradtx.linalg import Factors, update_factors
    >>> update_factors(Factors(jnp.ones((1, 1)), None), jnp.array([[2.0, 0.0]]), decay=0.5)
    Factors(left=Array([[2.5]], dtype=float32), right=None)

    See also: `kronecker_factors`.
    """
    new = kronecker_factors(x, (factors.left is not None, factors.right is not None))
    # `decay` is any kind of scalar; a Python number must stay one, or 1 − β loses digits.
    share = 1 - decay if weight is None else weight  # pyright: ignore[reportOperatorIssue]
    return Factors(
        *(
            _blend(name, old, new, decay, share)
            for name, old, new in zip(Factors._fields, factors, new)
        )
    )


def _blend(
    name: str, old: jax.Array | None, new: jax.Array | None, decay: ArrayLike, weight: ArrayLike
) -> jax.Array | None:
    if old is None or new is None:
        return None
    if old.shape != new.shape:
        raise StructureError(
            f"update_factors: the {name} factor has shape {old.shape}, that of the new matrix "
            f"{new.shape}"
        )
    # A bfloat16 factor is added in float32, and rounded once.
    dtype = casts.widest(old.dtype, new.dtype)
    blended = jnp.asarray(decay * old.astype(dtype) + weight * new.astype(dtype)).astype(old.dtype)
    return where_summable(blended, old, 2)


def multiply_sides(left: ArrayLike | None, x: ArrayLike, right: ArrayLike | None) -> jax.Array:
    """Multiply a matrix from both sides: L X R, where None is the identity.

    X is (..., n, m), L is (..., n, n), R is (..., m, m); arithmetic is float32 at least, the result
    has the dtype of X.

    When: to apply inverse roots, L^(−1/4) G R^(−1/4), or to change the basis, Q_Lᵀ G Q_R. When not:
    no side is None; write `l @ x @ r`.

    Args:
      left: L, or None.
      x: X.
      right: R, or None.

    Raises:
      StructureError: fewer than two axes, or integers.

    >>> import jax.numpy as jnp
    >>> from gradtx.linalg import multiply_sides
    >>> multiply_sides(2 * jnp.eye(1), jnp.array([[1.0, 3.0]]), None).tolist()
    [[2.0, 6.0]]

    See also: `inverse_root`, `eigenbasis`.
    """
    array = matrices("multiply_sides", x)
    result = array.astype(casts.compute_dtype(array.dtype))
    if left is not None:
        result = jnp.asarray(left).astype(result.dtype) @ result
    if right is not None:
        result = result @ jnp.asarray(right).astype(result.dtype)
    return result.astype(array.dtype)
