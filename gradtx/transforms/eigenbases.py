r"""Moments in the eigenbases of the Kronecker factors of a matrix: the parts of SOAP and its kin.

G' = Q_Lᵀ G Q_R   the matrix in the bases,   G = Q_L G' Q_Rᵀ   back again
At the refresh of a matrix:   Q ← qr(A Q) with its columns in order,
M' ← Q_newᵀ (Q_old M' Q_oldᵀ) Q_new,   squares in the same order

Functions receive matrices (..., n, m) and treat each by itself. A side without a factor has None in
the place of its square matrices.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Generic, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp

from gradtx.compose.matrixwise import where_due
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import Default
from gradtx.linalg import Factors, eigenbasis, factor_sides, multiply_sides, refresh_eigenbasis
from gradtx.linalg.newton_schulz import adjoint
from gradtx.transforms.flags import MatrixFlags
from gradtx.transforms.kernel_moments import Taps
from gradtx.transforms.moments import average, buffers_of, counted, debias, with_buffers
from gradtx.transforms.momentum_kernel import MomentumKernel
from gradtx.tree.arithmetic import abs_sq, sqrt
from gradtx.tree.casts import compute_dtype, real_zeros_along, zeros_along


class BasisFlags(MatrixFlags, total=False):
    """The keyword arguments that SOAP and its kin share."""

    refresh_every: Annotated[int, Default(10)]
    max_dim: Annotated[int, Default(10_000)]
    one_sided: Annotated[bool, Default(False)]


Nu = TypeVar("Nu", bound=jax.Array | None)


class Rotating(NamedTuple, Generic[Nu]):
    """The bases, and the numbers that a refresh rotates or reorders.

    These are the momentum, the squares (None where a method has none), and one number per
    eigenvector.
    """

    bases: Factors
    mu: Any
    """An array, or the buffers of a momentum kernel."""
    nu: Nu
    values: Factors


class MomentsInBasis(Protocol):
    """Slots with both moments of Adam."""

    @property
    def mu(self) -> Any: ...

    # An array wherever Adam runs; a method without Adam's matrices has None for matrices.
    @property
    def nu(self) -> Any: ...


class Shaped(Protocol):
    """Anything with a shape and a dtype."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...


NO_SIDES = Factors(None, None)


def check_rotates(where: str, momentum: MomentumKernel | None) -> None:
    """Raise where a kernel keeps single gradients, whose rotation would cost more than the rest."""
    if momentum is not None and isinstance(momentum.form.like, Taps):
        raise HyperparamError(
            f"{where}: momentum = {momentum!r} keeps a ring of gradients, which no refresh of the "
            f"bases can rotate: take a sum of averages, k_maxwell() for instance"
        )


def zero_where(condition: jax.Array, moment: Any) -> Any:
    """A moment with zeros where a condition on its matrices holds."""
    arrays = jax.tree.map(
        lambda array: jnp.where(per_matrix(condition), 0, array), buffers_of(moment)
    )
    return with_buffers(moment, arrays)


def check_max_dim(where: str, flags: Mapping[str, Any]) -> None:
    """Raise when the longest axis is not a positive whole number."""
    max_dim = flags["max_dim"]
    if max_dim < 1:
        raise HyperparamError(
            f"{where}: max_dim = {max_dim!r} is not a length of an axis; give a whole number from "
            "1 on"
        )


def choose_sides(shape: tuple[int, ...], max_dim: int, one_sided: bool) -> tuple[bool, bool]:
    """Which sides have a factor; neither where one side is 1."""
    # The entries of a vector are its coordinates already: Adam needs no rotation there.
    if min(shape[-2:]) <= 1:
        return False, False
    return factor_sides(shape, max_dim, one_sided=one_sided)


def zero_factors(
    param: Shaped, sides: tuple[bool, bool], blocks: tuple[int, ...] | None = None
) -> Factors:
    """A square matrix of zeros for each side with a factor, of each block where there are some."""
    *batch, rows, columns = _axes_of_blocks(param.shape, blocks)
    shape, dtype = param.shape if blocks is None else blocks, compute_dtype(param.dtype)
    left, right = (
        zeros_along(param, (*shape[:-2], n, n), dtype, (*batch, axis, None)) if has_factor else None
        for n, axis, has_factor in zip(shape[-2:], (rows, columns), sides, strict=True)
    )
    return Factors(left, right)


def _axes_of_blocks(shape: tuple[int, ...], blocks: tuple[int, ...] | None) -> list[int | None]:
    """For each axis of the blocks of a matrix the axis of the matrix that it is cut as."""
    axes: list[int | None] = list(range(len(shape)))
    if blocks is None or len(blocks) == len(shape):
        return axes
    # Of an axis in several blocks the devices share the blocks, of another its entries.
    *batch, rows, columns = axes
    grid = [
        axis if count > 1 else None
        for axis, count in zip((rows, columns), blocks[-4:-2], strict=True)
    ]
    inside = [
        axis if place is None else None for axis, place in zip((rows, columns), grid, strict=True)
    ]
    return [*batch, *grid, *inside]


def identities(
    param: Shaped, sides: tuple[bool, bool], blocks: tuple[int, ...] | None = None
) -> Factors:
    """An identity for each side with a factor, of each block where there are some."""
    left, right = zero_factors(param, sides, blocks)
    # Added to the zeros, so that it is cut as they are.
    return Factors(
        None if left is None else left + identity(left),
        None if right is None else right + identity(right),
    )


def identity(like: jax.Array) -> jax.Array:
    """The identity for every matrix of a batch."""
    return jnp.broadcast_to(jnp.eye(like.shape[-1], dtype=like.dtype), like.shape)


def zero_values(param: Shaped, sides: tuple[bool, bool]) -> Factors:
    """A real number for every eigenvector of each side with a basis."""
    *batch, rows, columns = range(len(param.shape))
    left, right = (
        real_zeros_along(param, (*batch, axis)) if has_factor else None
        for axis, has_factor in zip((rows, columns), sides, strict=True)
    )
    return Factors(left, right)


def has_factors(factors: Factors) -> bool:
    """Whether a matrix has a factor on any side."""
    return factors.left is not None or factors.right is not None


def all_zero(factors: Factors, batch: int) -> jax.Array:
    """Whether the factors of each matrix are zero: all its gradients were zero so far.

    `batch` is the number of batch axes.
    """
    factor = factors.right if factors.left is None else factors.left
    # The diagonal is enough: that of G Gᵀ is zero only where G is.
    diagonal = jnp.diagonal(jnp.asarray(factor), axis1=-2, axis2=-1)
    # Blocks of one matrix have axes of their own after the batch.
    return jnp.all(diagonal == 0, axis=tuple(range(batch, diagonal.ndim)))


def is_refresh_step(step: jax.Array, refresh_offset: jax.Array, refresh_every: int) -> jax.Array:
    """Whether each matrix has its refresh at this step."""
    return (step.astype(jnp.int32) + refresh_offset) % refresh_every == 0


def rotate(bases: Factors, x: jax.Array) -> jax.Array:
    """Q_Lᵀ X Q_R."""
    return multiply_sides(None if bases.left is None else adjoint(bases.left), x, bases.right)


def rotate_back(bases: Factors, x: jax.Array) -> jax.Array:
    """Q_L X Q_Rᵀ."""
    return multiply_sides(bases.left, x, None if bases.right is None else adjoint(bases.right))


def refresh_bases(
    is_first: jax.Array, is_due: jax.Array, factors: Factors, state: Rotating[Nu]
) -> Rotating[Nu]:
    """Compute the eigenvectors of new matrices, and refresh those that are due.

    A matrix is new at its first gradient that is not zero. Other matrices cost nothing.
    """
    return where_due(is_first | is_due, _refresh_one, (is_first, factors, state), state)


def _refresh_one(is_first: jax.Array, factors: Factors, state: Rotating[Any]) -> Rotating[Any]:
    return jax.lax.cond(is_first, _first_bases, _next_bases, factors, state)


def _first_bases(factors: Factors, state: Rotating[Any]) -> Rotating[Any]:
    """The eigenvectors of one matrix."""
    # Its squares are zero at this step, so they have no order to change.
    bases = Factors(*(None if factor is None else eigenbasis(factor) for factor in factors))
    values = Factors(
        *(
            None if value is None else _eigenvalues(basis, factor)
            for value, basis, factor in zip(state.values, bases, factors, strict=True)
        )
    )
    return Rotating(bases, _rotated(bases, state), state.nu, values)


def _eigenvalues(basis, factor) -> jax.Array:
    """diag(Qᵀ A Q)."""
    # Full precision: rounded products of accelerators would make small eigenvalues negative.
    return jnp.real(jnp.sum(basis.conj() * jnp.matmul(factor, basis, precision="highest"), axis=-2))


def _next_bases(factors: Factors, state: Rotating[Any]) -> Rotating[Any]:
    """One step of power iteration for one matrix, and its numbers in the new order."""
    (left, rows), (right, columns) = (
        (None, None) if factor is None or basis is None else refresh_eigenbasis(factor, basis)
        for factor, basis in zip(factors, state.bases, strict=True)
    )
    bases, nu = Factors(left, right), state.nu
    if nu is not None and rows is not None:
        nu = nu[rows, :]
    if nu is not None and columns is not None:
        nu = nu[:, columns]
    values = Factors(
        *(
            None if value is None else value[order]
            for value, order in zip(state.values, (rows, columns), strict=True)
        )
    )
    return Rotating(bases, _rotated(bases, state), nu, values)


def _rotated(bases: Factors, state: Rotating[Any]) -> Any:
    """The momentum in new bases; each buffer of a momentum kernel."""
    return jax.tree.map(lambda mu: rotate(bases, rotate_back(state.bases, mu)), state.mu)


def adam_direction(
    grad: jax.Array,
    slots: MomentsInBasis,
    step: jax.Array,
    b1: jax.Array,
    b2: jax.Array,
    eps: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Adam's direction and both moments, in any basis."""
    mu, nu = average(counted(slots.mu, step), grad, b1), average(slots.nu, abs_sq(grad), b2)
    return debias(mu, b1, step) / (sqrt(debias(nu, b2, step)) + eps), mu, nu


def per_matrix(numbers: jax.Array) -> jax.Array:
    """Numbers per matrix, (...,), in the shape (..., 1, 1) that broadcasts over entries."""
    return numbers[..., None, None]


def squared_size(x: jax.Array) -> jax.Array:
    """‖X‖_F² of every matrix, (..., 1, 1)."""
    return jnp.sum(abs_sq(x), axis=(-2, -1), keepdims=True)


def match_size(x: jax.Array, like: jax.Array) -> jax.Array:
    """X with the Frobenius norm of another matrix: X ‖Y‖/‖X‖; 0 where X is 0."""
    size = squared_size(x)
    # The inner `where` keeps the division, and its derivative, finite where X is 0.
    return x * jnp.where(size == 0, 0, sqrt(squared_size(like) / jnp.where(size == 0, 1, size)))
