r"""KL-Shampoo: Shampoo with two factors fitted together, each to gradients that the other whitened.

    L ← β2 L + (1 − β2) G R⁻¹ Gᵀ / m          R ← β2 R + (1 − β2) Gᵀ L⁻¹ G / n
    U = L^(−1/2) M̂ R^(−1/2),   M ← β1 M + (1 − β1) G
    θ ← θ − η (U + λ θ)

Once G R⁻¹ Gᵀ / m averages to L and Gᵀ L⁻¹ G / n to R, L ⊗ R is the nearest to E[vec G vec Gᵀ] by
the divergence of Kullback and Leibler. Inverses and roots are those of eigenvalues λ in bases Q
that turn slowly, as in SOAP. The eigenvalues are updated at every step: λ_L ← β2 λ_L + (1 − β2)
diag(Q_Lᵀ (G R⁻¹ Gᵀ / m) Q_L). M is stored in the bases too.
"""

from typing import NamedTuple, Unpack

import jax

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
    choose_sides,
    has_factors,
    identities,
    is_refresh_step,
    refresh_bases,
    rotate_back,
    zero_factors,
    zero_values,
)
from gradtx.transforms.flags import select_flags
from gradtx.transforms.kl_factors import (
    KlFlags,
    KlStepFlags,
    inverse_roots,
    scale_sides,
    update_kl_factors,
)
from gradtx.transforms.moments import average, debias
from gradtx.tree.casts import real_zeros, zeros


class KlWhitening(NamedTuple):
    """A momentum in the bases; the factors of both sides, their bases and eigenvalues.

    A vector has Adam's moments, and nothing else.
    """

    mu: jax.Array
    nu: Squares | None
    left: Precise | None
    right: Precise | None
    left_basis: Precise | None
    right_basis: Precise | None
    left_values: Precise | None
    right_values: Precise | None


def _init(param, *, max_dim: int, one_sided: bool) -> KlWhitening:
    sides = choose_sides(param.shape, max_dim, one_sided)
    nu = None if any(sides) else real_zeros(param)
    factors, bases = zero_factors(param, sides), identities(param, sides)
    return KlWhitening(zeros(param), nu, *factors, *bases, *zero_values(param, sides))


def _kl_shampoo(
    grad,
    slots: KlWhitening,
    param,
    step,
    *,
    b1,
    b2,
    eps,
    floor,
    refresh_offset,
    refresh_every: int,
):
    old, bases = Factors(slots.left, slots.right), Factors(slots.left_basis, slots.right_basis)
    if not has_factors(old):
        direction, mu, nu = adam_direction(grad, slots, step, b1, b2, eps)
        return direction, slots._replace(mu=mu, nu=nu)
    values = Factors(slots.left_values, slots.right_values)
    rotated, factors, values = update_kl_factors(grad, old, bases, values, b2, floor)
    batch = refresh_offset.ndim
    is_first = all_zero(old, batch) & ~all_zero(factors, batch)
    is_due = is_refresh_step(step, refresh_offset, refresh_every)
    state = Rotating(bases, average(slots.mu, rotated, b1), None, values)
    new = refresh_bases(is_first, is_due, factors, state)
    left, right = inverse_roots(new.values, floor)
    white = scale_sides(left, debias(new.mu, b1, step), right)
    slots = KlWhitening(new.mu, None, *factors, *new.bases, *new.values)
    return rotate_back(new.bases, white), slots


@definition
def scale_by_kl_shampoo(
    b1: Decay = 0.95,
    b2: Decay = 0.95,
    eps: NonNegative = 1e-8,
    **flags: Unpack[KlFlags],
) -> GradientTransformation:
    """KL-Shampoo's direction: momentum whitened by two factors fitted together.

    U = L^(−1/2) M̂ R^(−1/2). Each factor averages gradients that the other whitened.

    Args:
      b1: β1 in [0, 1), decay of M.
      b2: β2 in [0, 1), decay of L, R and their eigenvalues; of Adam's V for vectors.
      eps: ε ≥ 0, of Adam for vectors.
      floor: φ ≥ 0: eigenvalues count as at least φ times the largest of their side.
      refresh_every: k, steps between two refreshes of the bases of one matrix.
      max_dim: the longest axis with a factor.
      one_sided: only the shorter axis has one.
      dimensions: which axes of an array are inputs, outputs or batch, as in `matrixwise`.
      shard: axes of a device mesh to spread matrices over, as in `matrixwise`.

    Raises:
      HyperparamError: a number out of its range.

    State: for an n × m matrix 4 n m + 8 (n² + m²) + 4 (n + m) bytes: M; L, Q_L, R, Q_R; their
    eigenvalues.

    >>> import gradtx, jax.numpy as jnp
    >>> w, g = jnp.zeros((2, 2)), jnp.array([[3.0, 1.0], [0.0, 2.0]])
    >>> tx = gradtx.scale_by_kl_shampoo(b1=0.0, b2=0.0)  # factors of this gradient alone
    >>> u, _ = tx.update(1e-3 * g, tx.init(w))
    >>> scale = float(jnp.sqrt(jnp.mean(g**2)))
    >>> expected = 2 * scale * jnp.linalg.inv(g).T  # L ∝ g gᵀ and R ∝ gᵀ g
    >>> jnp.allclose(u, expected, atol=1e-3).item()
    True

    Lin et al. 2025, arXiv 2509.03378, section 4.
    """
    check_max_dim("scale_by_kl_shampoo", flags)
    return matrixwise(_init, _kl_shampoo, vectors="rows", **flags)


@definition
def kl_shampoo(
    learning_rate: Hyperparam = 3e-3,
    b1: Decay = 0.95,
    b2: Decay = 0.95,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.01,
    mask: Where | None = None,
    **flags: Unpack[KlStepFlags],
) -> GradientTransformation:
    r"""KL-Shampoo: Shampoo with factors fitted by the Kullback-Leibler divergence.

    Two factors whiten the momentum along rows and columns, without Adam's second moments or a
    grafted step size. For every n × m matrix: L (n × n) and R (m × m) average G R⁻¹ Gᵀ / m and
    Gᵀ L⁻¹ G / n, M averages G; θ ← θ − η (L^(−1/2) M̂ R^(−1/2) + λ θ).

    The first gradient that is not zero meets L = R = s I, with s the root of its mean square. So
    steps have size about η at every scale of the gradients. Then it makes the eigenvectors.
    Afterwards they are refreshed every `refresh_every` steps, each matrix at a step of its own.
    With one side alone the other counts as the identity. A matrix with a side of 1, and a vector or
    scalar: AdamW.

    When: in place of `soap`, with less memory: no second moments. When not: axes are longer than
    10 000 on both sides (AdamW remains); gradients have few directions for long, where eigenvalues
    near zero dominate: raise φ then, or take `kl_soap`.

    Args:
      learning_rate: η, parameter units per step; 1e-3 to 1e-2.
      b1: β1 in [0, 1), decay of M; 0.9 to 0.95.
      b2: β2 in [0, 1), decay of L, R and their eigenvalues; 0.9 to 0.99.
      eps: ε ≥ 0, added to Adam's root, for vectors; 1e-8.
      weight_decay: λ ≥ 0, a fraction of the parameter per unit of learning rate; 0 to 0.1.
      mask: which leaves decay (see `masked`); None: all.
      floor: φ ≥ 0: eigenvalues count as at least φ times the largest of their side; 1e-6. Keep it
        above 1e-7 in float32: a direction that gradients no longer have holds only rounding, which
        must not be whitened.
      refresh_every: k ≥ 1, steps from one refresh of a matrix to its next; 1 to 100; 10.
      max_dim: the longest axis with a factor; 1024 to 10 000.
      one_sided: only the shorter axis has one.
      dimensions: which axes of an array are inputs, outputs or batch, as in `matrixwise`; None: by
        roles, else the last two, and batch before.
      shard: axes of a device mesh to spread matrices over, as in `matrixwise`.
      **flags: `decay_form`, `huber_delta`, `cautious`, `peak_learning_rate` and `axis_names`, as
        `descend` explains them.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: for an n × m matrix 4 n m + 8 (n² + m²) + 4 (n + m) bytes, about 20 per parameter of a
    square one; 8 per parameter of a vector.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> w = jnp.zeros((2, 3))
    >>> g = jax.random.normal(jax.random.key(0), (2, 3))
    >>> def step(gradient):
    ...     tx = gradtx.kl_shampoo(0.1)
    ...     return tx.update(gradient, tx.init(w), w)[0]
    >>> # The size of the gradient does not matter.
    >>> jnp.allclose(step(g), step(1000 * g), atol=1e-5).item()
    True

    See also: `kl_soap`, `shampoo`, `soap`, `scale_by_kl_shampoo`.

    Lin et al. 2025, arXiv 2509.03378, section 4: moving averages of both factors, and of
    eigenvalues in an outdated basis. Where the factors start is not the paper's.
    """
    rule = scale_by_kl_shampoo(b1, b2, eps, **select_flags(KlFlags, flags))
    return descend(rule, learning_rate, weight_decay, mask, **select_flags(StepFlags, flags))
