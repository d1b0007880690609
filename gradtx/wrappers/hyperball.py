r"""Hyperball: any direction as a step of fixed angle on the sphere where a matrix began.

R = ‖θ0‖,   θ ← R nrm( θ − η R nrm(u) ),   nrm(x) = x / ‖x‖

Norms are Frobenius norms, and every matrix has a sphere of its own.
"""

from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.chain import chain
from gradtx.compose.matrixwise import matrixwise
from gradtx.compose.transformation import GradientTransformation, TransformationLike, definition
from gradtx.definition.types import Hyperparam, Precise
from gradtx.transforms.flags import MatrixFlags
from gradtx.tree.arithmetic import abs_sq, sqrt
from gradtx.tree.casts import compute_dtype, real_dtype


class Radius(NamedTuple):
    """The constant norm of each matrix."""

    radius: Precise


def _init(param) -> Radius:
    # From shapes alone there is no norm to take.
    if isinstance(param, jax.ShapeDtypeStruct):
        return Radius(jnp.zeros(param.shape[:-2], real_dtype(param.dtype)))
    # The squares of float16 overflow, so the norm is taken in float32 at least.
    array = jnp.asarray(param).astype(compute_dtype(param.dtype))
    return Radius(_norm(array)[..., 0, 0])


def _norm(x: jax.Array) -> jax.Array:
    return sqrt(jnp.sum(abs_sq(x), axis=(-2, -1), keepdims=True))


def _unit(x: jax.Array) -> jax.Array:
    """x / ‖x‖; 0 for 0."""
    norm = _norm(x)
    return x / jnp.where(norm == 0, 1.0, norm)


def _hyperball(grad, slots: Radius, param, step, *, learning_rate):
    # The stored radius, not ‖θ‖: rounding would otherwise let the norm drift.
    radius = slots.radius[..., None, None]
    return radius * _unit(param - learning_rate * radius * _unit(grad)) - param, slots


@definition
def hyperball(
    inner: TransformationLike,
    learning_rate: Hyperparam,
    **flags: Unpack[MatrixFlags],
) -> GradientTransformation:
    r"""Hyperball: steps of a fixed angle for every matrix, with a constant norm.

    θ ← R nrm(θ − η R nrm(u)), R = ‖θ0‖. u is the direction of `inner`, nrm(x) = x / ‖x‖ with the
    Frobenius norm of each matrix (..., n, m) by itself. Vectors are matrices of one row. A matrix
    that begins at zero stays there.

    When: in place of weight decay, for matrices in front of a normalisation: η, the angle of a
    step, transfers between widths. With `scale_by_muon` it is MuonH, with `scale_by_adam` AdamH.
    When not: biases and scales, whose norm matters; embeddings.

    Args:
      inner: computes the direction, without learning rate and weight decay.
      learning_rate: η, radians per step; √(η λ) of a run with weight decay is a start, 0.003 to
        0.03.
      dimensions: which axes of an array are inputs, outputs and batches, as in `matrixwise`.
      shard: mesh axes to spread matrices over, as in `matrixwise`.

    Raises:
      HyperparamError: a negative number.
      MissingParamsError: `update` is called without parameters.

    State: that of `inner`, and 4 bytes per matrix (R).

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array([[3.0, 4.0]])
    >>> tx = gradtx.hyperball(gradtx.identity(), 0.1)
    >>> updates, _ = tx.update(jnp.array([[-40.0, 30.0]]), tx.init(w), w)
    >>> round(float(jnp.linalg.norm(w + updates)), 4), round(float(jnp.linalg.norm(updates)), 2)
    (5.0, 0.5)

    See also: `muon`, `by_role`.

    Wen et al. 2026, arXiv 2606.16899, Algorithm 1.
    """
    rule = matrixwise(_init, _hyperball, vectors="rows", needs_params=True, **flags)
    return chain(inner, rule)
