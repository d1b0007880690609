r"""Steps in proportion to a matrix: a least size of an update, and a size equal to the matrix's.

floor       u ← max(1, ρ ‖θ‖ / ‖u‖) u
relative    u ← ‖θ‖ / ‖u‖ u

Norms are Frobenius norms, one for each matrix, or for each of its outputs.
"""

from typing import Literal, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.matrixwise import matrixwise
from gradtx.compose.over_axes import apply_axis_flags
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import NonNegative
from gradtx.transforms.flags import NormFlags
from gradtx.tree.arithmetic import abs_sq, matrix_norm, over_norm, sqrt

Per = Literal["matrix", "output"]


def _output_norm(matrix: jax.Array) -> jax.Array:
    """The norm of the weights of each output, (..., 1, m)."""
    return sqrt(jnp.sum(abs_sq(matrix), axis=-2, keepdims=True))


def _update_floor(grad, slots: None, param, step, *, ratio, per: Per):
    norms, least = matrix_norm(grad), ratio * matrix_norm(param)
    if per == "matrix":
        return jnp.maximum(1, over_norm(least, norms)) * grad, slots
    lifted = jnp.maximum(1, over_norm(ratio * _output_norm(param), _output_norm(grad))) * grad
    # The floor of the whole matrix sets its norm: that of the outputs only redistributes.
    return jnp.maximum(norms, least) * over_norm(lifted, matrix_norm(lifted)), slots


@definition
def update_floor(
    ratio: NonNegative = 0.35, *, per: Per = "matrix", **flags: Unpack[NormFlags]
) -> GradientTransformation:
    r"""Update floor: raise updates that are small beside their weights, u ← max(1, ρ ‖θ‖ / ‖u‖) u.

    u and θ are (..., n, m), with a Frobenius norm for each matrix. With per="output" each output i
    has a floor, u_i ← max(1, ρ ‖θ_i‖ / ‖u_i‖) u_i, and then the matrix is scaled to the norm
    max(‖u‖, ρ ‖θ‖) of before: a floor of outputs only redistributes the step among them.

    When: behind an orthogonalized direction and before the learning rate, for matrices in front of
    a normalisation: the rotation per step then has a least size, η ρ. When not: weights that are to
    stand still where their gradient vanishes. An update of 0 stays 0.

    Args:
      ratio: ρ ≥ 0, the least ratio of update and weight; 0.35 for matrices, 0.3825 for outputs;
        0: no floor.
      per: "matrix", or "output" for the weights of one output (a row of a layout (out, in)).
      dimensions: which axes of an array are inputs, outputs and batches, as in `matrixwise`.
        Vectors are matrices of one row.
      axis_names: the mesh axes that cut the arrays inside `shard_map` and `pmap`; see `over_axes`.

    Raises:
      HyperparamError: a negative ratio.
      MissingParamsError: `update` is called without parameters.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> w, u = jnp.array([[3.0, 4.0]]), jnp.array([[0.0, 0.25]])
    >>> tx = gradtx.update_floor(0.2)  # lifts ‖u‖ from 0.25 to 0.2 · 5
    >>> tx.update(u, tx.init(w), w)[0].tolist()
    [[0.0, 1.0]]

    See also: `relative_update`, `radial_brake`, `scale_by_trust_ratio`.

    KellerJordan/modded-nanogpt, track 3, record 46 for outputs; its pull request 275 for matrices.
    """
    rule = matrixwise(
        None,
        _update_floor,
        vectors="rows",
        needs_params=True,
        shard=False,
        dimensions=flags.get("dimensions"),
    )
    return apply_axis_flags(rule, flags)


def _relative_update(grad, slots: None, param, step):
    return matrix_norm(param) * over_norm(grad, matrix_norm(grad)), slots


@definition
def relative_update(**flags: Unpack[NormFlags]) -> GradientTransformation:
    r"""Relative update: give each update the norm of its weights, u ← ‖θ‖ / ‖u‖ u.

    u and θ are (..., n, m), with a Frobenius norm for each matrix. It is the step of `hyperball`
    without the return to the sphere: η is the size of a step relative to θ, and the norm may move.

    When: behind the direction, in front of weight decay and learning rate: η then has one meaning
    for all widths, and weight decay still sets the norm. When not: matrices that begin at zero,
    which stay there; take `scale_by_trust_ratio`, which leaves their updates alone.

    Args:
      dimensions: which axes of an array are inputs, outputs and batches, as in `matrixwise`.
        Vectors are matrices of one row.
      axis_names: the mesh axes that cut the arrays inside `shard_map` and `pmap`; see `over_axes`.

    Raises:
      MissingParamsError: `update` is called without parameters.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> w, u = jnp.array([[3.0, 4.0]]), jnp.array([[0.0, 0.1]])
    >>> tx = gradtx.descend(gradtx.relative_update(), 0.5)
    >>> tx.update(u, tx.init(w), w)[0].tolist()
    [[-0.0, -2.5]]

    See also: `hyperball`, `update_floor`.

    NVIDIA Emerging-Optimizers, the relative update of its hooks.
    """
    rule = matrixwise(
        None,
        _relative_update,
        vectors="rows",
        needs_params=True,
        shard=False,
        dimensions=flags.get("dimensions"),
    )
    return apply_axis_flags(rule, flags)
