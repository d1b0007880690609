r"""Shampoo: momentum between inverse roots of the second moments of rows and columns, its length
grafted from a diagonal method.

    L ← β2 L + (1 − β2) G Gᵀ          R ← β2 R + (1 − β2) Gᵀ G          (β2 = 1: sums)
    M ← β1 M + (1 − β1) G
    D = (L̂ + ε λ̄_L I)^(−p) M̂ (R̂ + ε λ̄_R I)^(−p),   p = 1/4, λ̄ the mean eigenvalue
    U = D ‖u‖_F / ‖D‖_F
    θ ← θ − η (U + λ θ)

u is the direction of the graft: that of Adam, RMSProp, SGD or sign descent, from the same M̂. Axes
longer than `max_dim` are cut, and every block has factors of its own. Roots are refreshed every
k-th step, at a turn of its own for every matrix, and at the first gradient."""

import functools
from typing import Any, Literal, NamedTuple, Unpack, get_args

import jax
import jax.numpy as jnp

from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.matrixwise import matrixwise, where_due
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import Decay, Fraction, NonNegative, Precise, Squares
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
from gradtx.optimizers.soap import check_max_dim
from gradtx.transforms.eigenbases import (
    any_side,
    identities,
    identity,
    is_turn,
    kept_sides,
    of_size,
    per_matrix,
    unused,
    zero_factors,
)
from gradtx.transforms.moments import average, debias
from gradtx.tree.arithmetic import abs_sq
from gradtx.tree.casts import real_zeros, zeros

Graft = Literal["adam", "rmsprop", "sgd", "sign", "none"]
Method = Literal["eigh", "newton"]


class Preconditioner(NamedTuple):
    """A momentum, the squares of the graft, and for each side the factors of all blocks, and their
    inverse roots.
    """

    mu: jax.Array
    nu: Squares | None
    left: Precise | None
    right: Precise | None
    left_root: Precise | None
    right_root: Precise | None


def _init(param: jax.Array, *, max_dim: int, one_sided: bool, graft: Graft) -> Preconditioner:
    nu = real_zeros(param) if graft in ("adam", "rmsprop") else None
    sides, blocks = (
        kept_sides(param.shape, max(param.shape[-2:]) or 1, one_sided),
        _blocks_like(param, max_dim),
    )
    return Preconditioner(
        zeros(param), nu, *zero_factors(blocks, sides), *identities(blocks, sides)
    )


def _is_cut(shape: tuple[int, ...], max_dim: int) -> bool:
    return max(shape[-2:]) > max_dim


def _blocks_like(param: Any, max_dim: int) -> jax.ShapeDtypeStruct:
    """The shape and dtype of the blocks of a matrix; of the matrix itself where it is not cut."""
    if not _is_cut(param.shape, max_dim):
        return jax.ShapeDtypeStruct(param.shape, param.dtype)
    grid, block = block_grid(param.shape, max_dim)
    return jax.ShapeDtypeStruct((*param.shape[:-2], *grid, *block), param.dtype)


def _update(
    grad: jax.Array,
    slots: Preconditioner,
    param: None,
    step: jax.Array,
    *,
    b1: jax.Array,
    b2: jax.Array,
    eps: jax.Array,
    graft_b2: jax.Array,
    graft_eps: jax.Array,
    refresh_offset: jax.Array,
    refresh_every: int,
    max_dim: int,
    graft: Graft,
    exponent: float | None,
    method: Method,
) -> Any:
    mu = average(slots.mu, grad, b1)
    mean = debias(mu, b1, step)
    nu = None if slots.nu is None else average(slots.nu, abs_sq(grad), graft_b2)
    grafted = _graft(graft, mean, nu, graft_b2, graft_eps, step)
    old, roots = Factors(slots.left, slots.right), Factors(slots.left_root, slots.right_root)
    if any_side(old) is None:
        return grafted, slots._replace(mu=mu, nu=nu)
    cut = _is_cut(grad.shape, max_dim)
    fades = b2 < 1
    factors = update_factors(
        old, split_blocks(grad, max_dim) if cut else grad, b2, jnp.where(fades, 1 - b2, 1)
    )
    begins = unused(old, refresh_offset.ndim) & ~unused(factors, refresh_offset.ndim)
    if exponent is None:
        exponent = 0.5 if None in old else 0.25
    unbias = debias(jnp.ones_like(step), jnp.where(fades, b2, 0), step)
    rooted = functools.partial(
        _roots, unbias=unbias, eps=eps, p=_whole(1 / exponent), method=method
    )
    roots = where_due(
        is_turn(step, refresh_offset, refresh_every) | begins, rooted, (factors,), roots
    )
    direction = multiply_sides(
        roots.left, split_blocks(mean, max_dim) if cut else mean, roots.right
    )
    direction = join_blocks(direction, grad.shape) if cut else direction
    update = direction if graft == "none" else of_size(direction, grafted)
    return update, Preconditioner(mu, nu, *factors, *roots)


def _graft(
    graft: Graft, mean: jax.Array, nu: Any, b2: jax.Array, eps: jax.Array, step: jax.Array
) -> jax.Array:
    """The direction whose length is taken; M̂ where none is, for vectors."""
    if graft == "adam":
        return mean / (jnp.sqrt(debias(nu, b2, step)) + eps)
    if graft == "rmsprop":
        return mean / (jnp.sqrt(nu) + eps)
    return jnp.sign(mean) if graft == "sign" else mean


def _whole(p: float) -> float:
    """1 / exponent, whole where rounding alone keeps it from being so."""
    return round(p) if abs(p - round(p)) < 1e-9 else p


def _roots(
    factors: Factors, *, unbias: jax.Array, eps: jax.Array, p: float, method: Method
) -> Factors:
    """Of all blocks of one matrix."""
    return Factors(
        *(None if factor is None else _root(factor, unbias, eps, p, method) for factor in factors)
    )


def _root(
    factor: jax.Array, unbias: jax.Array, eps: jax.Array, p: float, method: Method
) -> jax.Array:
    """(A + ε λ̄ I)^(−1/p); the identity where A is zero."""
    factor = unbias.astype(factor.real.dtype) * factor
    mean = jnp.trace(factor, axis1=-2, axis2=-1).real / factor.shape[-1]
    root = inverse_root(factor, p, method=method, ridge=eps * mean, relative=False)
    return jnp.where(per_matrix(mean == 0), identity(factor), root)


def _check(graft: str, method: str, exponent: float | None) -> None:
    for name, value, kinds in (("graft", graft, Graft), ("method", method, Method)):
        if value not in get_args(kinds):
            raise HyperparamError(
                f"scale_by_shampoo: {name} = {value!r} is unknown; choose one of {', '.join(map(repr, get_args(kinds)))}"
            )
    if exponent is not None and not exponent > 0:
        raise HyperparamError(
            f"scale_by_shampoo: exponent = {exponent!r} is not above 0; give 1/4, 1/2, or None"
        )
    if method == "newton" and exponent is not None and not isinstance(_whole(1 / exponent), int):
        raise HyperparamError(
            f"scale_by_shampoo: exponent = {exponent!r} is no 1/p with a whole p, as method = 'newton' needs; take 'eigh'"
        )


@definition
def scale_by_shampoo(
    b1: Decay = 0.9,
    b2: Fraction = 0.99,
    eps: NonNegative = 1e-6,
    *,
    graft: Graft = "adam",
    graft_b2: Decay = 0.999,
    graft_eps: NonNegative = 1e-8,
    exponent: float | None = None,
    refresh_every: int = 10,
    max_dim: int = 1024,
    one_sided: bool = False,
    method: Method = "eigh",
    dimensions: Any = None,
    shard: Any = None,
) -> GradientTransformation:
    """Shampoo's direction: D = L^(−p) M̂ R^(−p), of the length that its graft would have.

    Args:
      b1: β1 in [0, 1), decay of M.
      b2: β2 in [0, 1], decay of L and R; 1: sums.
      eps: ε ≥ 0, a ridge, in units of the mean eigenvalue of each factor.
      graft: whose length D is given: "adam", "rmsprop", "sgd", "sign", or "none".
      graft_b2: decay of the graft's average of G², for "adam" and "rmsprop".
      graft_eps: ε beside the graft's root.
      exponent: p > 0; None: 1/4 for two sides, 1/2 for one.
      refresh_every: k, steps between two refreshes of the roots of one matrix.
      max_dim: the longest side of a block.
      one_sided: only the shorter axis has a factor.
      method: of the roots: "eigh", or "newton", products alone.
      dimensions: which axes of an array are inputs, outputs or batch, as in `matrixwise`.
      shard: axes of a device mesh to spread matrices over, as in `matrixwise`.

    Raises:
      HyperparamError: a number out of its range, a graft or method of another name.

    State: for an n × m matrix 8 n m + 8 (n² + m²) bytes: M, V; L, R and their roots; 4 n m less
    without a graft that keeps V.

    >>> import gradtx, jax.numpy as jnp
    >>> w, g = jnp.zeros((2, 2)), jnp.array([[3.0, 1.0], [0.0, 2.0]])
    >>> tx = gradtx.scale_by_shampoo(b1=0.0, b2=0.0, graft="none")  # factors of one gradient: its orthogonal factor
    >>> u, _ = tx.update(g, tx.init(w))
    >>> jnp.allclose(u @ u.T, jnp.eye(2), atol=1e-4).item()
    True

    Gupta, Koren and Singer 2018, arXiv 1802.09568, Algorithm 1; grafting: Anil et al. 2020, arXiv
    2002.09018, section 4."""
    check_max_dim("scale_by_shampoo", max_dim)
    _check(graft, method, exponent)
    return matrixwise(
        _init,
        _update,
        b1=b1,
        b2=b2,
        eps=eps,
        graft_b2=graft_b2,
        graft_eps=graft_eps,
        refresh_every=refresh_every,
        max_dim=max_dim,
        one_sided=one_sided,
        graft=graft,
        exponent=exponent,
        method=method,
        dimensions=dimensions,
        shard=shard,
        vectors="rows",
    )


@definition
def shampoo(
    learning_rate: NonNegative,
    b1: Decay = 0.9,
    b2: Fraction = 0.99,
    eps: NonNegative = 1e-6,
    weight_decay: NonNegative = 0.0,
    mask: Where | None = None,
    *,
    graft: Graft = "adam",
    graft_b2: Decay = 0.999,
    graft_eps: NonNegative = 1e-8,
    exponent: float | None = None,
    refresh_every: int = 10,
    max_dim: int = 1024,
    one_sided: bool = False,
    method: Method = "eigh",
    dimensions: Any = None,
    shard: Any = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""Momentum evened out along the directions in which rows and columns of the gradient vary, at
    the step size of Adam or another method.

    For every n × m matrix: L (n × n) and R (m × m) average G Gᵀ and Gᵀ G, M averages G, D = L̂^(−p)
    M̂ R̂^(−p); θ ← θ − η (D ‖u‖_F / ‖D‖_F + λ θ) with the graft's direction u for this matrix.

    Roots are made at the first gradient of a matrix that is not zero, so no step is without them,
    and every `refresh_every` steps afterwards, each matrix at a turn of its own, so that no later
    step pays for all. L and R are averages corrected for their start; a factor of few directions is
    tamed by its ridge. A matrix with a side of 1, and a vector or scalar, follows the graft itself
    (M̂ for "none").

    When: large batches, matrices of moderate sides, and a learning rate that is tuned for Adam: the
    graft lets it serve. When not: memory
    is short, or roots cost too much: take `muon`; refreshes are to be rare: `soap` bears that
    better.

    Args:
      learning_rate: η ≥ 0, parameter units per step, as for the graft; 1e-4 to 1e-2.
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
      exponent: p > 0; None: 1/4 for two sides, 1/2 for one; 1/2 for two is nearer to the whole
        second moment, without a graft too.
      refresh_every: k ≥ 1, steps from one refresh of a matrix to its next; 1 to 100; 10.
      max_dim: the longest side of a block; 256 to 8192; longer axes are cut evenly.
      one_sided: only the shorter axis has a factor.
      method: of the roots: "eigh", or "newton", which is products alone, quick on accelerators, and
        wants 1/p whole.
      dimensions: which axes of an array are inputs, outputs or batch, as in `matrixwise`; None: the
        last two, and batch before.
      shard: axes of a device mesh to spread matrices over, as in `matrixwise`.
      **flags: `decay_form`, `cautious` and `peak_learning_rate`, as `descend` explains them.

    Raises:
      HyperparamError: a number out of its range, a graft or method of another name.
      MissingParamsError: `update` is called without parameters.

    State: for an n × m matrix 8 n m + 8 (n² + m²) bytes, 24 per parameter of a square one; in
    blocks of h × w 8 n m (1 + h/w + w/h); 8 per parameter of a vector; 4 n m less with "sgd",
    "sign" or "none".

    >>> import gradtx, jax, jax.numpy as jnp
    >>> w, g = jnp.zeros((3, 4)), jax.random.normal(jax.random.key(0), (3, 4))
    >>> def step(tx):
    ...     return tx.update(g, tx.init(w), w)[0]
    >>> ours, adam = step(gradtx.shampoo(0.1)), step(gradtx.adam(0.1))
    >>> round(float(jnp.linalg.norm(ours)), 4), round(float(jnp.linalg.norm(adam)), 4)  # Adam's length, in a direction of its own
    (0.3464, 0.3464)

    See also: `soap`, `kl_shampoo`, `scale_by_shampoo`.

    Gupta, Koren and Singer 2018, arXiv 1802.09568, Algorithm 1; blocks and grafting: Anil et al.
    2020, arXiv 2002.09018, sections 4 and 5; averages, and M̂ as what is preconditioned: Shi et al.
    2023, arXiv 2309.06497, section 3."""
    rule = scale_by_shampoo(
        b1,
        b2,
        eps,
        graft=graft,
        graft_b2=graft_b2,
        graft_eps=graft_eps,
        exponent=exponent,
        refresh_every=refresh_every,
        max_dim=max_dim,
        one_sided=one_sided,
        method=method,
        dimensions=dimensions,
        shard=shard,
    )
    return descend(rule, learning_rate, weight_decay, mask, **flags)
