r"""The radius of the sphere that a matrix stays on: its first norm, its current one, or a number.

Norms are Frobenius norms, one for each matrix: of a layer of a stack, a head, an expert.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from gradtx.definition.errors import HyperparamError, StructureError
from gradtx.definition.types import Check, Precise
from gradtx.tree.arithmetic import matrix_norm
from gradtx.tree.casts import compute_dtype, real_dtype


class Radius(NamedTuple):
    """The constant norm of each matrix."""

    radius: Precise


def check_radius(where: str, radius: Any) -> None:
    """Raise when a value is not the radius of a sphere."""
    check_form(where, radius, ("initial", "current"))


def check_form(where: str, radius: Any, forms: Sequence[str]) -> None:
    """Raise when a radius is neither one of some forms nor a number above 0."""
    is_number = isinstance(radius, int | float) and not isinstance(radius, bool)
    if not is_number and radius not in forms:
        raise HyperparamError(
            f"{where} = {radius!r} is unknown; choose one of {', '.join(map(repr, forms))}, or "
            f"give a number above 0"
        )
    if is_number and not 0 < radius < math.inf:
        raise HyperparamError(
            f"{where} = {radius!r} is outside its range (0, inf): give the norm of a matrix, or "
            f"'initial' for the norm at init"
        )


RadiusForm = Annotated[Literal["initial", "current"] | float, Check(check_radius)]
"""‖θ‖ at init, ‖θ‖ at each step, or a number > 0 for all matrices. Static."""


def init_radius(param: Any, *, path: str) -> Radius:
    """The norm of each matrix at the start."""
    # From shapes alone there is no norm to take.
    if isinstance(param, jax.ShapeDtypeStruct):
        return Radius(jnp.zeros(param.shape[:-2], real_dtype(param.dtype)))
    # The squares of float16 overflow, so the norm is taken in float32 at least.
    array = jnp.asarray(param).astype(compute_dtype(param.dtype))
    norms = matrix_norm(array)[..., 0, 0]
    if array.size:
        _check_norms(norms, path)
    return Radius(norms)


def _check_norms(norms: jax.Array, path: str) -> None:
    """Raise where the norm of a known matrix is 0: on a sphere of radius 0 it never moves."""
    if isinstance(norms, Tracer) or not norms.is_fully_addressable:
        return
    if bool(jnp.any(norms == 0)):
        raise StructureError(
            f"{path!r} holds a matrix of norm 0, and a sphere of radius 0 freezes it: start it "
            f"away from 0, give radius=<a number>, or leave it to another rule"
        )


def current_radius(slots: Any, param: jax.Array, radius: RadiusForm) -> jax.Array:
    """The radius of each matrix, (..., 1, 1)."""
    if radius == "initial":
        # The stored radius, not ‖θ‖: rounding would otherwise let the norm drift.
        return slots.radius[..., None, None]
    return matrix_norm(param) if radius == "current" else jnp.asarray(radius, param.real.dtype)
