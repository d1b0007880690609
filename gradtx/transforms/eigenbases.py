r"""What SOAP and its kin keep and do: moments in the eigenbases of the Kronecker factors of a
matrix, which turn from time to time.

G' = Q_Lᵀ G Q_R   the matrix in the bases,   G = Q_L G' Q_Rᵀ   back again
At the turn of a matrix:   Q ← qr(A Q) with its columns in order,   M' ← Q_newᵀ (Q_old M' Q_oldᵀ) Q_new,   squares in the same order

Functions see matrices (..., n, m), each for itself; a side without a factor has None in the place
of every matrix of its own."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.matrixwise import where_due
from gradtx.linalg import Factors, eigenbasis, factor_sides, multiply_sides, refresh_eigenbasis
from gradtx.linalg.newton_schulz import adjoint
from gradtx.tree.arithmetic import abs_sq
from gradtx.tree.casts import compute_dtype, real_dtype


class Held(NamedTuple):
    """What turns with the bases, or is put in their order: the momentum, squares, and numbers along
    each side.
    """

    bases: Factors
    mu: jax.Array
    nu: jax.Array | None
    values: Factors


NONE = Factors(None, None)


def kept_sides(shape: tuple[int, ...], max_dim: int, one_sided: bool) -> tuple[bool, bool]:
    """Which sides have a factor; neither where one of them is 1, since the entries of a vector need
    no rotation to be told apart.
    """
    return (
        (False, False)
        if min(shape[-2:]) <= 1
        else factor_sides(shape, max_dim, one_sided=one_sided)
    )


def zero_factors(param: Any, sides: tuple[bool, bool]) -> Factors:
    """A square matrix of zeros for each side that has one."""
    return Factors(
        *(
            jnp.zeros((*param.shape[:-2], n, n), compute_dtype(param.dtype)) if has else None
            for n, has in zip(param.shape[-2:], sides)
        )
    )


def identities(param: Any, sides: tuple[bool, bool]) -> Factors:
    """An identity for each side that has one."""
    return Factors(
        *(
            None if zeros is None else zeros + identity(zeros)
            for zeros in zero_factors(param, sides)
        )
    )


def identity(like: jax.Array) -> jax.Array:
    """The identity for every matrix of a batch."""
    return jnp.broadcast_to(jnp.eye(like.shape[-1], dtype=like.dtype), like.shape)


def zero_values(param: Any, sides: tuple[bool, bool]) -> Factors:
    """A real number for every eigenvector of each side that has a basis."""
    return Factors(
        *(
            jnp.zeros((*param.shape[:-2], n), real_dtype(param.dtype)) if has else None
            for n, has in zip(param.shape[-2:], sides)
        )
    )


def any_side(factors: Factors) -> jax.Array | None:
    return factors.left if factors.left is not None else factors.right


def unused(factors: Factors, batch: int) -> jax.Array:
    """For every matrix of a batch of so many axes, whether its factors are still zero: no gradient
    but zero came so far.
    """
    factor = any_side(factors)
    assert factor is not None
    diagonal = jnp.diagonal(factor, axis1=-2, axis2=-1)
    return jnp.all(diagonal == 0, axis=tuple(range(batch, diagonal.ndim)))


def is_turn(step: jax.Array, refresh_offset: jax.Array, refresh_every: int) -> jax.Array:
    """Whether it is the turn of each matrix."""
    return (step.astype(jnp.int32) + refresh_offset) % refresh_every == 0


def rotated(bases: Factors, x: jax.Array) -> jax.Array:
    """Q_Lᵀ X Q_R."""
    return multiply_sides(None if bases.left is None else adjoint(bases.left), x, bases.right)


def restored(bases: Factors, x: jax.Array) -> jax.Array:
    """Q_L X Q_Rᵀ."""
    return multiply_sides(bases.left, x, None if bases.right is None else adjoint(bases.right))


def turn(begins: jax.Array, due: jax.Array, factors: Factors, held: Held) -> Held:
    """Bases by eigenvectors for matrices whose first gradient came, a refresh for those whose turn
    it is; others do not pay.
    """
    return where_due(begins | due, _turn_of_one, (begins, factors, held), held)


def _turn_of_one(begins: jax.Array, factors: Factors, held: Held) -> Held:
    return jax.lax.cond(begins, _begun, _refreshed, factors, held)


def _begun(factors: Factors, old: Held) -> Held:
    """Of one matrix; its squares are still zero, or not kept."""
    bases = Factors(*(None if factor is None else eigenbasis(factor) for factor in factors))
    values = Factors(
        *(
            None if value is None else _diagonal(q, factor)
            for value, q, factor in zip(old.values, bases, factors)
        )
    )
    return Held(bases, rotated(bases, restored(old.bases, old.mu)), old.nu, values)


def _diagonal(basis: Any, factor: Any) -> jax.Array:
    """diag(Qᵀ A Q)."""
    return jnp.real(jnp.sum(basis.conj() * jnp.matmul(factor, basis, precision="highest"), axis=-2))


def _refreshed(factors: Factors, old: Held) -> Held:
    """Of one matrix."""
    (left, rows), (right, columns) = (
        _turned(factor, basis) for factor, basis in zip(factors, old.bases)
    )
    bases = Factors(left, right)
    nu = old.nu
    if nu is not None and rows is not None:
        nu = nu[rows, :]
    if nu is not None and columns is not None:
        nu = nu[:, columns]
    values = Factors(
        *(
            None if value is None else value[order]
            for value, order in zip(old.values, (rows, columns))
        )
    )
    return Held(bases, rotated(bases, restored(old.bases, old.mu)), nu, values)


def _turned(factor: jax.Array | None, basis: jax.Array | None) -> tuple[Any, Any]:
    return (None, None) if factor is None or basis is None else refresh_eigenbasis(factor, basis)


def per_matrix(told: jax.Array) -> jax.Array:
    """What is told for every matrix, against its entries."""
    return told[..., None, None]


def squared_size(x: jax.Array) -> jax.Array:
    """‖X‖_F² of every matrix, (..., 1, 1)."""
    return jnp.sum(abs_sq(x), axis=(-2, -1), keepdims=True)


def of_size(x: jax.Array, like: jax.Array) -> jax.Array:
    """X with the Frobenius norm of another matrix: X ‖Y‖/‖X‖; 0 where X is."""
    size = squared_size(x)
    return x * jnp.where(size == 0, 0, jnp.sqrt(squared_size(like) / jnp.where(size == 0, 1, size)))
