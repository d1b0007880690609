r"""GaLore: an optimizer on a low-rank projection of every gradient, so that its state is small.

    P = the first r left singular vectors of G, every T steps          (n, r), for the longer axis n
    R = Pᵀ G,   N = the base optimizer's update for R                  (r, m)
    u = α P N

Where a matrix has more outputs than inputs, P holds right singular vectors, R = G P and u = α N Pᵀ.
"""

import functools
from collections.abc import Mapping
from typing import Literal, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.compose.descend import StepFlags, descend
from gradtx.compose.transformation import (
    GradientTransformation,
    TransformationLike,
    as_transformation,
    definition,
)
from gradtx.compose.treewise import treewise
from gradtx.definition.errors import GradtxError, HyperparamError
from gradtx.definition.static import Static
from gradtx.definition.types import (
    ArrayLike,
    DTypeLike,
    Hyperparam,
    NonNegative,
    Params,
    Precise,
    PyTree,
    Updates,
)
from gradtx.engine.matrix_layout import Layout, Matrices, names_some, words_of
from gradtx.engine.roles import leaf_roles
from gradtx.engine.rules import Child
from gradtx.engine.selector import Leaves, Where, leaves_of
from gradtx.linalg.decompositions import svd
from gradtx.optimizers.adam import scale_by_adam
from gradtx.transforms.flags import Dimensions
from gradtx.tree.casts import compute_dtype, is_inexact, zeros_along
from gradtx.tree.cut_along import Axes
from gradtx.tree.placement import run_auto_if
from gradtx.tree.roles import Role

Side = Literal["longer", "shorter"]


class Projection(NamedTuple):
    """The projector of every matrix, None for other arrays, and the base optimizer's slots."""

    projector: Precise
    base: PyTree


class Plan(NamedTuple):
    """The projection of one array: its layout as a matrix, its side, and its rank."""

    layout: Layout
    left: bool
    rank: int


def _plans(leaves: Leaves, rank: int, side: Side, dimensions: Dimensions) -> list[Plan | None]:
    """A plan for every array that is projected: matrices, and arrays that `dimensions` name."""
    words = words_of(dimensions, leaves, "scale_by_galore")
    # A tree of axes by number names all matrices; rules only add to those that roles know.
    roles = leaf_roles(leaves) if names_some(dimensions) else [None] * len(words)
    active = [
        is_inexact(value) and (axes is not None or _is_projected(value, role))
        for value, axes, role in zip(leaves.values, words, roles, strict=True)
    ]
    matrices = Matrices(Static({"dimensions": dimensions}))
    layouts = matrices.layouts(leaves, active, "scale_by_galore")
    return [None if layout is None else _plan(layout, rank, side) for layout in layouts]


def _is_projected(value: ArrayLike, role: Role | None) -> bool:
    """Whether an array is a matrix, or hidden matrices of more axes; stacked vectors are not."""
    if role is None:
        return False
    has_inputs = role.words is None or "in" in role.words.split()
    return role.is_matrix or (np.ndim(value) == 2 and has_inputs)


def _plan(layout: Layout, rank: int, side: Side) -> Plan:
    inputs, outputs = layout.shape[-2:]
    left = inputs >= outputs if side == "longer" else inputs <= outputs
    return Plan(layout, left, min(rank, inputs, outputs))


def _zeros(plan: Plan, value: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A projector and a projected gradient of zeros."""
    matrix, dtype = plan.layout.matrix(value), compute_dtype(value.dtype)
    *batch, inputs, outputs = range(len(matrix.shape))
    projected, other = (inputs, outputs) if plan.left else (outputs, inputs)
    low = (None, other) if plan.left else (other, None)
    projector, image = (
        zeros_along(matrix, _shape(matrix, plan.rank, axes), dtype, axes)
        for axes in ((*batch, projected, None), (*batch, *low))
    )
    return projector, image


def _shape(matrix: jax.Array, rank: int, axes: Axes) -> tuple[int, ...]:
    return tuple(rank if axis is None else matrix.shape[axis] for axis in axes)


def _init(
    params: Params, *, base: GradientTransformation, rank: int, side: Side, dimensions: Dimensions
) -> Projection:
    leaves = leaves_of(params)
    plans = _plans(leaves, rank, side, dimensions)
    pairs = [
        (None, value) if plan is None else _zeros(plan, value)
        for value, plan in zip(leaves.values, plans, strict=True)
    ]
    projectors = leaves._replace(values=[projector for projector, _ in pairs]).tree
    low = leaves._replace(values=[value for _, value in pairs]).tree
    return Projection(projectors, base.init_slots(low))


def _galore(
    updates: Updates,
    slots: Projection,
    params: Params,
    step,
    *,
    scale,
    base: GradientTransformation,
    rank: int,
    update_proj_gap: int,
    side: Side,
    dimensions: Dimensions,
    extra: Mapping[str, PyTree],
):
    leaves, projectors = leaves_of(updates), leaves_of(slots.projector).values
    plans = _plans(leaves, rank, side, dimensions)
    is_due = (step - 1) % update_proj_gap == 0
    projected = [
        (value, None)
        if plan is None
        else run_auto_if(functools.partial(_project, plan=plan), 0, value, projector, is_due)
        for value, projector, plan in zip(leaves.values, projectors, plans, strict=True)
    ]
    low = leaves._replace(values=[value for value, _ in projected]).tree
    # The base optimizer sees projections, so it cannot see parameters.
    low, base_slots = base.update_slots(low, slots.base, None, step, extra)
    full = [
        value
        if plan is None
        else run_auto_if(
            functools.partial(_restore, plan=plan, dtype=grad.dtype), grad, value, projector, scale
        )
        for value, grad, (_, projector), plan in zip(
            leaves_of(low).values, leaves.values, projected, plans, strict=True
        )
    ]
    new_projectors = leaves._replace(values=[projector for _, projector in projected]).tree
    return leaves._replace(values=full).tree, Projection(new_projectors, base_slots)


@functools.partial(jax.jit, static_argnames="plan")
def _project(
    grad: jax.Array, projector: jax.Array, is_due: jax.Array, plan: Plan
) -> tuple[jax.Array, jax.Array]:
    """Return the projected gradient, and its projector, which is new where it is due."""
    matrix = plan.layout.matrix(grad).astype(compute_dtype(grad.dtype))
    # A matrix whose gradients were all zero has no projector yet: its first gradient makes one.
    is_unset = ~jnp.any(projector, axis=(-2, -1))
    is_new = (is_due | is_unset) & jnp.any(matrix != 0, axis=(-2, -1))
    # A branch, not a `where`: singular vectors cost more than the rest of the step.
    projector = jax.lax.cond(
        jnp.any(is_new),
        functools.partial(_singular_vectors, plan),
        lambda is_new, matrix, projector: projector,
        is_new,
        matrix,
        projector,
    )
    return (projector.mT.conj() @ matrix if plan.left else matrix @ projector), projector


def _singular_vectors(
    plan: Plan, is_new: jax.Array, matrix: jax.Array, projector: jax.Array
) -> jax.Array:
    """The first singular vectors on one side."""
    if not matrix.size:
        return projector
    left, _, right = svd(matrix)
    vectors = (left if plan.left else right.mT.conj())[..., : plan.rank].astype(projector.dtype)
    # Moments are stored in these vectors, whose signs are arbitrary: take those nearer to the old.
    signed = jnp.where(
        jnp.sum((vectors * projector.conj()).real, axis=-2, keepdims=True) < 0, -vectors, vectors
    )
    # A gradient that is not finite has no singular vectors: the old ones stay.
    return jnp.where(is_new[..., None, None] & ~jnp.isnan(signed), signed, projector)


@functools.partial(jax.jit, static_argnames=("plan", "dtype"))
def _restore(
    low: jax.Array, projector: jax.Array, scale: jax.Array, plan: Plan, dtype: DTypeLike
) -> jax.Array:
    """The whole update of a projected one."""
    whole = projector @ low if plan.left else low @ projector.mT.conj()
    whole = jnp.asarray(scale, whole.dtype) * whole
    return plan.layout.array(whole).astype(dtype)


def _children(slots: Projection, count, *, base: GradientTransformation) -> list[Child]:
    return [Child(base, slots.base, count)]


@definition
def scale_by_galore(
    rank: int = 128,
    update_proj_gap: int = 200,
    scale: Hyperparam = 1.0,
    base_optimizer: TransformationLike | None = None,
    weight_dimension_numbers: Dimensions | None = None,
    *,
    side: Side = "longer",
    dimensions: Dimensions | None = None,
) -> GradientTransformation:
    r"""GaLore's direction: a base optimizer on low-rank projections of gradients.

    u = α P N, N the base optimizer's update for Pᵀ G. G is (n, m) with n ≥ m, and P (n, r) has the
    first r left singular vectors of G, from the first step and every T-th after it. Where m > n
    they are right ones, and u = α N Pᵀ. The base optimizer receives vectors unchanged, and
    arrays of more axes, unless `dimensions` or their roles (`by_role`) name these.

    A projection may be √n times as large as the entries of G: where it is above the largest float,
    the moments become nan. `guard` skips such gradients.

    Args:
      rank: r ≥ 1, static; min(n, m) at most.
      update_proj_gap: T ≥ 1, static.
      scale: α, a factor for projected updates.
      base_optimizer: a transformation that does not need parameters, because it receives
        projections; None: `scale_by_adam()`.
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
    >>> tx = gradtx.scale_by_galore(rank=2, base_optimizer=gradtx.identity())
    >>> # The best approximation of rank 2.
    >>> jnp.diag(tx.update(g, tx.init(g))[0]).round(4).tolist()
    [3.0, 2.0, 0.0]

    See also: `galore`.

    Zhao and others 2024, arXiv 2403.03507, Algorithm 2.
    """
    for name, value in (("rank", rank), ("update_proj_gap", update_proj_gap)):
        if value < 1:
            raise HyperparamError(
                f"scale_by_galore: {name} = {value!r} is not a whole number of at least 1"
            )
    base = scale_by_adam() if base_optimizer is None else as_transformation(base_optimizer)
    if "params" in base.needs:
        raise GradtxError(
            f"scale_by_galore: base_optimizer = {base} needs the parameters, and it receives "
            "projections, which have none: take a direction, scale_by_adam() for instance, and "
            "let galore(..., weight_decay=...) decay"
        )
    return treewise(
        _init,
        _galore,
        base=base,
        dimensions=dimensions if weight_dimension_numbers is None else weight_dimension_numbers,
        children=_children,
    )


@definition
def galore(
    learning_rate: Hyperparam,
    rank: int = 128,
    update_proj_gap: int = 200,
    scale: Hyperparam = 1.0,
    base_optimizer: TransformationLike | None = None,
    weight_decay: NonNegative = 0.0,
    mask: Where | None = None,
    weight_dimension_numbers: Dimensions | None = None,
    *,
    side: Side = "longer",
    dimensions: Dimensions | None = None,
    **flags: Unpack[StepFlags],
) -> GradientTransformation:
    r"""GaLore: gradient low-rank projection, for optimizer states of little memory.

    Another optimizer, Adam for instance, runs on a low-rank projection of every gradient. For every
    matrix θ, G of shape (n, m), n ≥ m: P (n, r) has the first r left singular vectors of G,
    computed every T steps; N = base(Pᵀ G), θ ← θ − η (α P N + λ θ). Where m > n, P (m, r) has right
    ones, and the update is base(G P) Pᵀ. The base optimizer receives other arrays unchanged.
    Moments are not rotated when P changes; its columns get the signs that are nearer to the old
    ones.

    When: the state of Adam does not fit. When not: it does; the update has rank r, and every T-th
    step computes singular vectors of all matrices, seconds for those of thousands of rows.

    With `side="longer"`, as in Optax, a matrix takes r n + 2 r m numbers with Adam. With "shorter",
    as in the paper, it takes r m + 2 r n, which is more. The updates differ only by how Adam's
    moments see them.

    Args:
      learning_rate: η; 2 to 10 times AdamW's, by α.
      rank: r ≥ 1, static; a quarter of the width, 128 to 1024.
      update_proj_gap: T ≥ 1, static; 50 to 1000.
      scale: α, a factor for projected updates; 0.25 in the paper.
      base_optimizer: a transformation that does not need parameters, because it receives
        projections; None: `scale_by_adam()`.
      weight_decay: λ ≥ 0, a fraction per unit of learning rate; 0 to 0.1.
      mask: which leaves decay; None: all.
      weight_dimension_numbers: Optax's name for `dimensions`.
      side: "longer": P is along the longer axis. "shorter": along the shorter one.
      dimensions: which axes of an array are inputs, outputs, and batches of matrices, as in
        `matrixwise`.
      **flags: `decay_form`, `huber_delta`, `cautious`, `peak_learning_rate` and `axis_names`, as
        `descend` explains them.

    Raises:
      HyperparamError: a number out of its range.
      GradtxError: a base optimizer that needs parameters.
      MissingParamsError: `update` is called without parameters.

    State: 4 r/m + 8 r/n bytes per parameter of a matrix (n, m), n ≥ m; 12 of a square one of full
    rank, 8 of other arrays.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> w = jnp.zeros((64, 16))
    >>> slots = gradtx.galore(1e-3, rank=4).init(w).slots
    >>> sum(leaf.nbytes for leaf in jax.tree.leaves(slots)) / w.size  # 4 · 4/16 + 8 · 4/64
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
