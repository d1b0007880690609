r"""Hyperball: any direction as a step of fixed angle on the sphere where a matrix began.

R = ‖θ0‖,   θ ← R nrm( θ − η R nrm(u) ),   nrm(x) = x / ‖x‖

Norms are Frobenius norms, and every matrix has a sphere of its own.
"""

from typing import Unpack

from gradtx.compose.chain import chain
from gradtx.compose.matrixwise import matrixwise
from gradtx.compose.over_axes import AxisFlags, apply_axis_flags
from gradtx.compose.transformation import (
    GradientTransformation,
    TransformationLike,
    as_transformation,
    definition,
)
from gradtx.definition.errors import HyperparamError
from gradtx.definition.leaves import known_number
from gradtx.definition.types import Hyperparam
from gradtx.transforms.flags import MatrixFlags
from gradtx.transforms.radius import RadiusForm, current_radius, init_radius
from gradtx.tree.arithmetic import matrix_norm, over_norm


class SphereFlags(MatrixFlags, AxisFlags, total=False):
    """How an array is divided into matrices, and over which mesh axes their norms run."""


def _hyperball(grad, slots, param, step, *, learning_rate, radius: RadiusForm):
    length = current_radius(slots, param, radius)
    moved = param - learning_rate * length * over_norm(grad, matrix_norm(grad))
    return length * over_norm(moved, matrix_norm(moved)) - param, slots


def _check_direction(inner: GradientTransformation) -> None:
    """Raise where a direction brings a rate or a decay, which the sphere would turn to nothing."""
    for bound in inner.rules:
        for name, value in bound.hyperparams.items():
            is_decay = name.startswith("weight_decay")
            if name == "learning_rate" or (is_decay and known_number(value) != 0):
                raise HyperparamError(
                    f"hyperball: inner = {inner!r} has {name} of its own, and a sphere takes the "
                    f"direction alone: give a direction such as scale_by_adam(), without "
                    f"learning rate and weight decay"
                )


@definition
def hyperball(
    inner: TransformationLike,
    learning_rate: Hyperparam,
    radius: RadiusForm = "initial",
    **flags: Unpack[SphereFlags],
) -> GradientTransformation:
    r"""Hyperball: steps of a fixed angle for every matrix, with a constant norm.

    θ ← R nrm(θ − η R nrm(u)), R = ‖θ0‖. u is the direction of `inner`, nrm(x) = x / ‖x‖ with the
    Frobenius norm of each matrix (..., n, m) by itself: of each layer of a stack, each expert, and
    each head where `dimensions` cut an array so. Vectors are matrices of one row. Where u is
    perpendicular to θ, the step turns θ by arctan η.

    When: in place of weight decay, for matrices in front of a normalisation: η, the angle of a
    step, transfers between widths. When not: biases and scales, whose norm matters; embeddings;
    matrices that begin at zero, which have no sphere.

    Put it last in a chain: it makes the step itself. Weight decay would only change the length that
    the sphere restores, so a direction that brings it is an error.

    Args:
      inner: computes the direction, without learning rate and weight decay.
      learning_rate: η, radians per step; √(η λ) of a run with weight decay is a start, 0.003 to
        0.03.
      radius: R. "initial": the norm at `init`, which does not drift, in low precision neither.
        "current": the norm before each step, without state; rounding adds up, and a matrix at 0
        stays there. A number > 0, for all matrices alike: the first step takes each to that sphere.
      dimensions: which axes of an array are inputs, outputs and batches, as in `matrixwise`:
        `[("qkv", "in out/3")]` gives queries, keys and values a norm each.
      shard: mesh axes to spread matrices over, as in `matrixwise`. None: matrices stay where they
        are, and only the sums of their squares cross between devices.
      axis_names: the mesh axes that cut the arrays inside `shard_map` and `pmap`; see `over_axes`.

    Raises:
      HyperparamError: a radius that is not above 0; a direction with a learning rate or a decay.
      StructureError: with "initial", a matrix of norm 0 at `init`, where its values are known;
        under `jax.jit` it stays at 0.
      MissingParamsError: `update` is called without parameters.

    State: that of `inner`, and with "initial" 4 bytes per matrix (R).

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array([[3.0, 4.0]])
    >>> tx = gradtx.hyperball(gradtx.identity(), 0.1)
    >>> updates, _ = tx.update(jnp.array([[-40.0, 30.0]]), tx.init(w), w)
    >>> round(float(jnp.linalg.norm(w + updates)), 4), round(float(jnp.linalg.norm(updates)), 2)
    (5.0, 0.5)

    See also: `muonh`, `adamh`, `retract`.

    Wen et al. 2026, arXiv 2606.16899, Algorithm 1.
    """
    member = as_transformation(inner)
    _check_direction(member)
    rule = matrixwise(
        init_radius if radius == "initial" else None,
        _hyperball,
        vectors="rows",
        needs_params=True,
        dimensions=flags.get("dimensions"),
        # Norms need no whole matrices: by default nothing but their squares crosses devices.
        shard=flags.get("shard") or False,
    )
    return apply_axis_flags(chain(member, rule), flags)
