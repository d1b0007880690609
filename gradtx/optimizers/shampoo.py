r"""Shampoo: momentum between inverse roots of the second moments of rows and columns, its length
grafted from a diagonal method.

    L ← β2 L + (1 − β2) G Gᵀ          R ← β2 R + (1 − β2) Gᵀ G          (β2 = 1: sums)
    M ← β1 M + (1 − β1) G
    D = (L̂ + ε λ̄_L I)^(−p) M̂ (R̂ + ε λ̄_R I)^(−p),   p = 1/4, λ̄ the mean eigenvalue
    U = D ‖u‖_F / ‖D‖_F
    θ ← θ − η (U + λ θ)

u is the direction of the graft: that of Adam, RMSProp, SGD or sign descent, from the same M̂. Axes
longer than `max_dim` are cut, and every block has factors of its own. Roots are refreshed every
k-th step, at a step of its own for every matrix, and at the first gradient.
"""

import functools
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.matrixwise import matrixwise, where_due
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import (
    Decay,
    Default,
    Fraction,
    Hyperparam,
    NonNegative,
    Precise,
    Squares,
)
from gradtx.engine.selector import Where
from gradtx.linalg import (
    Factors,
    block_grid,
    inverse_root,
    join_blocks,
    multiply_sides,
    split_blocks,
    update_factors,
)
from gradtx.transforms.eigenbases import (
    all_zero,
    check_max_dim,
    choose_sides,
    has_factors,
    identities,
    identity,
    is_refresh_step,
    match_size,
    per_matrix,
    zero_factors,
)
from gradtx.transforms.flags import MatrixFlags, select_flags
from gradtx.transforms.moments import average, debias
from gradtx.tree.arithmetic import abs_sq, sqrt
from gradtx.tree.casts import real_zeros, zeros

Graft = Literal["adam", "rmsprop", "sgd", "sign", "none"]
Method = Literal["eigh", "newton"]


class ShampooFlags(MatrixFlags, total=False):
    """The keyword arguments that `scale_by_shampoo` and `shampoo` share."""

    graft: Annotated[Graft, Default("adam")]
    graft_b2: Annotated[Decay, Default(0.999)]
    graft_eps: Annotated[NonNegative, Default(1e-8)]
    exponent: float | None
    refresh_every: Annotated[int, Default(10)]
    max_dim: Annotated[int, Default(1024)]
    one_sided: Annotated[bool, Default(False)]
    method: Annotated[Method, Default("eigh")]


class ShampooStepFlags(ShampooFlags, StepFlags, total=False):
    """The flags of `shampoo`."""


class Preconditioner(NamedTuple):
    """A momentum, the squares of the graft, and all factors with their inverse roots."""

    mu: jax.Array
    nu: Squares | None
    left: Precise | None
    right: Precise | None
    left_root: Precise | None
    right_root: Precise | None


def _init(param, *, max_dim: int, one_sided: bool, graft: Graft) -> Preconditioner:
    nu = real_zeros(param) if graft in ("adam", "rmsprop") else None
    # Long axes are cut into blocks, so no axis is too long for a factor.
    sides = choose_sides(param.shape, max(param.shape[-2:]) or 1, one_sided)
    blocks = _block_shape(param.shape, max_dim)
    factors, roots = zero_factors(param, sides, blocks), identities(param, sides, blocks)
    return Preconditioner(zeros(param), nu, *factors, *roots)


def _is_cut(shape: tuple[int, ...], max_dim: int) -> bool:
    return max(shape[-2:]) > max_dim


def _block_shape(shape: tuple[int, ...], max_dim: int) -> tuple[int, ...]:
    """The shape of the blocks of a matrix, or its own where it is not cut."""
    if not _is_cut(shape, max_dim):
        return shape
    grid, block = block_grid(shape, max_dim)
    return (*shape[:-2], *grid, *block)


def _shampoo(
    grad,
    slots: Preconditioner,
    param,
    step,
    *,
    b1,
    b2,
    eps,
    graft_b2,
    graft_eps,
    refresh_offset,
    refresh_every: int,
    max_dim: int,
    graft: Graft,
    exponent: float | None,
    method: Method,
):
    mu = average(slots.mu, grad, b1)
    mean = debias(mu, b1, step)
    nu = None if slots.nu is None else average(slots.nu, abs_sq(grad), graft_b2)
    grafted = _graft(mean, nu, step, graft_b2, graft_eps, graft)
    old, roots = Factors(slots.left, slots.right), Factors(slots.left_root, slots.right_root)
    if not has_factors(old):
        return grafted, slots._replace(mu=mu, nu=nu)
    cut = _is_cut(grad.shape, max_dim)
    is_average = b2 < 1  # β2 = 1 adds up, as in the first paper: weight 1 and no bias
    weight = jnp.where(is_average, 1 - b2, 1)
    factors = update_factors(old, split_blocks(grad, max_dim) if cut else grad, b2, weight)
    batch = refresh_offset.ndim
    is_first = all_zero(old, batch) & ~all_zero(factors, batch)
    if exponent is None:
        exponent = 0.5 if None in old else 0.25
    unbias = debias(jnp.ones_like(step), jnp.where(is_average, b2, 0), step)
    compute_roots = functools.partial(
        _roots, unbias=unbias, eps=eps, p=_inverse(exponent), method=method
    )
    is_due = is_refresh_step(step, refresh_offset, refresh_every) | is_first
    roots = where_due(is_due, compute_roots, (factors,), roots)
    blocks = split_blocks(mean, max_dim) if cut else mean
    direction = multiply_sides(roots.left, blocks, roots.right)
    direction = join_blocks(direction, grad.shape) if cut else direction
    update = direction if graft == "none" else match_size(direction, grafted)
    return update, Preconditioner(mu, nu, *factors, *roots)


def _graft(mean, nu, step, b2, eps, graft: Graft):
    """The direction of the graft, which is also the update of vectors."""
    if graft == "adam":
        return mean / (sqrt(debias(nu, b2, step)) + eps)
    if graft == "rmsprop":
        return mean / (sqrt(nu) + eps)
    return jnp.sign(mean) if graft == "sign" else mean


def _inverse(exponent: float) -> float:
    """1 / exponent, a whole number where only rounding prevents it."""
    p = 1 / exponent
    return round(p) if abs(p - round(p)) < 1e-9 else p


def _roots(factors: Factors, *, unbias, eps, p: float, method: Method) -> Factors:
    """The inverse roots of all blocks of one matrix."""
    left, right = (
        None if factor is None else _root(factor, unbias, eps, p, method) for factor in factors
    )
    return Factors(left, right)


def _root(factor: jax.Array, unbias, eps, p: float, method: Method) -> jax.Array:
    """(A + ε λ̄ I)^(−1/p); the identity where A is zero."""
    factor = unbias.astype(factor.real.dtype) * factor
    mean = jnp.trace(factor, axis1=-2, axis2=-1).real / factor.shape[-1]
    # The ridge is absolute, because it is in units of the mean eigenvalue, not of the largest.
    root = inverse_root(factor, p, method=method, ridge=eps * mean, relative=False)
    # A block without any gradient so far: its inverse root would be infinite.
    return jnp.where(per_matrix(mean == 0), identity(factor), root)


def _check(flags: Mapping[str, Any]) -> None:
    exponent = flags["exponent"]
    if exponent is None:
        return
    if not exponent > 0:
        raise HyperparamError(
            f"scale_by_shampoo: exponent = {exponent!r} is not above 0; give 1/4, 1/2, or None"
        )
    if flags["method"] == "newton" and not isinstance(_inverse(exponent), int):
        raise HyperparamError(
            f"scale_by_shampoo: exponent = {exponent!r} is not 1/p with a whole p, which method = "
            "'newton' needs; take 'eigh'"
        )


@definition
def scale_by_shampoo(
    b1: Decay = 0.9,
    b2: Fraction = 0.99,
    eps: NonNegative = 1e-6,
    **flags: Unpack[ShampooFlags],
) -> GradientTransformation:
    """Shampoo's direction: momentum between inverse roots, with a grafted length.

    D = L^(−p) M̂ R^(−p), of the length of the graft's direction.

    Args:
      b1: β1 in [0, 1), decay of M.
      b2: β2 in [0, 1], decay of L and R; 1: sums.
      eps: ε ≥ 0, a ridge, in units of the mean eigenvalue of each factor.
      graft: the method that gives D its length: "adam", "rmsprop", "sgd", "sign", or "none".
      graft_b2: decay of the graft's average of G², for "adam" and "rmsprop".
      graft_eps: ε added to the graft's root.
      exponent: p > 0; None: 1/4 for two sides, 1/2 for one.
      refresh_every: k, steps between two refreshes of the roots of one matrix.
      max_dim: the longest side of a block.
      one_sided: only the shorter axis has a factor.
      method: how roots are computed: "eigh", or "newton", with products alone.
      dimensions: which axes of an array are inputs, outputs or batch, as in `matrixwise`.
      shard: axes of a device mesh to spread matrices over, as in `matrixwise`.

    Raises:
      HyperparamError: a number out of its range, a graft or method of another name.

    State: for an n × m matrix 8 n m + 8 (n² + m²) bytes: M, V; L, R and their roots; 4 n m less
    without a graft that keeps V.

    >>> import gradtx, jax.numpy as jnp
    >>> w, g = jnp.zeros((2, 2)), jnp.array([[3.0, 1.0], [0.0, 2.0]])
    >>> tx = gradtx.scale_by_shampoo(b1=0.0, b2=0.0, graft="none")
    >>> u, _ = tx.update(g, tx.init(w))  # factors of one gradient: its orthogonal factor
    >>> jnp.allclose(u @ u.T, jnp.eye(2), atol=1e-4).item()
    True

    Gupta, Koren and Singer 2018, arXiv 1802.09568, Algorithm 1; grafting: Anil et al. 2020, arXiv
    2002.09018, section 4."""
    check_max_dim("scale_by_shampoo", flags)
    _check(flags)
    return matrixwise(_init, _shampoo, vectors="rows", **flags)


@definition
def shampoo(
    learning_rate: Hyperparam,
    b1: Decay = 0.9,
    b2: Fraction = 0.99,
    eps: NonNegative = 1e-6,
    weight_decay: NonNegative = 0.0,
    mask: Where | None = None,
    **flags: Unpack[ShampooStepFlags],
) -> GradientTransformation:
    r"""Shampoo: Kronecker-factored preconditioning with a grafted step size.

    It evens the momentum out along the directions in which rows and columns of the gradient vary.
    For every n × m matrix: L (n × n) and R (m × m) average G Gᵀ and Gᵀ G, M averages G, D = L̂^(−p)
    M̂ R̂^(−p); θ ← θ − η (D ‖u‖_F / ‖D‖_F + λ θ) with the graft's direction u for this matrix.

    The first gradient of a matrix that is not zero makes its roots, so every step has them. They
    are refreshed every `refresh_every` steps, each matrix at a step of its own, so that no later
    step pays for all. L and R are averages corrected for their start. The ridge bounds the roots of
    a factor of few directions. A matrix with a side of 1, and a vector or scalar, follows the graft
    itself (M̂ for "none").

    When: large batches, matrices of moderate sides, and a learning rate that is tuned for Adam: the
    graft keeps it valid. When not: memory is short, or roots cost too much: take `muon`; refreshes
    must be rare: take `soap`.

    Args:
      learning_rate: η, parameter units per step, as for the graft; 1e-4 to 1e-2.
      b1: β1 in [0, 1), decay of M; 0.9.
      b2: β2 in [0, 1], decay of L and R, 0.9 to 0.999; 1 for the sums of the first paper, whose
        steps shrink without a graft.
      eps: ε ≥ 0, a ridge in units of the mean eigenvalue of a factor; 1e-8 to 1e-3. Below 1e-6
        float32 adds noise.
      weight_decay: λ ≥ 0, a fraction of the parameter per unit of learning rate; 0 to 0.1.
      mask: which leaves decay (see `masked`); None: all.
      graft: u: "adam", M̂ / (√V̂ + ε_g); "rmsprop", M̂ / (√V + ε_g); "sgd", M̂; "sign", the sign of
        M̂; "none": D as it is.
      graft_b2: β in [0, 1), decay of V, the graft's average of G²; 0.999.
      graft_eps: ε_g ≥ 0; 1e-8.
      exponent: p > 0; None: 1/4 for two sides, 1/2 for one. 1/2 for two sides is nearer to the
        whole second moment, without a graft too.
      refresh_every: k ≥ 1, steps from one refresh of a matrix to its next; 1 to 100; 10.
      max_dim: the longest side of a block; 256 to 8192; longer axes are cut evenly.
      one_sided: only the shorter axis has a factor.
      method: how roots are computed: "eigh", or "newton", which needs products alone, is quick on
        accelerators, and requires a whole 1/p.
      dimensions: which axes of an array are inputs, outputs or batch, as in `matrixwise`; None: by
        roles, else the last two, and batch before.
      shard: axes of a device mesh to spread matrices over, as in `matrixwise`.
      **flags: `decay_form`, `huber_delta`, `cautious`, `peak_learning_rate` and `axis_names`, as
        `descend` explains them.

    Raises:
      HyperparamError: a number out of its range, a graft or method of another name.
      MissingParamsError: `update` is called without parameters.

    State: for an n × m matrix 8 n m + 8 (n² + m²) bytes, 24 per parameter of a square one; in
    blocks of h × w 8 n m (1 + h/w + w/h); 8 per parameter of a vector; 4 n m less with "sgd",
    "sign" or "none".

    >>> import gradtx, jax, jax.numpy as jnp
    >>> w, g = jnp.zeros((3, 4)), jax.random.normal(jax.random.key(0), (3, 4))
    >>> def length(tx):
    ...     return round(float(jnp.linalg.norm(tx.update(g, tx.init(w), w)[0])), 4)
    >>> length(gradtx.shampoo(0.1)), length(gradtx.adam(0.1))  # Adam's length, another direction
    (0.3464, 0.3464)

    See also: `soap`, `kl_shampoo`, `scale_by_shampoo`.

    Gupta, Koren and Singer 2018, arXiv 1802.09568, Algorithm 1; blocks and grafting: Anil et al.
    2020, arXiv 2002.09018, sections 4 and 5; averages, and M̂ in place of G: Shi et al. 2023,
    arXiv 2309.06497, section 3."""
    rule = scale_by_shampoo(b1, b2, eps, **select_flags(ShampooFlags, flags))
    return descend(rule, learning_rate, weight_decay, mask, **select_flags(StepFlags, flags))
