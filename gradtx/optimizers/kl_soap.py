r"""KL-SOAP: SOAP in the eigenbases of factors that are fitted together, each to gradients that the
other has whitened.

    G' = Q_Lᵀ G Q_R
    M' ← β1 M' + (1 − β1) G'          V ← β2 V + (1 − β2) G'²
    U = Q_L [ M̂' / (√V̂ + ε) ] Q_Rᵀ
    L ← β_s L + (1 − β_s) G R⁻¹ Gᵀ / m        R ← β_s R + (1 − β_s) Gᵀ L⁻¹ G / n
    θ ← θ − η (U + λ θ)

Bases are refreshed as in SOAP. Inverses are those of the eigenvalues along the bases, which follow
at every step, as in KL-Shampoo."""

from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.matrixwise import matrixwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, NonNegative, Precise, Squares
from gradtx.engine.selector import Where
from gradtx.linalg import Factors
from gradtx.optimizers.kl_shampoo import fitted
from gradtx.optimizers.soap import adam_step, check_max_dim
from gradtx.transforms.eigenbases import (
    Held,
    any_side,
    identities,
    is_turn,
    kept_sides,
    per_matrix,
    restored,
    turn,
    unused,
    zero_factors,
    zero_values,
)
from gradtx.tree.casts import real_zeros, zeros


class Fitted(NamedTuple):
    """Moments in the bases; the factors of both sides, their bases and eigenvalues; a side without
    a factor has None.
    """

    mu: jax.Array
    nu: Squares
    left: Precise | None
    right: Precise | None
    left_basis: Precise | None
    right_basis: Precise | None
    left_values: Precise | None
    right_values: Precise | None


def _init(param: jax.Array, *, max_dim: int, one_sided: bool) -> Fitted:
    sides = kept_sides(param.shape, max_dim, one_sided)
    bases, values = identities(param, sides), zero_values(param, sides)
    return Fitted(zeros(param), real_zeros(param), *zero_factors(param, sides), *bases, *values)


def _update(
    grad: jax.Array,
    slots: Fitted,
    param: None,
    step: jax.Array,
    *,
    b1: jax.Array,
    b2: jax.Array,
    eps: jax.Array,
    floor: jax.Array,
    shampoo_beta: jax.Array | None = None,
    refresh_offset: jax.Array,
    refresh_every: int,
) -> Any:
    old = Factors(slots.left, slots.right)
    if any_side(old) is None:
        direction, mu, nu = adam_step(grad, slots, b1, b2, eps, step)
        return direction, slots._replace(mu=mu, nu=nu)
    bases, values = (
        Factors(slots.left_basis, slots.right_basis),
        Factors(slots.left_values, slots.right_values),
    )
    decay = b2 if shampoo_beta is None else shampoo_beta
    turned, factors, values = fitted(grad, old, bases, values, decay, floor)
    waits = unused(old, refresh_offset.ndim)
    direction, mu, nu = adam_step(turned, slots, b1, b2, eps, jnp.maximum(step - 1, 1))
    mu, nu = (jnp.where(per_matrix(waits), 0, moment) for moment in (mu, nu))
    direction = jnp.where(
        per_matrix(waits), 0 * grad, restored(bases, direction)
    )  # nan shows at once
    begins, due = (
        waits & ~unused(factors, refresh_offset.ndim),
        is_turn(step, refresh_offset, refresh_every) & ~waits,
    )
    held = turn(begins, due, factors, Held(bases, mu, nu, values))
    assert held.nu is not None
    return direction, Fitted(held.mu, held.nu, *factors, *held.bases, *held.values)


@definition
def scale_by_kl_soap(
    b1: Decay = 0.95,
    b2: Decay = 0.95,
    shampoo_beta: Decay | None = None,
    eps: NonNegative = 1e-8,
    *,
    floor: NonNegative = 1e-6,
    refresh_every: int = 10,
    max_dim: int = 10_000,
    one_sided: bool = False,
    dimensions: Any = None,
    shard: Any = None,
) -> GradientTransformation:
    """KL-SOAP's direction: U = Q_L [M̂' / (√V̂ + ε)] Q_Rᵀ in eigenbases of factors that whiten the
    gradients for each other.

    Args:
      b1: β1 in [0, 1), decay of M'.
      b2: β2 in [0, 1), decay of V.
      shampoo_beta: β_s in [0, 1), decay of L, R and their eigenvalues; None: β2.
      eps: ε ≥ 0, beside the root.
      floor: φ ≥ 0: eigenvalues count as at least φ times the largest of their side.
      refresh_every: k, steps between two refreshes of the bases of one matrix.
      max_dim: the longest axis that is rotated.
      one_sided: only the shorter axis is rotated; it is then SOAP's.
      dimensions: which axes of an array are inputs, outputs or batch, as in `matrixwise`.
      shard: axes of a device mesh to spread matrices over, as in `matrixwise`.

    Raises:
      HyperparamError: a number out of its range.

    State: for an n × m matrix 8 n m + 8 (n² + m²) + 4 (n + m) bytes: M', V; L, Q_L, R, Q_R; their
    eigenvalues.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> w, tx = jnp.zeros((2, 3)), gradtx.scale_by_kl_soap()
    >>> first, second = jax.random.normal(jax.random.key(0), (2, 2, 3))
    >>> _, state = tx.update(first, tx.init(w))  # makes the bases, and no step
    >>> u, state = tx.update(second, state)
    >>> round(float(jnp.sum(u * u)), 3)  # Adam's first step is 1 for each of six entries, in whatever bases
    6.0

    Lin et al. 2025, arXiv 2509.03378, section 4.
    """
    check_max_dim("scale_by_kl_soap", max_dim)
    return matrixwise(
        _init,
        _update,
        b1=b1,
        b2=b2,
        eps=eps,
        floor=floor,
        **{} if shampoo_beta is None else {"shampoo_beta": shampoo_beta},
        refresh_every=refresh_every,
        max_dim=max_dim,
        one_sided=one_sided,
        dimensions=dimensions,
        shard=shard,
        vectors="rows",
    )


@definition
def kl_soap(
    learning_rate: NonNegative = 3e-3,
    b1: Decay = 0.95,
    b2: Decay = 0.95,
    shampoo_beta: Decay | None = None,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.01,
    mask: Where | None = None,
    *,
    floor: NonNegative = 1e-6,
    refresh_every: int = 10,
    max_dim: int = 10_000,
    one_sided: bool = False,
    dimensions: Any = None,
    shard: Any = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""SOAP whose bases heed how the rows of a gradient hang together once its columns are
    whitened, and the other way round.

    For every n × m matrix: L (n × n) and R (m × m) average G R⁻¹ Gᵀ / m and Gᵀ L⁻¹ G / n, their
    eigenvectors are Q_L and Q_R; M' and V average G' = Q_Lᵀ G Q_R and G'²; θ ← θ − η (Q_L [M̂' /
    (√V̂ + ε)] Q_Rᵀ + λ θ).

    As in `soap`, a matrix makes no step with its first gradient that is not zero, which makes its
    bases, and is refreshed every `refresh_every` steps at a turn of its own. Factors start as in
    `kl_shampoo`. A matrix with a side of 1, and a vector or scalar: AdamW.

    When: `soap` serves, and rows and columns differ much in scale: a few large columns do not
    decide the basis of the rows. When not: memory is short; `kl_shampoo` keeps no second moments.

    Args:
      learning_rate: η ≥ 0, parameter units per step; 1e-3 to 1e-2.
      b1: β1 in [0, 1), decay of M'; 0.95.
      b2: β2 in [0, 1), decay of V; 0.9 to 0.99.
      shampoo_beta: β_s in [0, 1), decay of L, R and their eigenvalues; 0.9 to 0.99; None: β2.
      eps: ε ≥ 0; where √V̂ is below it, steps shrink; 1e-8. Above 1e-7 of the gradients' size where
        these have fewer directions than
        their sides for long: what is left in the others is rounding, which Adam would raise to the
        size of a step.
      weight_decay: λ ≥ 0, a fraction of the parameter per unit of learning rate; 0 to 0.1.
      mask: which leaves decay (see `masked`); None: all.
      floor: φ ≥ 0: eigenvalues count as at least φ times the largest of their side; 1e-6.
      refresh_every: k ≥ 1, steps from one refresh of a matrix to its next; 1 to 100; 10.
      max_dim: the longest axis that is rotated; 1024 to 10 000.
      one_sided: only the shorter axis is rotated; it is then SOAP's.
      dimensions: which axes of an array are inputs, outputs or batch, as in `matrixwise`; None: the
        last two, and batch before.
      shard: axes of a device mesh to spread matrices over, as in `matrixwise`.
      **flags: `decay_form`, `cautious` and `peak_learning_rate`, as `descend` explains them.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: for an n × m matrix 8 n m + 8 (n² + m²) + 4 (n + m) bytes, about 24 per parameter of a
    square one; 8 per parameter of a vector.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> turn = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (8, 8)))[0]
    >>> loud = jnp.array([[100.0], *[[1.0]] * 7])  # one row of eight is loud, and tells little of the columns
    >>> def error_after(tx):
    ...     def step(carry, key):
    ...         w, state = carry
    ...         noise = loud * jax.random.normal(key, (8, 8)) @ jnp.diag(jnp.linspace(0.1, 1.0, 8)) @ turn.T
    ...         updates, state = tx.update(w - turn + noise, state, w)
    ...         return (w + updates, state), jnp.mean((w - turn) ** 2)
    ...     w = jnp.zeros((8, 8))
    ...     _, errors = jax.lax.scan(step, (w, tx.init(w)), jax.random.split(jax.random.key(1), 400))
    ...     return float(errors[-100:].mean())
    >>> error_after(gradtx.kl_soap(0.01, weight_decay=0.0)) < error_after(gradtx.soap(0.01, weight_decay=0.0))
    True

    See also: `kl_shampoo`, `soap`, `scale_by_kl_soap`.

    Lin et al. 2025, arXiv 2509.03378, section 4. Where the factors start is not the paper's.
    """
    rule = scale_by_kl_soap(
        b1,
        b2,
        shampoo_beta,
        eps,
        floor=floor,
        refresh_every=refresh_every,
        max_dim=max_dim,
        one_sided=one_sided,
        dimensions=dimensions,
        shard=shard,
    )
    return descend(rule, learning_rate, weight_decay, mask, **flags)
