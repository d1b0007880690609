r"""KL-SOAP: SOAP in the eigenbases of two factors fitted together, each to gradients that the other
whitened.

    G' = Q_Lᵀ G Q_R
    M' ← β1 M' + (1 − β1) G'          V ← β2 V + (1 − β2) G'²
    U = Q_L [ M̂' / (√V̂ + ε) ] Q_Rᵀ
    L ← β_s L + (1 − β_s) G R⁻¹ Gᵀ / m        R ← β_s R + (1 − β_s) Gᵀ L⁻¹ G / n
    θ ← θ − η (U + λ θ)

Bases are refreshed as in SOAP. Inverses are those of the eigenvalues along the bases, which are
updated at every step, as in KL-Shampoo.
"""

from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.matrixwise import matrixwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, Hyperparam, NonNegative, Precise, Squares
from gradtx.engine.selector import Where
from gradtx.linalg import Factors
from gradtx.transforms.eigenbases import (
    Rotating,
    adam_direction,
    all_zero,
    check_max_dim,
    check_rotates,
    choose_sides,
    has_factors,
    identities,
    is_refresh_step,
    per_matrix,
    refresh_bases,
    rotate_back,
    zero_factors,
    zero_values,
    zero_where,
)
from gradtx.transforms.flags import select_flags
from gradtx.transforms.kernel_rules import momentwise
from gradtx.transforms.kl_factors import KlFlags, KlStepFlags, update_kl_factors
from gradtx.transforms.moments import buffers_of, with_buffers
from gradtx.transforms.momentum_kernel import MomentumKernel
from gradtx.tree.casts import real_zeros, zeros


class KlBasisMoments(NamedTuple):
    """Moments in the bases; the factors of both sides, their bases and eigenvalues.

    A side without a factor has None.
    """

    mu: jax.Array
    nu: Squares
    left: Precise | None
    right: Precise | None
    left_basis: Precise | None
    right_basis: Precise | None
    left_values: Precise | None
    right_values: Precise | None


def _init(param, *, max_dim: int, one_sided: bool) -> KlBasisMoments:
    sides = choose_sides(param.shape, max_dim, one_sided)
    factors, bases = zero_factors(param, sides), identities(param, sides)
    values = zero_values(param, sides)
    return KlBasisMoments(zeros(param), real_zeros(param), *factors, *bases, *values)


def _kl_soap(
    grad,
    slots: KlBasisMoments,
    param,
    step,
    *,
    b1,
    b2,
    eps,
    floor,
    shampoo_beta=None,
    refresh_offset,
    refresh_every: int,
):
    old, bases = Factors(slots.left, slots.right), Factors(slots.left_basis, slots.right_basis)
    if not has_factors(old):
        direction, mu, nu = adam_direction(grad, slots, step, b1, b2, eps)
        return direction, slots._replace(mu=mu, nu=nu)
    values = Factors(slots.left_values, slots.right_values)
    decay = b2 if shampoo_beta is None else shampoo_beta
    rotated, factors, values = update_kl_factors(grad, old, bases, values, decay, floor)
    no_bases = all_zero(old, refresh_offset.ndim)
    # The first gradient only makes the bases, so bias corrections count from the second step.
    direction, mu, nu = adam_direction(rotated, slots, jnp.maximum(step - 1, 1), b1, b2, eps)
    mu, nu = (zero_where(no_bases, moment) for moment in (mu, nu))
    # 0 * grad, not 0: a nan in the first gradient shows at once.
    direction = jnp.where(per_matrix(no_bases), 0 * grad, rotate_back(bases, direction))
    is_first = no_bases & ~all_zero(factors, refresh_offset.ndim)
    is_due = is_refresh_step(step, refresh_offset, refresh_every) & ~no_bases
    new = refresh_bases(is_first, is_due, factors, Rotating(bases, buffers_of(mu), nu, values))
    return direction, KlBasisMoments(
        with_buffers(mu, new.mu), new.nu, *factors, *new.bases, *new.values
    )


@definition
def scale_by_kl_soap(
    b1: Decay = 0.95,
    b2: Decay = 0.95,
    shampoo_beta: Decay | None = None,
    eps: NonNegative = 1e-8,
    *,
    momentum: MomentumKernel | None = None,
    **flags: Unpack[KlFlags],
) -> GradientTransformation:
    """KL-SOAP's direction: Adam in the eigenbases of two factors fitted together.

    U = Q_L [M̂' / (√V̂ + ε)] Q_Rᵀ. Each factor averages gradients that the other whitened.

    Args:
      b1: β1 in [0, 1), decay of M'.
      b2: β2 in [0, 1), decay of V.
      shampoo_beta: β_s in [0, 1), decay of L, R and their eigenvalues; None: β2.
      eps: ε ≥ 0, added to the root.
      floor: φ ≥ 0: eigenvalues count as at least φ times the largest of their side.
      refresh_every: k, steps between two refreshes of the bases of one matrix.
      max_dim: the longest axis with a basis.
      one_sided: only the shorter axis has a basis, which is then SOAP's.
      dimensions: which axes of an array are inputs, outputs or batch, as in `matrixwise`.
      shard: axes of a device mesh to spread matrices over, as in `matrixwise`.
      momentum: a kernel in the place of M', as in `scale_by_momentum`; None: M'.

    Raises:
      HyperparamError: a number out of its range.

    State: for an n × m matrix 8 n m + 8 (n² + m²) + 4 (n + m) bytes: M', V; L, Q_L, R, Q_R; their
    eigenvalues.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> w, tx = jnp.zeros((2, 3)), gradtx.scale_by_kl_soap()
    >>> first, second = jax.random.normal(jax.random.key(0), (2, 2, 3))
    >>> _, state = tx.update(first, tx.init(w))  # makes the bases, and no step
    >>> u, state = tx.update(second, state)
    >>> round(float(jnp.sum(u * u)), 3)  # Adam's first step is 1 for each of six entries
    6.0

    Lin et al. 2025, arXiv 2509.03378, section 4.
    """
    check_max_dim("scale_by_kl_soap", flags)
    check_rotates("scale_by_kl_soap", momentum)
    return momentwise(_init, _kl_soap, momentum, lifter=matrixwise, vectors="rows", **flags)


@definition
def kl_soap(
    learning_rate: Hyperparam = 3e-3,
    b1: Decay = 0.95,
    b2: Decay = 0.95,
    shampoo_beta: Decay | None = None,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.01,
    mask: Where | None = None,
    *,
    momentum: MomentumKernel | None = None,
    **flags: Unpack[KlStepFlags],
) -> GradientTransformation:
    r"""KL-SOAP: SOAP with factors fitted by the Kullback-Leibler divergence.

    The basis of the rows follows the correlations of the rows once the columns are whitened, and
    the other way round. For every n × m matrix: L (n × n) and R (m × m) average G R⁻¹ Gᵀ / m and
    Gᵀ L⁻¹ G / n, their eigenvectors are Q_L and Q_R; M' and V average G' = Q_Lᵀ G Q_R and G'²;
    θ ← θ − η (Q_L [M̂' / (√V̂ + ε)] Q_Rᵀ + λ θ).

    As in `soap`, the first gradient of a matrix that is not zero makes its bases, and no step. Each
    matrix is refreshed every `refresh_every` steps, at a step of its own. Factors start as in
    `kl_shampoo`. A matrix with a side of 1, and a vector or scalar: AdamW.

    When: `soap` fits, and rows and columns differ much in scale: a few large columns do not decide
    the basis of the rows. When not: memory is short; `kl_shampoo` has no second moments.

    Args:
      learning_rate: η, parameter units per step; 1e-3 to 1e-2.
      b1: β1 in [0, 1), decay of M'; 0.95.
      b2: β2 in [0, 1), decay of V; 0.9 to 0.99.
      shampoo_beta: β_s in [0, 1), decay of L, R and their eigenvalues; 0.9 to 0.99; None: β2.
      eps: ε ≥ 0; where √V̂ is below it, steps shrink; 1e-8. Take more than 1e-7 of the gradients'
        size where these have fewer directions than their sides for long. The other directions hold
        only rounding, which Adam would raise to the size of a step.
      weight_decay: λ ≥ 0, a fraction of the parameter per unit of learning rate; 0 to 0.1.
      mask: which leaves decay (see `masked`); None: all.
      floor: φ ≥ 0: eigenvalues count as at least φ times the largest of their side; 1e-6.
      refresh_every: k ≥ 1, steps from one refresh of a matrix to its next; 1 to 100; 10.
      max_dim: the longest axis with a basis; 1024 to 10 000.
      one_sided: only the shorter axis has a basis, which is then SOAP's.
      dimensions: which axes of an array are inputs, outputs or batch, as in `matrixwise`; None: by
        roles, else the last two, and batch before.
      shard: axes of a device mesh to spread matrices over, as in `matrixwise`.
      momentum: a kernel in the place of M' for matrices, such as `k_maxwell()`; None: M'.
      **flags: `decay_form`, `huber_delta`, `cautious`, `peak_learning_rate` and `axis_names`, as
        `descend` explains them.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: for an n × m matrix 8 n m + 8 (n² + m²) + 4 (n + m) bytes, about 24 per parameter of a
    square one; 8 per parameter of a vector.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> turn = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (8, 8)))[0]
    >>> loud = jnp.array([[100.0], *[[1.0]] * 7])  # one row of eight is loud
    >>> scales = jnp.diag(jnp.linspace(0.1, 1.0, 8))
    >>> def error_after(tx):
    ...     def step(carry, key):
    ...         w, state = carry
    ...         noise = loud * jax.random.normal(key, (8, 8)) @ scales @ turn.T
    ...         updates, state = tx.update(w - turn + noise, state, w)
    ...         return (w + updates, state), jnp.mean((w - turn) ** 2)
    ...     w, keys = jnp.zeros((8, 8)), jax.random.split(jax.random.key(1), 400)
    ...     _, errors = jax.lax.scan(step, (w, tx.init(w)), keys)
    ...     return float(errors[-100:].mean())
    >>> ours, soaps = gradtx.kl_soap(0.01, weight_decay=0.0), gradtx.soap(0.01, weight_decay=0.0)
    >>> error_after(ours) < error_after(soaps)
    True

    See also: `kl_shampoo`, `soap`, `scale_by_kl_soap`.

    Lin et al. 2025, arXiv 2509.03378, section 4. Where the factors start is not the paper's.
    """
    rule = scale_by_kl_soap(
        b1, b2, shampoo_beta, eps, momentum=momentum, **select_flags(KlFlags, flags)
    )
    return descend(rule, learning_rate, weight_decay, mask, **select_flags(StepFlags, flags))
