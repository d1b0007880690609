r"""SOAP: Adam in the eigenbases of Shampoo's factors, which turn slowly.

    G' = Q_Lᵀ G Q_R
    M' ← β1 M' + (1 − β1) G'          V ← β2 V + (1 − β2) G'²
    U = Q_L [ M̂' / (√V̂ + ε) ] Q_Rᵀ
    L ← β_s L + (1 − β_s) G Gᵀ        R ← β_s R + (1 − β_s) Gᵀ G
    θ ← θ − η (U + λ θ)

Every k-th step, at a turn of its own, a matrix has its bases refreshed: columns of Q_L in the order
of diag(Q_Lᵀ L Q_L), the largest first, and the rows of V with them, then Q_L ← qr(L Q_L); R alike.
M' is kept in the bases and turns with them: that costs two products at a refresh, while a momentum
in the space of the parameters has to be rotated at every step, for the same result."""

from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.matrixwise import matrixwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import Decay, NonNegative, Precise, Squares
from gradtx.engine.selector import Where
from gradtx.linalg import Factors, orthogonalize, update_factors
from gradtx.transforms.eigenbases import (
    NONE,
    Held,
    any_side,
    identities,
    is_turn,
    kept_sides,
    of_size,
    per_matrix,
    restored,
    rotated,
    turn,
    unused,
    zero_factors,
)
from gradtx.transforms.moments import average, debias
from gradtx.tree.arithmetic import abs_sq
from gradtx.tree.casts import real_zeros, zeros


class InBases(NamedTuple):
    """Moments in the bases, the factors of both sides, and their bases; a side without a factor has
    None.
    """

    mu: jax.Array
    nu: Squares
    left: Precise | None
    right: Precise | None
    left_basis: Precise | None
    right_basis: Precise | None


def _init(param: jax.Array, *, max_dim: int, one_sided: bool) -> InBases:
    sides = kept_sides(param.shape, max_dim, one_sided)
    return InBases(
        zeros(param), real_zeros(param), *zero_factors(param, sides), *identities(param, sides)
    )


def _update(
    grad: jax.Array,
    slots: InBases,
    param: None,
    step: jax.Array,
    *,
    b1: jax.Array,
    b2: jax.Array,
    eps: jax.Array,
    shampoo_beta: jax.Array | None = None,
    refresh_offset: jax.Array,
    refresh_every: int,
    orthogonal: bool,
) -> Any:
    old, bases = Factors(slots.left, slots.right), Factors(slots.left_basis, slots.right_basis)
    if any_side(old) is None:
        direction, mu, nu = adam_step(grad, slots, b1, b2, eps, step)
        return as_muon(direction) if orthogonal else direction, slots._replace(mu=mu, nu=nu)
    direction, mu, nu = adam_step(
        rotated(bases, grad), slots, b1, b2, eps, jnp.maximum(step - 1, 1)
    )
    waits = unused(old, refresh_offset.ndim)
    mu, nu = (jnp.where(per_matrix(waits), 0, moment) for moment in (mu, nu))
    direction = jnp.where(
        per_matrix(waits), 0 * grad, restored(bases, direction)
    )  # nan shows at once
    factors = update_factors(old, grad, b2 if shampoo_beta is None else shampoo_beta)
    begins, due = (
        waits & ~unused(factors, refresh_offset.ndim),
        is_turn(step, refresh_offset, refresh_every) & ~waits,
    )
    held = turn(begins, due, factors, Held(bases, mu, nu, NONE))
    assert held.nu is not None
    return as_muon(direction) if orthogonal else direction, InBases(
        held.mu, held.nu, *factors, *held.bases
    )


def adam_step(
    grad: jax.Array, slots: Any, b1: jax.Array, b2: jax.Array, eps: jax.Array, step: jax.Array
) -> tuple[Any, Any, Any]:
    """Adam's direction and moments, in whatever bases."""
    mu, nu = average(slots.mu, grad, b1), average(slots.nu, abs_sq(grad), b2)
    return debias(mu, b1, step) / (jnp.sqrt(debias(nu, b2, step)) + eps), mu, nu


def as_muon(direction: jax.Array) -> jax.Array:
    """The orthogonal factor of a direction, of the same Frobenius norm."""
    return (
        of_size(orthogonalize(direction), direction) if min(direction.shape[-2:]) > 1 else direction
    )


def check_max_dim(name: str, max_dim: int) -> None:
    if isinstance(max_dim, bool) or not isinstance(max_dim, int) or max_dim < 1:
        raise HyperparamError(
            f"{name}: max_dim = {max_dim!r} is no length of an axis; give a whole number from 1 on"
        )


@definition
def scale_by_soap(
    b1: Decay = 0.95,
    b2: Decay = 0.95,
    shampoo_beta: Decay | None = None,
    eps: NonNegative = 1e-8,
    *,
    refresh_every: int = 10,
    max_dim: int = 10_000,
    one_sided: bool = False,
    orthogonal: bool = False,
    dimensions: Any = None,
    shard: Any = None,
) -> GradientTransformation:
    """SOAP's direction: U = Q_L [M̂' / (√V̂ + ε)] Q_Rᵀ, Adam of G' = Q_Lᵀ G Q_R.

    Args:
      b1: β1 in [0, 1), decay of M'.
      b2: β2 in [0, 1), decay of V.
      shampoo_beta: β_s in [0, 1), decay of L and R; None: β2.
      eps: ε ≥ 0, beside the root.
      refresh_every: k, steps between two refreshes of the bases of one matrix.
      max_dim: the longest axis that is rotated.
      one_sided: only the shorter axis is rotated.
      orthogonal: the orthogonal factor of U in its place, of U's norm (SOAP-Muon).
      dimensions: which axes of an array are inputs, outputs or batch, as in `matrixwise`.
      shard: axes of a device mesh to spread matrices over, as in `matrixwise`.

    Raises:
      HyperparamError: a number out of its range.

    State: for an n × m matrix 8 n m + 8 (n² + m²) bytes: M', V; L, Q_L, R, Q_R.

    >>> import gradtx, jax.numpy as jnp
    >>> w, g = jnp.zeros((2, 2)), jnp.array([[3.0, 1.0], [0.0, 2.0]])
    >>> tx = gradtx.scale_by_soap(eps=1e-3)
    >>> _, state = tx.update(g, tx.init(w))  # the first gradient makes the bases, and no step
    >>> u, _ = tx.update(g, state)  # G' holds the singular values of G, and Adam's first step makes them 1
    >>> jnp.allclose(u @ u.T, jnp.eye(2), atol=1e-2).item()
    True

    Vyas et al. 2024, arXiv 2409.11321, Algorithm 3.
    """
    check_max_dim("scale_by_soap", max_dim)
    return matrixwise(
        _init,
        _update,
        b1=b1,
        b2=b2,
        eps=eps,
        **{} if shampoo_beta is None else {"shampoo_beta": shampoo_beta},
        refresh_every=refresh_every,
        max_dim=max_dim,
        one_sided=one_sided,
        orthogonal=orthogonal,
        dimensions=dimensions,
        shard=shard,
        vectors="rows",
    )


@definition
def soap(
    learning_rate: NonNegative = 3e-3,
    b1: Decay = 0.95,
    b2: Decay = 0.95,
    shampoo_beta: Decay | None = None,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.01,
    mask: Where | None = None,
    *,
    refresh_every: int = 10,
    max_dim: int = 10_000,
    one_sided: bool = False,
    orthogonal: bool = False,
    dimensions: Any = None,
    shard: Any = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""AdamW for matrices in the directions along which their gradients vary most and least.

    For every n × m matrix: G' = Q_Lᵀ G Q_R with the eigenvectors Q_L (n × n) and Q_R (m × m) of
    averages L and R of G Gᵀ and Gᵀ G; M' and V, averages of G' and G'²; θ ← θ − η (Q_L [M̂' / (√V̂
    + ε)] Q_Rᵀ + λ θ).

    A matrix makes no step with its first gradient that is not zero: eigenvectors are made from it
    (bias corrections count from the step behind the first). Afterwards, every `refresh_every`
    steps, the eigenvectors are brought up to date by one step of power iteration and a QR
    decomposition, each matrix at a turn of its own, so that no step pays for all. A matrix with a
    side of 1, and a
    vector or scalar, has no factors: AdamW.

    When: matrices dominate, batches are large, and a step may cost more: per n × m matrix six
    products, 4 n m (n + m) + 2 n m (n + m) operations, and now and then QR. When not: memory is
    short (`muon` keeps one array); axes are much longer than 10 000.

    Args:
      learning_rate: η ≥ 0, parameter units per step; 1e-3 to 1e-2.
      b1: β1 in [0, 1), decay of M'; 0.95.
      b2: β2 in [0, 1), decay of V; 0.9 to 0.99.
      shampoo_beta: β_s in [0, 1), decay of L and R; 0.9 to 0.99; None: β2.
      eps: ε ≥ 0; where √V̂ is below it, steps shrink; 1e-8. Above 1e-7 of the gradients' size where
        these have fewer directions than
        their sides for long: what is left in the others is rounding, which Adam would raise to the
        size of a step.
      weight_decay: λ ≥ 0, a fraction of the parameter per unit of learning rate; 0 to 0.1.
      mask: which leaves decay (see `masked`); None: all.
      refresh_every: k ≥ 1, steps from one refresh of a matrix to its next; 1 (best, dear) to 100;
        10.
      max_dim: the longest axis that is rotated; 1024 to 10 000. A longer one, such as a vocabulary,
        keeps its coordinates.
      one_sided: only the shorter axis is rotated: less memory and time, somewhat slower progress.
      orthogonal: U is replaced by its orthogonal factor (`gradtx.linalg.orthogonalize`) times
        ‖U‖_F/‖O‖_F: SOAP-Muon.
      dimensions: which axes of an array are inputs, outputs or batch, as in `matrixwise`; None: the
        last two, and batch before.
      shard: axes of a device mesh to spread matrices over, as in `matrixwise`.
      **flags: `decay_form`, `cautious` and `peak_learning_rate`, as `descend` explains them.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: for an n × m matrix 8 n m + 8 (n² + m²) bytes, 24 per parameter of a square one; of L and
    Q_L only, or R and Q_R, with one side; 8 per parameter of a vector.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> turn = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (4, 4)))[0]
    >>> curvature = turn @ jnp.diag(10.0 ** jnp.arange(4.0)) @ turn.T  # a valley across the coordinates, a thousand times longer than wide
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
        b1,
        b2,
        shampoo_beta,
        eps,
        refresh_every=refresh_every,
        max_dim=max_dim,
        one_sided=one_sided,
        orthogonal=orthogonal,
        dimensions=dimensions,
        shard=shard,
    )
    return descend(rule, learning_rate, weight_decay, mask, **flags)
