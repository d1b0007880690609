r"""PSGD Kron: a preconditioner P = Q_Lᵀ Q_L ⊗ Q_Rᵀ Q_R, fitted by gradient steps until it whitens;
it needs neither roots nor eigenvectors.

m ← β1 m + (1 − β1) g,   M = m / (1 − β1ᵗ)
A = Q_L (M + √ε mean|M| V) Q_Rᵀ,   B = Q_L^(−T) V Q_R^(−1),      V standard normal
Q_L ← Q_L − μ triu(A Aᵀ − B Bᵀ) / ‖A Aᵀ + B Bᵀ‖ Q_L
Q_R ← Q_R − μ triu(Aᵀ A − Bᵀ B) / ‖Aᵀ A + Bᵀ B‖ Q_R
u = Q_Lᵀ Q_L M Q_Rᵀ Q_R,   u ← u / max(1, RMS(u) / 1.1)
"""

import functools
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.matrixwise import matrixwise, where_due
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import (
    PRECISE,
    Decay,
    Default,
    DTypeLike,
    Fraction,
    Hyperparam,
    NonNegative,
    Positive,
    Precise,
)
from gradtx.engine.selector import Where
from gradtx.linalg.kronecker import Factors
from gradtx.linalg.triangular import apply_triangular, fit_triangular
from gradtx.schedules.decay import exponential_decay
from gradtx.transforms.eigenbases import squared_size
from gradtx.transforms.flags import MatrixFlags, select_flags
from gradtx.transforms.moments import average, debias
from gradtx.tree.arithmetic import entries, sqrt
from gradtx.tree.casts import real_dtype, real_zeros_along, zeros
from gradtx.tree.cut_along import cut_along

SPREAD = 32
"""The number of phases of a fit over which the matrices of a tree are spread, so that each step
fits few of them.
"""
DAMPING = 2.0**-11.5
"""√ε of float32: noise in the gradient, which keeps a factor from growing without bound where the
gradient is always zero.
"""


class KronFlags(MatrixFlags, total=False):
    """The keyword arguments that `scale_by_psgd_kron` and `psgd_kron` share."""

    update_probability: Fraction | None
    factor_rate: Annotated[Positive, Default(0.1)]
    init_scale: Annotated[Positive, Default(1.0)]
    max_size: Annotated[int, Default(8192)]
    max_rms: Annotated[Positive, Default(1.1)]
    balance_every: Annotated[int, Default(100)]
    mu_dtype: DTypeLike | None
    key: Annotated[Hyperparam, Default(0)]


class KronStepFlags(KronFlags, StepFlags, total=False):
    """The flags of `psgd_kron`."""


class Whitening(NamedTuple):
    """An average of gradients, both factors, and the sum of fits since their last balance."""

    mu: jax.Array
    left: Annotated[jax.Array | None, PRECISE]
    right: Annotated[jax.Array | None, PRECISE]
    progress: Precise


Kind = Literal["none", "diagonal", "triangular"]
"""The kind of factor that a side has."""


def _init(param, *, mu_dtype: DTypeLike | None, max_size: int, init_scale) -> Whitening:
    inputs, outputs = param.shape[-2:]
    kinds: list[Kind] = [_kind(inputs, outputs, max_size), _kind(outputs, inputs, max_size)]
    if (inputs, outputs) == (1, 1):
        kinds = ["none", "diagonal"]  # a scalar has one factor, too
    # The product of the factors has the scale, so each of two has its root.
    scale = init_scale ** (1 / (2 - kinds.count("none")))
    left, right = (
        _first_factor(param, axis, kind, scale) for axis, kind in zip((-2, -1), kinds, strict=True)
    )
    progress = real_zeros_along(param, range(param.ndim - 2))
    return Whitening(zeros(param, mu_dtype), left, right, progress)


def _kind(side: int, other: int, max_size: int) -> Kind:
    """The factor of an axis: diagonal for a vector, none for an axis of length 1."""
    if side == 1:
        return "none"
    return "diagonal" if side > max_size or other == 1 else "triangular"


def _first_factor(param, axis: int, kind: Kind, scale) -> jax.Array | None:
    if kind == "none":
        return None
    dtype, side, batch = real_dtype(param.dtype), param.shape[axis], param.shape[:-2]
    one = jnp.ones(side, dtype) if kind == "diagonal" else jnp.eye(side, dtype=dtype)
    factor = jnp.broadcast_to(jnp.asarray(scale, dtype) * one, (*batch, *one.shape))
    return cut_along(factor, param, (*range(len(batch)), axis, None)[: factor.ndim])


def _psgd_kron(
    grad,
    slots: Whitening,
    param,
    step,
    *,
    b1,
    update_probability,
    factor_rate,
    max_rms,
    key,
    refresh_offset,
    refresh_every: int,
    balance_every: int,
):
    mu = average(slots.mu, grad, b1)
    mean = debias(mu, b1, step)
    # Sums start at different fractions, so that matrices are fitted at different steps.
    first = jnp.asarray(refresh_offset / refresh_every, slots.progress.dtype)
    before = jnp.where(step == 1, first, slots.progress)
    after = before + update_probability
    is_balanced = after >= balance_every
    progress = after - jnp.where(is_balanced, balance_every, 0)
    left, right = slots.left, slots.right
    if grad.size:
        passes_whole_number = jnp.floor(after) > jnp.floor(before)
        # Without a gradient a fit would only let the factors grow; one whose squares overflow would
        # ruin them.
        size = squared_size(mean)[..., 0, 0]
        is_due = passes_whole_number & jnp.any(mean != 0, axis=(-2, -1)) & jnp.isfinite(size)
        fit = functools.partial(_fit, factor_rate)
        left, right = where_due(is_due, fit, (key, is_balanced, mean, left, right), (left, right))
    direction = apply_triangular(Factors(left, right), mean)
    square = jnp.sum(direction**2, axis=(-2, -1), keepdims=True)
    mean_square = square / entries(grad.shape[-2:])
    update = direction / jnp.maximum(1, sqrt(mean_square) / max_rms)
    return update, Whitening(mu, left, right, progress)


def _fit(rate, key, is_balanced, mean, left, right) -> tuple[jax.Array | None, jax.Array | None]:
    """The factors of one matrix after a step of their fit."""
    # Drawn in float32: the same noise in every precision.
    noise = jax.random.normal(key, mean.shape, jnp.float32).astype(mean.dtype)
    damped = mean + DAMPING * jnp.mean(jnp.abs(mean)) * noise
    new = fit_triangular(Factors(left, right), damped, noise, rate)
    # Products that overflow leave both factors as they were.
    sums = jnp.stack([jnp.sum(factor) for factor in new if factor is not None])
    is_finite = jnp.all(jnp.isfinite(sums))
    left, right = _choose(is_finite, new.left, left), _choose(is_finite, new.right, right)
    if left is None or right is None:
        return left, right
    # Only the product matters: with equal largest entries no factor over- or underflows.
    left_size, right_size = jnp.max(jnp.abs(left)), jnp.max(jnp.abs(right))
    ratio = jnp.where(is_balanced, sqrt(right_size / left_size), 1)
    return ratio * left, right / ratio


def _choose(condition, new: jax.Array | None, old: jax.Array | None) -> jax.Array | None:
    return None if new is None or old is None else jnp.where(condition, new, old)


def _check(flags: Mapping[str, Any]) -> None:
    for name in ("max_size", "balance_every"):
        value = flags[name]
        if value < 1:
            raise HyperparamError(
                f"scale_by_psgd_kron: {name} = {value!r} is not a whole number of at least 1"
            )


@definition
def scale_by_psgd_kron(
    b1: Decay = 0.9,
    **flags: Unpack[KronFlags],
) -> GradientTransformation:
    r"""PSGD's direction: an average of gradients, whitened by triangular Kronecker factors.

    u = Q_Lᵀ Q_L M Q_Rᵀ Q_R. M is (n, m), Q_L is (n, n) and Q_R is (m, m), upper triangular;
    `psgd_kron` explains their fit. Arrays of fewer than two axes, and matrices with one row or
    column, have one factor, a diagonal.

    Args:
      b1: β1 in [0, 1), decay of m.
      update_probability: p in [0, 1], fits per step; None: 1 for 500 steps, then exp(−(count −
        500)/1000), no less than 0.03.
      factor_rate: μ in (0, 1), the step of a fit.
      init_scale: Q_L ⊗ Q_R starts as this number times the identity.
      max_size: the longest axis with a triangular factor; longer ones have a diagonal.
      max_rms: the largest root mean square of a direction; a longer one is scaled down.
      balance_every: the number of fits after which Q_L and Q_R get the same largest entry.
      mu_dtype: dtype of m; None: the parameter's, float32 at least.
      key: a random key, or a number as its seed, for V.
      dimensions: which axes of an array are inputs, outputs, and batches of matrices, as in
        `matrixwise`.
      shard: mesh axes to spread the matrices over, as in `matrixwise`.

    Raises:
      HyperparamError: a number out of its range.
      StructureError: complex arrays.

    State: 4 bytes per parameter (m), and 4 (n/m + m/n) of a matrix (Q_L, Q_R).

    >>> import gradtx, jax, jax.numpy as jnp
    >>> g = jnp.diag(jnp.array([100.0, 0.1]))
    >>> tx = gradtx.scale_by_psgd_kron()
    >>> state, step = tx.init(g), jax.jit(tx.update)
    >>> for _ in range(200):
    ...     u, state = step(g, state)
    >>> # One direction is a thousand times smaller, and both move alike, by 1/2 to 2.
    >>> bool((abs(jnp.log2(jnp.diag(u))) < 1).all())
    True

    See also: `psgd_kron`, `gradtx.linalg.fit_triangular`.

    Li 2024, arXiv 2402.04553, section 3; details are those of its author's code and of psgd_jax.
    """
    _check(flags)
    if flags.get("update_probability") is None:
        annealed = exponential_decay(1.0, 1000, math.exp(-1), 500, end_value=0.03)
        flags["update_probability"] = annealed
    return matrixwise(
        _init, _psgd_kron, refresh_every=SPREAD, vectors="rows", real_only=True, **flags
    )


@definition
def psgd_kron(
    learning_rate: Hyperparam,
    b1: Decay = 0.9,
    weight_decay: NonNegative = 0.0,
    mask: Where | None = None,
    **flags: Unpack[KronStepFlags],
) -> GradientTransformation:
    r"""PSGD Kron: whitening by a Kronecker-factored preconditioner that is learned step by step.

    For every matrix θ, g, m of shape (n, m): m ← β1 m + (1 − β1) g, M = m/(1 − β1ᵗ), u = Q_Lᵀ Q_L M
    Q_Rᵀ Q_R, θ ← θ − η (u / max(1, RMS(u)/1.1) + λ θ). With V standard normal, A = Q_L (M + √ε
    mean|M| V) Q_Rᵀ and B = Q_L^(−T) V Q_R^(−1), a fit is Q_L ← Q_L − μ triu(A Aᵀ − B Bᵀ)/‖A Aᵀ + B
    Bᵀ‖ Q_L, and likewise Q_R with Aᵀ A − Bᵀ B. It rests when both sides are equal, P^(1/2) M as
    white as V. The norm is a bound from below, by one step of power iteration.

    Not every step fits. The fits per step, p, are added up, and a matrix is fitted at the steps
    where its sum passes a whole number. That is as often as with probability p, without chance.
    Sums start at different fractions of 1, so that a later fit of one matrix is not the step of all
    others. A step without a fit costs four products of matrices per matrix. A matrix without any
    gradient is not fitted.

    When: as AdamW, where fewer steps are worth more time per step; a preconditioner without a
    matrix decomposition, all products.
    When not: arrays whose axes are all very long, whose factors are larger than they are.

    Args:
      learning_rate: η; a third to a half of AdamW's; 3e-4.
      b1: β1 in [0, 1), decay of m; 0.9.
      weight_decay: λ ≥ 0, a fraction per unit of learning rate; 0 to 1.
      mask: which leaves decay; None: all.
      update_probability: p in [0, 1], fits per step; None: 1 for 500 steps, then exp(−(count −
        500)/1000), no less than 0.03.
      factor_rate: μ in (0, 1), the step of a fit; 0.1.
      init_scale: Q_L ⊗ Q_R starts as this number times the identity; a fit changes it by μ at most,
        so that the first 50 fits bring gradients of 1e-4 to their size.
      max_size: the longest axis with a triangular factor, static; longer ones have a diagonal; 2048
        to 8192.
      max_rms: the largest root mean square of u; a longer one is scaled down; 1.1.
      balance_every: the number of fits after which Q_L and Q_R get the same largest entry, which
        does not change u; 100.
      mu_dtype: dtype of m; None: the parameter's, float32 at least.
      key: a random key, or a number as its seed, for V; every array draws its own at every
        step, by its path.
      dimensions: which axes of an array are inputs, outputs and batches of matrices, as in
        `matrixwise`; `"in in in out"` fits the kernel of a convolution.
      shard: mesh axes to spread the matrices over, as in `matrixwise`.
      **flags: `decay_form`, `huber_delta`, `cautious`, `peak_learning_rate` and `axis_names`, as
        `descend` explains them.

    Raises:
      HyperparamError: a number out of its range.
      StructureError: complex arrays.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter (m), and 4 (n/m + m/n) of a matrix (Q_L, Q_R): 12 of a square one.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> # A loss whose curvatures are 1, 1e-3, 1e-3 and 1e-6.
    >>> scales = jnp.array([[1.0], [1e-3]]) * jnp.array([[1.0, 1e-3]])
    >>> w = jnp.ones((2, 2))
    >>> tx = gradtx.psgd_kron(0.02)
    >>> state, step = tx.init(w), jax.jit(tx.update)
    >>> for _ in range(400):
    ...     updates, state = step(scales * w, state, w)
    ...     w = gradtx.apply_updates(w, updates)
    >>> bool(abs(w).max() < 0.1)  # gradient descent with a rate of 1 leaves an entry at 0.9996
    True

    See also: `adamw`, `scale_by_psgd_kron`, `gradtx.linalg.fit_triangular`.

    Li 2024, arXiv 2402.04553, section 3; details are those of its author's code and of psgd_jax.
    """
    direction = scale_by_psgd_kron(b1, **select_flags(KronFlags, flags))
    return descend(direction, learning_rate, weight_decay, mask, **select_flags(StepFlags, flags))
