r"""SOAP: Adam in the eigenbases of Shampoo's factors, which turn slowly.

    G' = Q_Lᵀ G Q_R
    M' ← β1 M' + (1 − β1) G'          V ← β2 V + (1 − β2) G'²
    U = Q_L [ M̂' / (√V̂ + ε) ] Q_Rᵀ
    L ← β_s L + (1 − β_s) G Gᵀ        R ← β_s R + (1 − β_s) Gᵀ G
    θ ← θ − η (U + λ θ)

Every k-th step, at a step of its own, a matrix has its bases refreshed. The columns of Q_L are
ordered by diag(Q_Lᵀ L Q_L), the largest first, and the rows of V with them; then Q_L ← qr(L Q_L). R
is refreshed alike. M' is stored in the bases and turns with them. That costs two products at a
refresh. A momentum in the space of the parameters needs a rotation at every step, for the same
result.
"""

from typing import Annotated, NamedTuple, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.matrixwise import matrixwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, Default, Hyperparam, NonNegative, Precise, Squares
from gradtx.engine.selector import Where
from gradtx.linalg import Factors, orthogonalize, update_factors
from gradtx.transforms.eigenbases import (
    NO_SIDES,
    BasisFlags,
    Rotating,
    adam_direction,
    all_zero,
    check_max_dim,
    check_rotates,
    choose_sides,
    has_factors,
    identities,
    is_refresh_step,
    match_size,
    per_matrix,
    refresh_bases,
    rotate,
    rotate_back,
    zero_factors,
    zero_where,
)
from gradtx.transforms.flags import select_flags
from gradtx.transforms.kernel_rules import momentwise
from gradtx.transforms.moments import buffers_of, with_buffers
from gradtx.transforms.momentum_kernel import MomentumKernel
from gradtx.tree.casts import real_zeros, zeros


class SoapFlags(BasisFlags, total=False):
    """The keyword arguments that `scale_by_soap` and `soap` share."""

    orthogonal: Annotated[bool, Default(False)]


class SoapStepFlags(SoapFlags, StepFlags, total=False):
    """The flags of `soap`."""


class BasisMoments(NamedTuple):
    """Moments in the bases, the factors of both sides, and their bases.

    A side without a factor has None.
    """

    mu: jax.Array
    nu: Squares
    left: Precise | None
    right: Precise | None
    left_basis: Precise | None
    right_basis: Precise | None


def _init(param, *, max_dim: int, one_sided: bool) -> BasisMoments:
    sides = choose_sides(param.shape, max_dim, one_sided)
    factors, bases = zero_factors(param, sides), identities(param, sides)
    return BasisMoments(zeros(param), real_zeros(param), *factors, *bases)


def _soap(
    grad,
    slots: BasisMoments,
    param,
    step,
    *,
    b1,
    b2,
    eps,
    shampoo_beta=None,
    refresh_offset,
    refresh_every: int,
    orthogonal: bool,
):
    old, bases = Factors(slots.left, slots.right), Factors(slots.left_basis, slots.right_basis)
    if not has_factors(old):
        direction, mu, nu = adam_direction(grad, slots, step, b1, b2, eps)
        return _orthogonal(direction) if orthogonal else direction, slots._replace(mu=mu, nu=nu)
    # The first gradient only makes the bases, so bias corrections count from the second step.
    direction, mu, nu = adam_direction(
        rotate(bases, grad), slots, jnp.maximum(step - 1, 1), b1, b2, eps
    )
    no_bases = all_zero(old, refresh_offset.ndim)
    mu, nu = (zero_where(no_bases, moment) for moment in (mu, nu))
    # 0 * grad, not 0: a nan in the first gradient shows at once.
    direction = jnp.where(per_matrix(no_bases), 0 * grad, rotate_back(bases, direction))
    factors = update_factors(old, grad, b2 if shampoo_beta is None else shampoo_beta)
    is_first = no_bases & ~all_zero(factors, refresh_offset.ndim)
    is_due = is_refresh_step(step, refresh_offset, refresh_every) & ~no_bases
    new = refresh_bases(is_first, is_due, factors, Rotating(bases, buffers_of(mu), nu, NO_SIDES))
    slots = BasisMoments(with_buffers(mu, new.mu), new.nu, *factors, *new.bases)
    return _orthogonal(direction) if orthogonal else direction, slots


def _orthogonal(direction: jax.Array) -> jax.Array:
    """The orthogonal factor of a direction, of the same Frobenius norm."""
    # The orthogonal factor of one row or column is that row or column, normalized.
    if min(direction.shape[-2:]) <= 1:
        return direction
    return match_size(orthogonalize(direction), direction)


@definition
def scale_by_soap(
    b1: Decay = 0.95,
    b2: Decay = 0.95,
    shampoo_beta: Decay | None = None,
    eps: NonNegative = 1e-8,
    *,
    momentum: MomentumKernel | None = None,
    **flags: Unpack[SoapFlags],
) -> GradientTransformation:
    """SOAP's direction: Adam in the eigenbases of Shampoo's factors.

    U = Q_L [M̂' / (√V̂ + ε)] Q_Rᵀ, Adam of G' = Q_Lᵀ G Q_R.

    Args:
      b1: β1 in [0, 1), decay of M'.
      b2: β2 in [0, 1), decay of V.
      shampoo_beta: β_s in [0, 1), decay of L and R; None: β2.
      eps: ε ≥ 0, added to the root.
      refresh_every: k, steps between two refreshes of the bases of one matrix.
      max_dim: the longest axis with a basis.
      one_sided: only the shorter axis has a basis.
      orthogonal: replace U by its orthogonal factor, of U's norm (SOAP-Muon).
      dimensions: which axes of an array are inputs, outputs or batch, as in `matrixwise`.
      shard: axes of a device mesh to spread matrices over, as in `matrixwise`.
      momentum: a kernel in the place of m, as in `scale_by_momentum`; None: m.

    Raises:
      HyperparamError: a number out of its range.

    State: for an n × m matrix 8 n m + 8 (n² + m²) bytes: M', V; L, Q_L, R, Q_R.

    >>> import gradtx, jax.numpy as jnp
    >>> w, g = jnp.zeros((2, 2)), jnp.array([[3.0, 1.0], [0.0, 2.0]])
    >>> tx = gradtx.scale_by_soap(eps=1e-3)
    >>> _, state = tx.update(g, tx.init(w))  # the first gradient makes the bases, and no step
    >>> # G' holds the singular values of G, and Adam's first step makes them 1.
    >>> u, _ = tx.update(g, state)
    >>> jnp.allclose(u @ u.T, jnp.eye(2), atol=1e-2).item()
    True

    Vyas et al. 2024, arXiv 2409.11321, Algorithm 3.
    """
    check_max_dim("scale_by_soap", flags)
    check_rotates("scale_by_soap", momentum)
    return momentwise(_init, _soap, momentum, lifter=matrixwise, vectors="rows", **flags)


@definition
def soap(
    learning_rate: Hyperparam = 3e-3,
    b1: Decay = 0.95,
    b2: Decay = 0.95,
    shampoo_beta: Decay | None = None,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.01,
    mask: Where | None = None,
    *,
    momentum: MomentumKernel | None = None,
    **flags: Unpack[SoapStepFlags],
) -> GradientTransformation:
    r"""SOAP: Adam in the eigenbases of Shampoo's factors, with decoupled weight decay.

    Adam acts in the directions along which the gradients of a matrix vary most and least. For every
    n × m matrix: G' = Q_Lᵀ G Q_R with the eigenvectors Q_L (n × n) and Q_R (m × m) of averages L
    and R of G Gᵀ and Gᵀ G; M' and V, averages of G' and G'²; θ ← θ − η (Q_L [M̂' / (√V̂ + ε)] Q_Rᵀ
    + λ θ).

    The first gradient of a matrix that is not zero makes its eigenvectors, and no step (bias
    corrections count from the second step). Afterwards, every `refresh_every` steps, one step of
    power iteration and a QR decomposition bring the eigenvectors up to date. Each matrix has a step
    of its own for that, so that no step pays for all. A matrix with a side of 1, and a vector or
    scalar, has no factors: AdamW.

    When: matrices dominate, batches are large, and a step may cost more. An n × m matrix costs six
    products, 4 n m (n + m) + 2 n m (n + m) operations, and a QR at a refresh. When not: memory is
    short (`muon` stores one array); axes are much longer than 10 000.

    Args:
      learning_rate: η, parameter units per step; 1e-3 to 1e-2.
      b1: β1 in [0, 1), decay of M'; 0.95.
      b2: β2 in [0, 1), decay of V; 0.9 to 0.99.
      shampoo_beta: β_s in [0, 1), decay of L and R; 0.9 to 0.99; None: β2.
      eps: ε ≥ 0; where √V̂ is below it, steps shrink; 1e-8. Take more than 1e-7 of the gradients'
        size where these have fewer directions than their sides for long. The other directions hold
        only rounding, which Adam would raise to the size of a step.
      weight_decay: λ ≥ 0, a fraction of the parameter per unit of learning rate; 0 to 0.1.
      mask: which leaves decay (see `masked`); None: all.
      refresh_every: k ≥ 1, steps from one refresh of a matrix to its next; 1 (best, dear) to 100;
        10.
      max_dim: the longest axis with a basis; 1024 to 10 000. A longer one, a vocabulary for
        instance, keeps its coordinates.
      one_sided: only the shorter axis has a basis: less memory and time, somewhat slower progress.
      orthogonal: replace U by its orthogonal factor (`gradtx.linalg.orthogonalize`) times
        ‖U‖_F/‖O‖_F: SOAP-Muon.
      dimensions: which axes of an array are inputs, outputs or batch, as in `matrixwise`; None: by
        roles, else the last two, and batch before.
      shard: axes of a device mesh to spread matrices over, as in `matrixwise`.
      momentum: a kernel in the place of M' for matrices, such as `k_maxwell()`; None: M'.
      **flags: `decay_form`, `huber_delta`, `cautious`, `peak_learning_rate` and `axis_names`, as
        `descend` explains them.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: for an n × m matrix 8 n m + 8 (n² + m²) bytes, 24 per parameter of a square one; of L and
    Q_L only, or R and Q_R, with one side; 8 per parameter of a vector.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> turn = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (4, 4)))[0]
    >>> # A valley across the coordinates, a thousand times longer than wide.
    >>> curvature = turn @ jnp.diag(10.0 ** jnp.arange(4.0)) @ turn.T
    >>> def loss_after(tx):
    ...     def step(carry, _):
    ...         w, state = carry
    ...         updates, state = tx.update(curvature @ w, state, w)
    ...         return (w + updates, state), None
    ...     w = jnp.ones((4, 4))
    ...     w, _ = jax.lax.scan(step, (w, tx.init(w)), length=200)[0]
    ...     return float(jnp.sum(w * (curvature @ w)))
    >>> rate = gradtx.cosine_decay_schedule(0.1, 200)
    >>> loss_after(gradtx.soap(rate, weight_decay=0.0)) < loss_after(gradtx.adam(rate)) / 10
    True

    See also: `shampoo`, `kl_soap`, `adamw`, `scale_by_soap`.

    Vyas et al. 2024, arXiv 2409.11321, Algorithm 3, refreshed by Algorithm 4; one side: section 7.
    """
    rule = scale_by_soap(
        b1, b2, shampoo_beta, eps, momentum=momentum, **select_flags(SoapFlags, flags)
    )
    return descend(rule, learning_rate, weight_decay, mask, **select_flags(StepFlags, flags))
