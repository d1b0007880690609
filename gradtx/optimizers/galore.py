r"""GaLore: another optimizer, run on a low-rank projection of every gradient, so that what it keeps
is small.

    P = the first r left singular vectors of G, every T steps          (n, r), for the longer axis n
    R = Pᵀ G,   N = what the base optimizer makes of R                 (r, m)
    u = α P N

Where the outputs are more than the inputs, P is made of right singular vectors, R = G P and u = α N
Pᵀ."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.transformation import GradientTransformation, TransformationLike, definition
from gradtx.compose.treewise import treewise
from gradtx.definition.definition import Static
from gradtx.definition.errors import GradtxError, HyperparamError
from gradtx.definition.types import Hyperparam, NonNegative, Precise
from gradtx.engine.matrix_layout import Layout, Matrices, words_of
from gradtx.engine.program import leaves_of
from gradtx.engine.rules import Child
from gradtx.engine.selector import Leaves, Where
from gradtx.linalg.decompositions import svd
from gradtx.optimizers.adam import scale_by_adam
from gradtx.tree.casts import compute_dtype, is_inexact

Side = Literal["longer", "shorter"]


class Projection(NamedTuple):
    """The projector of every matrix, None for what is not projected; and what the base optimizer
    keeps.
    """

    projector: Precise
    base: Any


class Plan(NamedTuple):
    """How one array is projected: as which matrix, on which side, to which rank."""

    layout: Layout
    left: bool
    rank: int


def _plans(leaves: Leaves, rank: int, side: Side, dimensions: Any) -> list[Plan | None]:
    """For every leaf how it is projected; arrays of two axes are, and those whose axes are said."""
    said, by_rules = (
        words_of(dimensions, leaves, "scale_by_galore"),
        dimensions is None or isinstance(dimensions, Sequence),
    )
    active = [
        is_inexact(value) and (words is not None or (by_rules and np.ndim(value) == 2))
        for value, words in zip(leaves.values, said, strict=True)
    ]
    layouts = Matrices(Static({"dimensions": dimensions})).layouts(
        leaves, active, "scale_by_galore"
    )
    return [None if layout is None else _plan(layout, rank, side) for layout in layouts]


def _plan(layout: Layout, rank: int, side: Side) -> Plan:
    inputs, outputs = layout.shape[-2:]
    return Plan(
        layout,
        inputs >= outputs if side == "longer" else inputs <= outputs,
        min(rank, inputs, outputs),
    )


def _shapes(plan: Plan) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes of the projector and of the projected gradient."""
    *batch, inputs, outputs = plan.layout.shape
    sizes = (
        ((inputs, plan.rank), (plan.rank, outputs))
        if plan.left
        else ((outputs, plan.rank), (inputs, plan.rank))
    )
    return (*batch, *sizes[0]), (*batch, *sizes[1])


def _init(
    params: Any, *, base: GradientTransformation, rank: int, side: Side, dimensions: Any
) -> Projection:
    leaves = leaves_of(params)
    plans = _plans(leaves, rank, side, dimensions)
    projectors, small = list[Any](), list[Any]()
    for value, plan in zip(leaves.values, plans, strict=True):
        made = (
            [jnp.zeros(shape, compute_dtype(value.dtype)) for shape in _shapes(plan)]
            if plan
            else [None, value]
        )
        projectors.append(made[0])
        small.append(made[1])
    return Projection(
        leaves._replace(values=projectors).tree, base.init_slots(leaves._replace(values=small).tree)
    )


def _update(
    updates: Any,
    slots: Projection,
    params: Any,
    step: jax.Array,
    *,
    scale: jax.Array,
    base: GradientTransformation,
    rank: int,
    gap: int,
    side: Side,
    dimensions: Any,
    extra: Mapping[str, Any],
) -> tuple[Any, Projection]:
    leaves, projectors = leaves_of(updates), leaves_of(slots.projector).values
    plans, due = _plans(leaves, rank, side, dimensions), (step - 1) % gap == 0
    each = zip(leaves.values, projectors, plans, strict=True)
    down = [
        _down(value, projector, due, plan) if plan else (value, None)
        for value, projector, plan in each
    ]
    small = leaves._replace(values=[low for low, _ in down]).tree
    small, kept = base.update_slots(small, slots.base, None, step, extra)
    each = zip(leaves_of(small).values, leaves.values, down, plans, strict=True)
    full = [
        _up(low, projector, scale, plan, value.dtype) if plan else low
        for low, value, (_, projector), plan in each
    ]
    new = leaves._replace(values=[projector for _, projector in down]).tree
    return leaves._replace(values=full).tree, Projection(new, kept)


@functools.partial(jax.jit, static_argnames="plan")
def _down(
    grad: jax.Array, projector: jax.Array, due: jax.Array, plan: Plan
) -> tuple[jax.Array, jax.Array]:
    """A gradient, projected, and its projector, made anew where it is due."""
    matrix = plan.layout.matrix(grad).astype(compute_dtype(grad.dtype))
    is_unset = ~jnp.any(projector, axis=(-2, -1))  # as long as all its gradients were zero
    renewed = (due | is_unset) & jnp.any(matrix != 0, axis=(-2, -1))
    projector = jax.lax.cond(
        jnp.any(renewed), functools.partial(_singular, plan), _kept, renewed, matrix, projector
    )
    return (projector.mT.conj() @ matrix if plan.left else matrix @ projector), projector


def _singular(plan: Plan, renewed: jax.Array, matrix: jax.Array, projector: jax.Array) -> jax.Array:
    """The first singular vectors on one side, with the signs that are nearer to the old ones, in
    which moments are kept.
    """
    if not matrix.size:
        return projector
    left, _, right = svd(matrix)
    new = (left if plan.left else right.mT.conj())[..., : plan.rank].astype(projector.dtype)
    signed = jnp.where(
        jnp.sum((new * projector.conj()).real, axis=-2, keepdims=True) < 0, -new, new
    )
    return jnp.where(renewed[..., None, None] & ~jnp.isnan(signed), signed, projector)


def _kept(renewed: jax.Array, matrix: jax.Array, projector: jax.Array) -> jax.Array:
    return projector


@functools.partial(jax.jit, static_argnames=("plan", "dtype"))
def _up(
    low: jax.Array, projector: jax.Array, scale: jax.Array, plan: Plan, dtype: Any
) -> jax.Array:
    """The whole update of a projected one."""
    return plan.layout.array(
        scale * (projector @ low if plan.left else low @ projector.mT.conj())
    ).astype(dtype)


def _inside(slots: Projection, count: Any, *, base: GradientTransformation) -> list[Child]:
    return [Child(base, slots.base, count)]


@definition
def scale_by_galore(
    rank: int = 128,
    update_proj_gap: int = 200,
    scale: Hyperparam = 1.0,
    base_optimizer: TransformationLike | None = None,
    weight_dimension_numbers: Any = None,
    *,
    side: Side = "longer",
    dimensions: Any = None,
) -> GradientTransformation:
    r"""A base optimizer on projected gradients: u = α P N, N the base optimizer's update for Pᵀ G.

    G is (n, m) with n ≥ m, P (n, r) has the first r left singular vectors of G, from the first step
    and every T-th after it; where m > n they are right ones, and u = α N Pᵀ. Arrays of other than
    two axes go to the base optimizer as they are, unless `dimensions` say how they are matrices.

    Args:
      rank: r ≥ 1, static; min(n, m) at most.
      update_proj_gap: T ≥ 1, static.
      scale: α, a factor for what is projected.
      base_optimizer: a transformation that needs no parameters, since it sees projections; None:
        `scale_by_adam()`.
      weight_dimension_numbers: Optax's name for `dimensions`.
      side: "longer": P is along the longer axis. "shorter": along the shorter one, as in the paper.
      dimensions: which axes of an array are inputs, outputs, and batches of matrices, as in
        `matrixwise`.

    Raises:
      HyperparamError: a rank or gap below 1, a side of another name.
      GradtxError: a base optimizer that needs parameters.

    State: 4 r/m bytes per parameter of a matrix with n ≥ m (P), and that of the base optimizer for
    r/n as many parameters.

    >>> import gradtx, jax.numpy as jnp
    >>> g = jnp.diag(jnp.array([3.0, 2.0, 1.0]))
    >>> tx = gradtx.scale_by_galore(rank=2, base_optimizer=gradtx.identity())  # the best approximation of rank 2
    >>> jnp.diag(tx.update(g, tx.init(g))[0]).round(4).tolist()
    [3.0, 2.0, 0.0]

    See also: `galore`.

    Zhao and others 2024, arXiv 2403.03507, Algorithm 2.
    """
    for name, value in (("rank", rank), ("update_proj_gap", update_proj_gap)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise HyperparamError(
                f"scale_by_galore: {name} = {value!r} is no whole number of at least 1"
            )
    if side not in ("longer", "shorter"):
        raise HyperparamError(
            f"scale_by_galore: side = {side!r} is unknown; choose 'longer' or 'shorter'"
        )
    base: Any = scale_by_adam() if base_optimizer is None else base_optimizer
    if "params" in base.needs:
        raise GradtxError(
            f"scale_by_galore: base_optimizer = {base} needs the parameters, and it sees projections, which have none: "
            "take a direction such as scale_by_adam(), and let galore(..., weight_decay=...) decay"
        )
    told = dimensions if weight_dimension_numbers is None else weight_dimension_numbers
    return treewise(
        _init,
        _update,
        scale=scale,
        rank=rank,
        gap=update_proj_gap,
        side=side,
        dimensions=told,
        base=base,
        children=_inside,
    )


@definition
def galore(
    learning_rate: NonNegative,
    rank: int = 128,
    update_proj_gap: int = 200,
    scale: Hyperparam = 1.0,
    base_optimizer: TransformationLike | None = None,
    weight_decay: NonNegative = 0.0,
    mask: Where | None = None,
    weight_dimension_numbers: Any = None,
    *,
    side: Side = "longer",
    dimensions: Any = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""Another optimizer, Adam say, on a low-rank projection of every gradient, which it keeps its
    moments for.

    For every matrix θ, G of shape (n, m), n ≥ m: P (n, r) has the first r left singular vectors of
    G, anew every T steps; N = base(Pᵀ G), θ ← θ − η (α P N + λ θ). Where m > n, P (m, r) has right
    ones, and it is base(G P) Pᵀ. Other arrays go to the base optimizer as they are. Moments are not
    turned when P changes; its columns get the signs that are nearer to the old ones.

    When: the state of Adam does not fit. When not: it does; the update has rank r, and every T-th
    step computes singular vectors of all matrices, seconds for those of thousands of rows.

    With `side="longer"`, as in Optax, a matrix keeps r n + 2 r m numbers with Adam; with "shorter",
    as in the paper, r m + 2 r n, which is more; the update is the same but for how Adam's moments
    see it.

    Args:
      learning_rate: η ≥ 0; 2 to 10 times AdamW's, by α.
      rank: r ≥ 1, static; a quarter of the width, 128 to 1024.
      update_proj_gap: T ≥ 1, static; 50 to 1000.
      scale: α, a factor for what is projected; 0.25 in the paper.
      base_optimizer: a transformation that needs no parameters, since it sees projections; None:
        `scale_by_adam()`.
      weight_decay: λ ≥ 0, a fraction per unit of learning rate; 0 to 0.1.
      mask: which leaves decay; None: all.
      weight_dimension_numbers: Optax's name for `dimensions`.
      side: "longer": P is along the longer axis. "shorter": along the shorter one.
      dimensions: which axes of an array are inputs, outputs, and batches of matrices, as in
        `matrixwise`.
      **flags: `decay_form`, `cautious` and `peak_learning_rate`, as `descend` explains them.

    Raises:
      HyperparamError: a number out of its range.
      GradtxError: a base optimizer that needs parameters.
      MissingParamsError: `update` is called without parameters.

    State: 4 r/m + 8 r/n bytes per parameter of a matrix (n, m), n ≥ m; 12 of a square one of full
    rank, 8 of other arrays.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> w = jnp.zeros((64, 16))
    >>> sum(leaf.nbytes for leaf in jax.tree.leaves(gradtx.galore(1e-3, rank=4).init(w).slots)) / w.size  # 4 · 4/16 + 8 · 4/64
    1.5

    See also: `adamw`, `adafactor`, `scale_by_galore`.

    Zhao and others 2024, arXiv 2403.03507, Algorithm 2.
    """
    direction = scale_by_galore(
        rank,
        update_proj_gap,
        scale,
        base_optimizer,
        weight_dimension_numbers,
        side=side,
        dimensions=dimensions,
    )
    return descend(direction, learning_rate, weight_decay, mask, **flags)
