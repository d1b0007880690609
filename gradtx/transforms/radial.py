r"""The radial part of a direction, and the norm of a matrix after a step.

⟨u, θ⟩ / ‖θ‖² θ      the part of u along θ, which changes the norm; the rest turns θ

Norms are Frobenius norms, one for each matrix.
"""

from typing import Annotated, Any, Literal, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.matrixwise import matrixwise
from gradtx.compose.over_axes import apply_axis_flags
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.errors import HyperparamError
from gradtx.definition.leaves import known_number
from gradtx.definition.types import Check, Fraction
from gradtx.transforms.flags import NormFlags
from gradtx.transforms.radius import check_form, current_radius, init_radius
from gradtx.tree.arithmetic import matrix_dot, matrix_norm, over_norm


def _check_target(where: str, radius: Any) -> None:
    check_form(where, radius, ("initial", "current", "first_order"))


TargetForm = Annotated[Literal["initial", "current", "first_order"] | float, Check(_check_target)]
"""A radius, or the norm that a step gives to first order. Static."""


def _radial_brake(grad, slots: None, param, step, *, outward, inward):
    share = over_norm(matrix_dot(grad, param), matrix_dot(param, param))
    # θ − η u grows where ⟨u, θ⟩ < 0.
    factor = jnp.where(share < 0, outward, inward)
    return grad - (1 - factor) * share * param, slots


@definition
def radial_brake(
    outward: Fraction = 0.5, inward: Fraction = 1.0, **flags: Unpack[NormFlags]
) -> GradientTransformation:
    r"""Radial brake: halve the part of a direction that makes a matrix grow.

    u ← u − (1 − b) c θ, c = ⟨u, θ⟩ / ‖θ‖². b is `outward` where c < 0, so that the step θ − η u
    grows the norm, and `inward` elsewhere. u and θ are (..., n, m), and each matrix has a c of its
    own. With both at 0 what is left of u is tangential: it only turns θ.

    When: behind the direction and before the learning rate, for matrices in front of a
    normalisation, whose norm else grows step by step and slows the rotation. When not: on a sphere,
    as in `hyperball`, which takes the radial part away.

    Args:
      outward: b in [0, 1] for the part that grows the norm; 0.5.
      inward: b in [0, 1] for the part that shrinks it; 1.
      dimensions: which axes of an array are inputs, outputs and batches, as in `matrixwise`.
        Vectors are matrices of one row.
      axis_names: the mesh axes that cut the arrays inside `shard_map` and `pmap`; see `over_axes`.

    Raises:
      HyperparamError: a factor outside of [0, 1].
      MissingParamsError: `update` is called without parameters.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array([[1.0, 0.0]])
    >>> tx = gradtx.radial_brake()
    >>> def braked(u):
    ...     return tx.update(jnp.array([u]), tx.init(w), w)[0].tolist()
    >>> braked([-1.0, 1.0]), braked([1.0, 1.0])  # a step out, and a step in
    ([[-0.5, 1.0]], [[1.0, 1.0]])

    See also: `retract`, `update_floor`.

    KellerJordan/modded-nanogpt, track 3, record 46, the split of the tangent.
    """
    rule = matrixwise(
        None,
        _radial_brake,
        vectors="rows",
        needs_params=True,
        shard=False,
        dimensions=flags.get("dimensions"),
    )
    return apply_axis_flags(rule, flags)


def _retract(grad, slots, param, step, *, radius: TargetForm, outward, inward):
    moved = param + grad
    norms = matrix_norm(moved)
    target = _target(grad, slots, param, radius)
    growth = norms - target
    target = target + jnp.where(growth > 0, outward, inward) * growth
    return target * over_norm(moved, norms) - param, slots


def _target(grad: jax.Array, slots: Any, param: jax.Array, radius: TargetForm) -> jax.Array:
    """The norm that a matrix is to have after the step, (..., 1, 1)."""
    if radius != "first_order":
        return current_radius(slots, param, radius)
    norms = matrix_norm(param)
    # A step that crosses the origin has no such norm.
    return jnp.maximum(norms + over_norm(matrix_dot(grad, param), norms), 0)


@definition
def retract(
    radius: TargetForm = "initial",
    outward: Fraction = 0.0,
    inward: Fraction = 0.0,
    **flags: Unpack[NormFlags],
) -> GradientTransformation:
    r"""Retract each step to a norm: θ + u ← R' nrm(θ + u), with a norm R' for every matrix.

    nrm(x) = x / ‖x‖ with the Frobenius norm of each matrix (..., n, m) by itself; u is the step,
    behind the learning rate.

    =============  ==========================================================================
    radius         R'
    =============  ==========================================================================
    "initial"      ‖θ0‖, the norm at `init`
    "current"      ‖θ‖ + s (‖θ + u‖ − ‖θ‖), s = `outward` for growth, `inward` for shrinkage
    "first_order"  ‖θ‖ + ⟨u, θ⟩ / ‖θ‖, the norm without what a tangential step adds to it
    a number       that number
    =============  ==========================================================================

    When: last in a chain, for steps of any length on a sphere ("initial"), for a brake on growing
    norms ("current" with `outward=0.5, inward=1.0`), or behind `radial_brake` ("first_order").
    When not: steps are to have a fixed angle; take `hyperball`.

    Args:
      radius: R', as in the table. Static.
      outward: s in [0, 1] for growth, with "current" alone; 0 keeps the norm, 1 lets it grow.
      inward: s in [0, 1] for shrinkage, with "current" alone.
      dimensions: which axes of an array are inputs, outputs and batches, as in `matrixwise`.
        Vectors are matrices of one row.
      axis_names: the mesh axes that cut the arrays inside `shard_map` and `pmap`; see `over_axes`.

    Raises:
      HyperparamError: a radius that is not above 0; a factor outside of [0, 1], or beside another
        radius than "current".
      StructureError: with "initial", a matrix of norm 0 at `init`, where its values are known.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per matrix with "initial", else 0.

    >>> import gradtx, jax.numpy as jnp
    >>> w, u = jnp.array([[3.0, 0.0]]), jnp.array([[0.0, 4.0]])
    >>> def after(*args):
    ...     tx = gradtx.retract(*args)
    ...     return round(float(jnp.linalg.norm(w + tx.update(u, tx.init(w), w)[0])), 3)
    >>> after(), after("current", 0.5), after("first_order"), after(10.0)
    (3.0, 4.0, 3.0, 10.0)

    See also: `hyperball`, `radial_brake`, `decay_after`.

    KellerJordan/modded-nanogpt, track 3, record 46, for "first_order"; NVIDIA Emerging-Optimizers
    for "current" with factors.
    """
    shares = map(known_number, (outward, inward))
    if radius != "current" and any(isinstance(one, int | float) and one != 0 for one in shares):
        raise HyperparamError(
            f"retract: outward = {outward!r} and inward = {inward!r} are shares of a change from "
            f"the current norm, and radius = {radius!r}: give radius='current'"
        )
    rule = matrixwise(
        init_radius if radius == "initial" else None,
        _retract,
        vectors="rows",
        needs_params=True,
        shard=False,
        dimensions=flags.get("dimensions"),
    )
    return apply_axis_flags(rule, flags)
