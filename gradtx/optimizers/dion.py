r"""Dion: a low-rank orthogonal direction by one step of power iteration, with error feedback to the
momentum.

X = m + g                                   (n, m)
P = orth(Xᵀ Q)                              (m, r), by QR
R = X P                                     (n, r)
m ← X − (1 − μ) R Pᵀ                        the used part fades by 1 − μ, the rest stays whole
Q ← R, its columns of length 1
θ ← θ − η (s Q Pᵀ + λ θ)                    s = √(fan_out / fan_in)
"""

import math
from typing import Annotated, NamedTuple, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.matrixwise import matrixwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import Default, DTypeLike, Fraction, Hyperparam, NonNegative, Precise
from gradtx.engine.selector import Where
from gradtx.linalg.orthogonalize import orthogonalize
from gradtx.optimizers.adamw import adamw
from gradtx.transforms.flags import (
    AdamFlags,
    MatrixFlags,
    RoleFlags,
    adam_arguments,
    select_flags,
)
from gradtx.transforms.orthogonal import Scaling, check_scaling, shape_factor
from gradtx.tree.arithmetic import abs_sq, sqrt
from gradtx.tree.casts import compute_dtype, zeros
from gradtx.tree.cut_along import cut_along
from gradtx.wrappers.by_role import by_role


class DionFlags(AdamFlags, total=False):
    """The flags of `dion`."""

    adam_eps: Annotated[NonNegative, Default(1e-8)]


class Feedback(NamedTuple):
    """The momentum with its unused part, and the input basis of the power iteration."""

    mu: jax.Array
    basis: Precise


def _init(param, *, rank_fraction: float, mu_dtype: DTypeLike | None, seed: int) -> Feedback:
    *batch, inputs, outputs = param.shape
    rank = min(inputs, outputs, max(1, math.ceil(rank_fraction * min(inputs, outputs))))
    # Drawn in float32: the same start in every precision.
    start = jax.random.normal(jax.random.key(seed), (*batch, inputs, rank), jnp.float32)
    basis = start.astype(compute_dtype(param.dtype))
    return Feedback(zeros(param, mu_dtype), cut_along(basis, param, (*range(param.ndim - 1), None)))


def _dion(grad, slots: Feedback, param, step, *, mu, scaling: Scaling):
    if not grad.size:
        return grad, slots
    total = slots.mu + grad
    outputs = orthogonalize(total.mT.conj() @ slots.basis, "qr")
    inputs = total @ outputs
    adjoint = outputs.mT.conj()
    lengths = sqrt(jnp.sum(abs_sq(inputs), axis=-2, keepdims=True))
    is_zero = lengths == 0
    unit = inputs / jnp.where(is_zero, 1, lengths)
    # A column of length 0 stays as it was: a zero column could never grow again.
    basis = jnp.where(is_zero, slots.basis, unit)
    left_over = total - (1 - mu) * (inputs @ adjoint)
    return shape_factor(scaling, grad.shape) * (unit @ adjoint), Feedback(left_over, basis)


@definition
def scale_by_dion(
    rank_fraction: float = 0.25,
    mu: Fraction = 0.95,
    mu_dtype: DTypeLike | None = None,
    *,
    scaling: Scaling = "spectral",
    seed: int = 0,
    **flags: Unpack[MatrixFlags],
) -> GradientTransformation:
    r"""Dion's direction: a low-rank orthogonal factor by power iteration.

    u = s Q Pᵀ, with P = orth(Xᵀ Q), R = X P, X = m + g; then m ← X − (1 − μ) R Pᵀ and Q ← R with
    columns of length 1. X is (n, m), P is (m, r), Q and R are (n, r), and r is the `rank_fraction`
    of min(n, m), rounded up. u leaves out a direction that X does not have, and its column of Q
    stays as it was. A zero gradient gives zero.

    Args:
      rank_fraction: r / min(n, m) in (0, 1]; static.
      mu: μ in [0, 1], the share of the used part R Pᵀ that stays in m.
      mu_dtype: dtype of m; None: the parameter's, float32 at least.
      scaling: s, as in `muon`.
      seed: of the normal numbers that Q starts from, the same for matrices of one shape.
      dimensions: which axes of an array are inputs, outputs, and batches of matrices, as in
        `matrixwise`.
      shard: mesh axes to spread the matrices over, as in `matrixwise`.

    Raises:
      HyperparamError: a number out of its range, an unknown scaling.
      StructureError: an array of fewer than two axes.

    State: 4 bytes per parameter (m), and 4 r/m of a matrix (Q).

    >>> import gradtx, jax.numpy as jnp
    >>> g = jnp.array([[3.0, 0.0], [0.0, -0.1]])
    >>> whole, half = gradtx.scale_by_dion(1.0), gradtx.scale_by_dion(0.5)
    >>> u, _ = whole.update(g, whole.init(g))
    >>> jnp.linalg.svd(half.update(g, half.init(g))[0])[1].round(3).tolist()  # of rank 1
    [1.0, 0.0]

    See also: `dion`, `scale_by_muon`.

    Ahn and others 2025, arXiv 2504.05295, Algorithm 1.
    """
    if not 0 < rank_fraction <= 1:
        raise HyperparamError(
            f"scale_by_dion: rank_fraction = {rank_fraction!r} is outside its range (0, 1]"
        )
    check_scaling("scale_by_dion", scaling)
    return matrixwise(_init, _dion, **flags)


@definition
def dion(
    learning_rate: Hyperparam,
    rank_fraction: float = 0.25,
    mu: Fraction = 0.95,
    weight_decay: NonNegative = 0.0,
    mask: Where | None = None,
    mu_dtype: DTypeLike | None = None,
    *,
    scaling: Scaling = "spectral",
    seed: int = 0,
    **flags: Unpack[DionFlags],
) -> GradientTransformation:
    r"""Dion: low-rank orthogonal updates with error feedback, AdamW for the rest.

    A hidden matrix moves in a few orthogonal directions at a time; the others follow later. For
    every hidden matrix θ, g, m of shape (n, m): X = m + g, P = orth(Xᵀ Q) of shape (m, r), R = X P,
    m ← X − (1 − μ) R Pᵀ, Q ← R with columns of length 1, θ ← θ − η (s Q Pᵀ + λ θ), s =
    √(fan_out/fan_in). One step of power iteration from the last Q replaces Muon's orthogonal
    factor. It costs 2 r / min(n, m) of one of Muon's products, and a QR of (m, r). AdamW updates
    embeddings, heads, norms, biases and vectors, as `by_role` tells them apart.

    When: as Muon, where its products are too costly, or its matrices lie on several devices.
    When not: matrices are small, and whole orthogonal factors cost little; QR is slow on
    accelerators.

    Args:
      learning_rate: η; 0.01, at every width.
      rank_fraction: r / min(n, m) in (0, 1]; static; 1/16 to 1/4 for large matrices; 1 is nearly
        Muon's direction.
      mu: μ in [0, 1], the momentum; 0.95.
      weight_decay: λ ≥ 0 of hidden matrices, a fraction per unit of learning rate; 0 to 0.1.
      mask: which of them decay; None: all.
      mu_dtype: dtype of m and of AdamW's first moment; None: the parameter's, float32 at least.
      scaling: s, as in `muon`.
      seed: of the normal numbers that Q starts from.
      adam_learning_rate: η of AdamW; None: the same.
      adam_b1: β1 of AdamW, in [0, 1).
      adam_b2: β2 of AdamW, in [0, 1).
      adam_eps: ε of AdamW.
      adam_weight_decay: λ ≥ 0 of AdamW.
      routes: rules `[(pattern, "dion" or "adam"), ...]` that take precedence over the roles.
      dimensions: which axes of an array are inputs, outputs and batches, as in `matrixwise`.
        Rules take precedence over the axes that `by_role` finds.
      shard: mesh axes to spread matrices over, as in `matrixwise`.
      **flags: `decay_form`, `huber_delta`, `cautious`, `peak_learning_rate` and `axis_names`, as
        `descend` explains them, for both.

    Raises:
      HyperparamError: a number out of its range, an unknown scaling.
      SelectionError: `routes` or `dimensions` that fit no parameter, or that send a vector to Dion.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter of hidden matrices (m), and 4 r/m (Q); 8 of the rest.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> g = jnp.diag(jnp.array([4.0, 2.0, 1.0]))
    >>> w, tx = jnp.zeros((3, 3)), gradtx.dion(0.01, 1 / 3)  # one direction at a time
    >>> state, step = tx.init(w), jax.jit(tx.update)
    >>> for _ in range(300):
    ...     updates, state = step(g, state, w)
    ...     w = gradtx.apply_updates(w, updates)
    >>> bool((jnp.diag(w) < -0.2).all())  # all directions moved
    True

    See also: `muon`, `scale_by_dion`.

    Ahn and others 2025, arXiv 2504.05295, Algorithm 1.
    """
    matrix = select_flags(MatrixFlags, flags)
    direction = scale_by_dion(rank_fraction, mu, mu_dtype, scaling=scaling, seed=seed, **matrix)
    step = select_flags(StepFlags, flags)
    hidden = descend(direction, learning_rate, weight_decay, mask, **step)
    rest = adamw(mu_dtype=mu_dtype, **adam_arguments(learning_rate, flags))
    return by_role({"dion": hidden, "adam": rest}, **select_flags(RoleFlags, flags))
