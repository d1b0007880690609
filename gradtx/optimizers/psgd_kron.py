r"""PSGD Kron: a preconditioner P = Q_Lᵀ Q_L ⊗ Q_Rᵀ Q_R, fitted by gradient steps until it whitens;
neither roots nor eigenvectors.

m ← β1 m + (1 − β1) g,   M = m / (1 − β1ᵗ)
A = Q_L (M + √ε mean|M| V) Q_Rᵀ,   B = Q_L^(−T) V Q_R^(−1),      V standard normal
Q_L ← Q_L − μ triu(A Aᵀ − B Bᵀ) / ‖A Aᵀ + B Bᵀ‖ Q_L,   Q_R ← Q_R − μ triu(Aᵀ A − Bᵀ B) / ‖Aᵀ A + Bᵀ B‖ Q_R
u = Q_Lᵀ Q_L M Q_Rᵀ Q_R,   u ← u / max(1, RMS(u) / 1.1)
"""

import functools
import math
from typing import Annotated, Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.matrixwise import matrixwise, where_due
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import (
    PRECISE,
    Decay,
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
from gradtx.transforms.moments import average, debias
from gradtx.tree.casts import real_dtype, zeros

SPREAD = 32
"""Over how many parts of a fit the matrices of a tree are spread, so that few are fitted in the
same step.
"""
DAMPING = 2.0**-11.5
"""√ε of float32: noise in the gradient, which keeps a factor from growing without bound where the
gradient is always zero.
"""


class Whitening(NamedTuple):
    """An average of gradients, the factors, and how many fits were made since these were balanced,
    with the part of the next.
    """

    mu: jax.Array
    left: Annotated[jax.Array | None, PRECISE]
    right: Annotated[jax.Array | None, PRECISE]
    progress: Precise


def _init(
    param: jax.Array, *, mu_dtype: DTypeLike | None, max_size: int, init_scale: jax.Array
) -> Whitening:
    sides = param.shape[-2:]
    kinds = [_kind(side, other, max_size) for side, other in zip(sides, sides[::-1], strict=True)]
    if sides == (1, 1):
        kinds = ["none", "diagonal"]
    scale = init_scale ** (1 / (2 - kinds.count("none")))
    left, right = (
        _first(param, side, kind, scale) for side, kind in zip(sides, kinds, strict=True)
    )
    return Whitening(
        zeros(param, mu_dtype), left, right, jnp.zeros(param.shape[:-2], real_dtype(param.dtype))
    )


def _kind(side: int, other: int, max_size: int) -> str:
    """What factor an axis has: a vector's is diagonal, and its axis of length 1 has none."""
    if side == 1:
        return "none"
    return "diagonal" if side > max_size or other == 1 else "triangular"


def _first(param: jax.Array, side: int, kind: str, scale: jax.Array) -> jax.Array | None:
    if kind == "none":
        return None
    dtype, batch = real_dtype(param.dtype), param.shape[:-2]
    one = jnp.ones(side, dtype) if kind == "diagonal" else jnp.eye(side, dtype=dtype)
    return jnp.broadcast_to(scale * one, (*batch, *one.shape)).astype(dtype)


def _update(
    grad: jax.Array,
    slots: Whitening,
    param: None,
    step: jax.Array,
    *,
    b1: jax.Array,
    update_probability: jax.Array,
    factor_rate: jax.Array,
    max_rms: jax.Array,
    key: jax.Array,
    refresh_offset: jax.Array,
    refresh_every: int,
    balance_every: int,
) -> Any:
    mu = average(slots.mu, grad, b1)
    mean = debias(mu, b1, step)
    before = jnp.where(step == 1, refresh_offset / refresh_every, slots.progress)
    after = before + update_probability
    full = after >= balance_every
    progress = after - jnp.where(full, balance_every, 0)
    left, right = slots.left, slots.right
    if grad.size:
        due = (jnp.floor(after) > jnp.floor(before)) & jnp.any(mean != 0, axis=(-2, -1))
        left, right = where_due(
            due,
            functools.partial(_fitted, factor_rate),
            (key, full, mean, left, right),
            (left, right),
        )
    direction = apply_triangular(Factors(left, right), mean)
    mean_square = jnp.sum(direction**2, axis=(-2, -1), keepdims=True) / max(
        1, math.prod(grad.shape[-2:])
    )
    return direction / jnp.maximum(1, jnp.sqrt(mean_square) / max_rms), Whitening(
        mu, left, right, progress
    )


def _fitted(
    rate: Any, key: Any, balance: Any, mean: jax.Array, left: Any, right: Any
) -> tuple[Any, Any]:
    """The factors of one matrix after a step of their fit."""
    noise = jax.random.normal(key, mean.shape, jnp.float32).astype(
        mean.dtype
    )  # alike in every precision
    damped = mean + DAMPING * jnp.mean(jnp.abs(mean)) * noise
    left, right = fit_triangular(Factors(left, right), damped, noise, rate)
    if left is None or right is None:
        return left, right
    sizes = [jnp.max(jnp.abs(factor)) for factor in (left, right)]
    ratio = jnp.where(balance, jnp.sqrt(sizes[1] / sizes[0]), 1)
    return ratio * left, right / ratio


@definition
def scale_by_psgd_kron(
    b1: Decay = 0.9,
    *,
    update_probability: Fraction | None = None,
    factor_rate: Positive = 0.1,
    init_scale: Positive = 1.0,
    max_size: int = 8192,
    max_rms: Positive = 1.1,
    balance_every: int = 100,
    mu_dtype: DTypeLike | None = None,
    key: Hyperparam = 0,
    dimensions: Any = None,
    shard: Any = None,
) -> GradientTransformation:
    r"""PSGD's direction: an average of gradients, whitened by a Kronecker product of triangular
    factors: u = Q_Lᵀ Q_L M Q_Rᵀ Q_R.

    M is (n, m), Q_L is (n, n) and Q_R is (m, m), upper triangular; `psgd_kron` says how they are
    fitted. Arrays of fewer than two axes, and matrices with one row or column, have one factor, a
    diagonal.

    Args:
      b1: β1 in [0, 1), decay of m.
      update_probability: p in [0, 1], fits per step; None: 1 for 500 steps, then exp(−(count −
        500)/1000), no less than 0.03.
      factor_rate: μ in (0, 1), the step of a fit.
      init_scale: Q_L ⊗ Q_R at first is this number times the identity.
      max_size: the longest axis that has a triangular factor; longer ones have a diagonal.
      max_rms: the root of the mean square that a direction is cut down to.
      balance_every: fits after which Q_L and Q_R are given the same largest entry.
      mu_dtype: dtype of m; None: the parameter's, float32 at least.
      key: a random key, or a number to make one from, for V.
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
    >>> bool((abs(jnp.log2(jnp.diag(u))) < 1).all())  # one direction is a thousand times smaller, and both move alike, by 1/2 to 2
    True

    See also: `psgd_kron`, `gradtx.linalg.fit_triangular`.

    Li 2024, arXiv 2402.04553, section 3; details are those of its author's code and of psgd_jax.
    """
    for name, value in (("max_size", max_size), ("balance_every", balance_every)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise HyperparamError(
                f"scale_by_psgd_kron: {name} = {value!r} is no whole number of at least 1"
            )
    probability = (
        exponential_decay(1.0, 1000, math.exp(-1), 500, end_value=0.03)
        if update_probability is None
        else update_probability
    )
    return matrixwise(
        _init,
        _update,
        b1=b1,
        update_probability=probability,
        factor_rate=factor_rate,
        init_scale=init_scale,
        max_rms=max_rms,
        key=key,
        mu_dtype=mu_dtype,
        max_size=max_size,
        balance_every=balance_every,
        refresh_every=SPREAD,
        dimensions=dimensions,
        shard=shard,
        vectors="rows",
        real_only=True,
    )


@definition
def psgd_kron(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    weight_decay: NonNegative = 0.0,
    mask: Where | None = None,
    *,
    update_probability: Fraction | None = None,
    factor_rate: Positive = 0.1,
    init_scale: Positive = 1.0,
    max_size: int = 8192,
    max_rms: Positive = 1.1,
    balance_every: int = 100,
    mu_dtype: DTypeLike | None = None,
    key: Hyperparam = 0,
    dimensions: Any = None,
    shard: Any = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""An average of gradients, whitened by a Kronecker-factored preconditioner that is itself
    learned step by step.

    For every matrix θ, g, m of shape (n, m): m ← β1 m + (1 − β1) g, M = m/(1 − β1ᵗ), u = Q_Lᵀ Q_L M
    Q_Rᵀ Q_R, θ ← θ − η (u / max(1, RMS(u)/1.1) + λ θ). With V standard normal, A = Q_L (M + √ε
    mean|M| V) Q_Rᵀ and B = Q_L^(−T) V Q_R^(−1), a fit is Q_L ← Q_L − μ triu(A Aᵀ − B Bᵀ)/‖A Aᵀ + B
    Bᵀ‖ Q_L, and likewise Q_R with Aᵀ A − Bᵀ B. It rests when both sides are equal, P^(1/2) M as
    white as V. The norm is a bound from below, by one step of power iteration.

    Not every step fits: p fits per step are added up, and a matrix is fitted at the steps where its
    sum passes a whole number, which is as often as with probability p, without chance. Sums start
    at different parts of 1, so that a later fit of one matrix is not the step of all others; a step
    without a fit costs four products of matrices per matrix. A matrix without any gradient is not
    fitted.

    When: as AdamW, where fewer steps are worth more time per step; a preconditioner without a
    matrix decomposition, all products.
    When not: arrays whose axes are all very long, whose factors are larger than they are.

    Args:
      learning_rate: η ≥ 0; a third to a half of AdamW's; 3e-4.
      b1: β1 in [0, 1), decay of m; 0.9.
      weight_decay: λ ≥ 0, a fraction per unit of learning rate; 0 to 1.
      mask: which leaves decay; None: all.
      update_probability: p in [0, 1], fits per step; None: 1 for 500 steps, then exp(−(count −
        500)/1000), no less than 0.03.
      factor_rate: μ in (0, 1), the step of a fit; 0.1.
      init_scale: Q_L ⊗ Q_R at first is this number times the identity; a fit changes it by μ at
        most, so that the first 50 fits bring gradients of 1e-4 to their size.
      max_size: the longest axis that has a triangular factor, static; longer ones have a diagonal;
        2048 to 8192.
      max_rms: what the root of the mean square of u is cut down to; 1.1.
      balance_every: fits after which Q_L and Q_R are given the same largest entry, which leaves u
        as it is; 100.
      mu_dtype: dtype of m; None: the parameter's, float32 at least.
      key: a random key, or a number to make one from, for V; every array draws its own at every
        step, by its path.
      dimensions: which axes of an array are inputs, outputs and batches of matrices, as in
        `matrixwise`; the kernel of a convolution is best said to be `"in in in out"`.
      shard: mesh axes to spread the matrices over, as in `matrixwise`.
      **flags: `decay_form`, `cautious` and `peak_learning_rate`, as `descend` explains them.

    Raises:
      HyperparamError: a number out of its range.
      StructureError: complex arrays.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter (m), and 4 (n/m + m/n) of a matrix (Q_L, Q_R): 12 of a square one.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> scales = jnp.array([[1.0], [1e-3]]) * jnp.array([[1.0, 1e-3]])  # a loss whose curvatures are 1, 1e-3, 1e-3 and 1e-6
    >>> w = jnp.ones((2, 2))
    >>> tx = gradtx.psgd_kron(0.02)
    >>> state, step = tx.init(w), jax.jit(tx.update)
    >>> for _ in range(400):
    ...     updates, state = step(scales * w, state, w)
    ...     w = gradtx.apply_updates(w, updates)
    >>> bool(abs(w).max() < 0.1)  # gradient descent with a rate of 1 leaves the last entry at 0.9996
    True

    See also: `adamw`, `scale_by_psgd_kron`, `gradtx.linalg.fit_triangular`.

    Li 2024, arXiv 2402.04553, section 3; details are those of its author's code and of psgd_jax.
    """
    direction = scale_by_psgd_kron(
        b1,
        update_probability=update_probability,
        factor_rate=factor_rate,
        init_scale=init_scale,
        max_size=max_size,
        max_rms=max_rms,
        balance_every=balance_every,
        mu_dtype=mu_dtype,
        key=key,
        dimensions=dimensions,
        shard=shard,
    )
    return descend(direction, learning_rate, weight_decay, mask, **flags)
