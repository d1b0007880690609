r"""KL-Shampoo: Shampoo whose two factors are fitted together, each to gradients that the other has
whitened.

    L ← β2 L + (1 − β2) G R⁻¹ Gᵀ / m          R ← β2 R + (1 − β2) Gᵀ L⁻¹ G / n
    U = L^(−1/2) M̂ R^(−1/2),   M ← β1 M + (1 − β1) G
    θ ← θ − η (U + λ θ)

Once G R⁻¹ Gᵀ / m averages to L and Gᵀ L⁻¹ G / n to R, L ⊗ R is the nearest to E[vec G vec Gᵀ] by
the divergence of Kullback and Leibler. Inverses and roots are those of eigenvalues λ in bases Q
that turn slowly, as in SOAP; the eigenvalues follow at every step: λ_L ← β2 λ_L + (1 − β2)
diag(Q_Lᵀ (G R⁻¹ Gᵀ / m) Q_L). M is kept in the bases too."""

from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.matrixwise import matrixwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, NonNegative, Precise, Squares
from gradtx.engine.selector import Where
from gradtx.linalg import Factors, multiply_sides
from gradtx.linalg.newton_schulz import adjoint
from gradtx.optimizers.soap import adam_step, check_max_dim
from gradtx.transforms.eigenbases import (
    Held,
    any_side,
    identities,
    identity,
    is_turn,
    kept_sides,
    per_matrix,
    restored,
    squared_size,
    turn,
    unused,
    zero_factors,
    zero_values,
)
from gradtx.transforms.moments import average, debias
from gradtx.tree.arithmetic import abs_sq
from gradtx.tree.casts import real_zeros, zeros


class Whitened(NamedTuple):
    """A momentum in the bases, and the factors, bases and eigenvalues of both sides; a vector has
    Adam's moments, and nothing else.
    """

    mu: jax.Array
    nu: Squares | None
    left: Precise | None
    right: Precise | None
    left_basis: Precise | None
    right_basis: Precise | None
    left_values: Precise | None
    right_values: Precise | None


def _init(param: jax.Array, *, max_dim: int, one_sided: bool) -> Whitened:
    sides = kept_sides(param.shape, max_dim, one_sided)
    nu = None if any(sides) else real_zeros(param)
    return Whitened(
        zeros(param),
        nu,
        *zero_factors(param, sides),
        *identities(param, sides),
        *zero_values(param, sides),
    )


def _update(
    grad: jax.Array,
    slots: Whitened,
    param: None,
    step: jax.Array,
    *,
    b1: jax.Array,
    b2: jax.Array,
    eps: jax.Array,
    floor: jax.Array,
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
    turned, factors, values = fitted(grad, old, bases, values, b2, floor)
    begins = unused(old, refresh_offset.ndim) & ~unused(factors, refresh_offset.ndim)
    held = Held(bases, average(slots.mu, turned, b1), None, values)
    held = turn(begins, is_turn(step, refresh_offset, refresh_every), factors, held)
    left, right = _whitening(held.values, floor)
    white = _scaled(left, debias(held.mu, b1, step), right)
    return restored(held.bases, white), Whitened(held.mu, None, *factors, *held.bases, *held.values)


def fitted(
    grad: jax.Array,
    factors: Factors,
    bases: Factors,
    values: Factors,
    decay: jax.Array,
    floor: jax.Array,
) -> tuple[jax.Array, Factors, Factors]:
    """The gradient in the bases, and the factors and eigenvalues after a step of their averages,
    each from the other as it was.
    """
    n, m = grad.shape[-2:]
    old, seen = _started(grad, factors, values)
    left, right = _whitening(seen, floor)
    by_right = multiply_sides(None, grad, bases.right)
    turned = multiply_sides(None if bases.left is None else adjoint(bases.left), by_right, None)
    by_left = multiply_sides(None if bases.left is None else adjoint(bases.left), grad, None)
    rows, columns = _scaled(None, by_right, right), _scaled(left, by_left, None)
    new = Factors(
        None if old.left is None else average(old.left, rows @ adjoint(rows) / m, decay),
        None if old.right is None else average(old.right, adjoint(columns) @ columns / n, decay),
    )
    shares = abs_sq(_scaled(None, turned, right)), abs_sq(_scaled(left, turned, None))
    found = Factors(
        None if seen.left is None else average(seen.left, jnp.sum(shares[0], axis=-1) / m, decay),
        None if seen.right is None else average(seen.right, jnp.sum(shares[1], axis=-2) / n, decay),
    )
    return turned, new, found


def _started(grad: jax.Array, factors: Factors, values: Factors) -> tuple[Factors, Factors]:
    """Factors and eigenvalues as they are; before the first gradient multiples of the identity
    whose product is its mean square.
    """
    batch = grad.ndim - 2
    waits = unused(factors, batch)
    size = squared_size(grad)[..., 0] / max(grad.shape[-2] * grad.shape[-1], 1)
    size = jnp.where(per_matrix(waits)[..., 0], jnp.sqrt(size) if None not in factors else size, 0)
    seen = Factors(*(None if value is None else value + size for value in values))
    return Factors(
        *(
            None if factor is None else factor + size[..., None] * identity(factor)
            for factor in factors
        )
    ), seen


def _whitening(values: Factors, floor: jax.Array) -> Factors:
    """1 / √max(λ, φ max λ) of each side; 0 where all are 0."""
    kept = (
        None
        if found is None
        else jnp.maximum(found, floor * jnp.max(found, axis=-1, keepdims=True, initial=0))
        for found in values
    )
    return Factors(
        *(
            None
            if value is None
            else jnp.where(value > 0, jax.lax.rsqrt(jnp.where(value > 0, value, 1)), 0)
            for value in kept
        )
    )


def _scaled(left: jax.Array | None, x: jax.Array, right: jax.Array | None) -> jax.Array:
    """X between two diagonal matrices."""
    x = x if left is None else left[..., :, None] * x
    return x if right is None else x * right[..., None, :]


@definition
def scale_by_kl_shampoo(
    b1: Decay = 0.95,
    b2: Decay = 0.95,
    eps: NonNegative = 1e-8,
    *,
    floor: NonNegative = 1e-6,
    refresh_every: int = 10,
    max_dim: int = 10_000,
    one_sided: bool = False,
    dimensions: Any = None,
    shard: Any = None,
) -> GradientTransformation:
    """KL-Shampoo's direction: U = L^(−1/2) M̂ R^(−1/2), where each factor averages gradients
    whitened by the other.

    Args:
      b1: β1 in [0, 1), decay of M.
      b2: β2 in [0, 1), decay of L, R and their eigenvalues; of Adam's V for vectors.
      eps: ε ≥ 0, of Adam for vectors.
      floor: φ ≥ 0: eigenvalues count as at least φ times the largest of their side.
      refresh_every: k, steps between two refreshes of the bases of one matrix.
      max_dim: the longest axis that has a factor.
      one_sided: only the shorter axis has one.
      dimensions: which axes of an array are inputs, outputs or batch, as in `matrixwise`.
      shard: axes of a device mesh to spread matrices over, as in `matrixwise`.

    Raises:
      HyperparamError: a number out of its range.

    State: for an n × m matrix 4 n m + 8 (n² + m²) + 4 (n + m) bytes: M; L, Q_L, R, Q_R; their
    eigenvalues.

    >>> import gradtx, jax.numpy as jnp
    >>> w, g = jnp.zeros((2, 2)), jnp.array([[3.0, 1.0], [0.0, 2.0]])
    >>> tx = gradtx.scale_by_kl_shampoo(b1=0.0, b2=0.0)  # factors of this gradient alone, whitened by its size
    >>> u, _ = tx.update(1e-3 * g, tx.init(w))
    >>> scale = float(jnp.sqrt(jnp.mean(g**2)))
    >>> jnp.allclose(u, 2 * scale * jnp.linalg.inv(g).T, atol=1e-3).item()  # L ∝ g gᵀ and R ∝ gᵀ g
    True

    Lin et al. 2025, arXiv 2509.03378, section 4.
    """
    check_max_dim("scale_by_kl_shampoo", max_dim)
    return matrixwise(
        _init,
        _update,
        b1=b1,
        b2=b2,
        eps=eps,
        floor=floor,
        refresh_every=refresh_every,
        max_dim=max_dim,
        one_sided=one_sided,
        dimensions=dimensions,
        shard=shard,
        vectors="rows",
    )


@definition
def kl_shampoo(
    learning_rate: NonNegative = 3e-3,
    b1: Decay = 0.95,
    b2: Decay = 0.95,
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
    r"""Gradients whitened along rows and columns by two factors fitted together, without Adam's
    second moments or a borrowed step size.

    For every n × m matrix: L (n × n) and R (m × m) average G R⁻¹ Gᵀ / m and Gᵀ L⁻¹ G / n, M
    averages G; θ ← θ − η (L^(−1/2) M̂ R^(−1/2) + λ θ).

    The first gradient that is not zero meets L = R = s I, with s the root of its mean square, so
    that steps have size about η whatever the scale of gradients; then eigenvectors are made.
    Afterwards they are brought up to date every `refresh_every` steps, each matrix at a turn of its
    own. With one side alone the other counts as the identity. A matrix with a side of 1, and a
    vector or scalar: AdamW.

    When: in place of `soap`, at less memory: no second moments. When not: axes are longer than 10
    000 on both sides (AdamW remains), or gradients have few directions for long, where eigenvalues
    near zero rule; raise φ then, or take `kl_soap`.

    Args:
      learning_rate: η ≥ 0, parameter units per step; 1e-3 to 1e-2.
      b1: β1 in [0, 1), decay of M; 0.9 to 0.95.
      b2: β2 in [0, 1), decay of L, R and their eigenvalues; 0.9 to 0.99.
      eps: ε ≥ 0, beside Adam's root, for vectors; 1e-8.
      weight_decay: λ ≥ 0, a fraction of the parameter per unit of learning rate; 0 to 0.1.
      mask: which leaves decay (see `masked`); None: all.
      floor: φ ≥ 0: eigenvalues count as at least φ times the largest of their side; 1e-6. In
        float32 it is to stay above 1e-7, so that directions that gradients do not have any more are
        not whitened, since rounding alone is left in them.
      refresh_every: k ≥ 1, steps from one refresh of a matrix to its next; 1 to 100; 10.
      max_dim: the longest axis that has a factor; 1024 to 10 000.
      one_sided: only the shorter axis has one.
      dimensions: which axes of an array are inputs, outputs or batch, as in `matrixwise`; None: the
        last two, and batch before.
      shard: axes of a device mesh to spread matrices over, as in `matrixwise`.
      **flags: `decay_form`, `cautious` and `peak_learning_rate`, as `descend` explains them.

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
    >>> jnp.allclose(step(g), step(1000 * g), atol=1e-5).item()  # the size of the gradient does not matter
    True

    See also: `kl_soap`, `shampoo`, `soap`, `scale_by_kl_shampoo`.

    Lin et al. 2025, arXiv 2509.03378, section 4: moving averages of both factors, and of
    eigenvalues in an outdated basis. Where the factors start is not the paper's.
    """
    rule = scale_by_kl_shampoo(
        b1,
        b2,
        eps,
        floor=floor,
        refresh_every=refresh_every,
        max_dim=max_dim,
        one_sided=one_sided,
        dimensions=dimensions,
        shard=shard,
    )
    return descend(rule, learning_rate, weight_decay, mask, **flags)
