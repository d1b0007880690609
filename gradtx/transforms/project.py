"""Projected gradient descent: parameters stay in a set after every update."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from gradtx.compose.binding import Branch
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.compose.treewise import treewise
from gradtx.definition.errors import HyperparamError, StructureError
from gradtx.definition.show import show
from gradtx.definition.types import ArrayHyperparam, NonNegative
from gradtx.engine.selector import Selector, Where
from gradtx.projections import (
    projection_box,
    projection_halfspace,
    projection_hypercube,
    projection_hyperplane,
    projection_l1_ball,
    projection_l1_sphere,
    projection_l2_ball,
    projection_l2_sphere,
    projection_linf_ball,
    projection_non_negative,
    projection_simplex,
    projection_vector,
)
from gradtx.projections.vectors import Axis
from gradtx.tree.casts import compute_dtype, widest
from gradtx.tree.vectors import vector

Kind = Literal[
    "box",
    "halfspace",
    "hypercube",
    "hyperplane",
    "l1_ball",
    "l1_sphere",
    "l2_ball",
    "l2_sphere",
    "linf_ball",
    "non_negative",
    "simplex",
    "vector",
]

PROJECTIONS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "box": (projection_box, ("lower", "upper")),
    "halfspace": (projection_halfspace, ("a", "b")),
    "hypercube": (projection_hypercube, ("scale",)),
    "hyperplane": (projection_hyperplane, ("a", "b")),
    "l1_ball": (projection_l1_ball, ("scale",)),
    "l1_sphere": (projection_l1_sphere, ("scale",)),
    "l2_ball": (projection_l2_ball, ("scale",)),
    "l2_sphere": (projection_l2_sphere, ("scale",)),
    "linf_ball": (projection_linf_ball, ("scale",)),
    "non_negative": (projection_non_negative, ()),
    "simplex": (projection_simplex, ("scale",)),
    "vector": (projection_vector, ("a",)),
}
"""The projection of each kind, and the names of its arguments."""


def _target(update: jax.Array, param: jax.Array) -> jax.Array:
    """θ + u, in float32 at least."""
    dtype = widest(compute_dtype(update.dtype), compute_dtype(param.dtype))
    return update.astype(dtype) + param.astype(dtype)


def _difference(point: jax.Array, target: jax.Array, update: jax.Array, param: jax.Array) -> Any:
    """y − θ; where θ + u is not finite, u, so that a fault stays where it is."""
    step = point.astype(target.dtype) - param.astype(target.dtype)
    return jnp.where(jnp.isfinite(target), step.astype(update.dtype), update)


def _project(
    updates,
    slots: None,
    params,
    step,
    *,
    kind: Kind | Callable[..., Any],
    axis: Axis,
    scale=None,
    lower=None,
    upper=None,
    a=None,
    b=None,
):
    old, new = vector(updates, params), vector(updates, updates)
    pairs = list(zip(new.arrays, old.arrays, strict=True))
    targets = [_target(update, param) for update, param in pairs]
    usable = [jnp.where(jnp.isfinite(one), one, jnp.zeros_like(one)) for one in targets]
    values = {"scale": scale, "lower": lower, "upper": upper, "a": a, "b": b}
    known = {name: value for name, value in values.items() if value is not None}
    points = _call(kind, old.alone(usable), axis, known)
    each = zip(_arrays_like(old.alone(usable), points, kind), targets, pairs, strict=True)
    return new.fill([_difference(point, target, *pair) for point, target, pair in each]), slots


def _call(kind: Any, tree: Any, axis: Axis, values: dict[str, Any]) -> Any:
    """The nearest points, by a projection of gradtx or by a function of the caller."""
    if axis is not None:
        values = {**values, "axis": axis}
    function = kind if callable(kind) else PROJECTIONS[kind][0]
    return function(tree, **values)


def _arrays_like(tree: Any, points: Any, kind: Any) -> list[jax.Array]:
    """The arrays that a function returned, which must be like those that it received."""
    expected, treedef = jax.tree.flatten(tree)
    arrays, structure = jax.tree.flatten(points)
    shapes = [jnp.shape(one) for one in arrays]
    if structure != treedef or shapes != [one.shape for one in expected]:
        raise StructureError(
            f"project: {show(kind)} returned arrays of the shapes {shapes}, and received "
            f"{[one.shape for one in expected]}: return a tree like the first argument"
        )
    return [jnp.asarray(one) for one in arrays]


def _check_arguments(kind: Any, values: dict[str, Any]) -> None:
    """Raise where a kind lacks an argument, or has one that it does not use."""
    if callable(kind):
        return
    present, names = {name for name, one in values.items() if one is not None}, PROJECTIONS[kind][1]
    if lacking := sorted(set(names) - present - {"scale"}):
        raise HyperparamError(
            f"project: {kind} needs {', '.join(lacking)}: pass "
            f"{', '.join(f'{name}=...' for name in lacking)}"
        )
    if unused := sorted(present - set(names)):
        raise HyperparamError(
            f"project: {kind} does not use {', '.join(unused)}; its arguments are "
            f"{', '.join(names) or 'none'}"
        )


@definition
def project(
    kind: Kind | Callable[..., Any],
    where: Where | None = None,
    *,
    axis: int | Sequence[int] | None = None,
    scale: NonNegative | None = None,
    lower: ArrayHyperparam | None = None,
    upper: ArrayHyperparam | None = None,
    a: ArrayHyperparam | None = None,
    b: ArrayHyperparam | None = None,
) -> GradientTransformation | list[Branch]:
    r"""Projected gradient: keep parameters in a set, u ← P(θ + u) − θ.

    P is the projection onto the set, so that θ + u is its nearest point; u and θ have one shape.
    Put it last in a chain, behind the learning rate. The sum θ + u is exact up to the rounding of
    its dtype. Entries of u or θ that are not finite stay as they are, and others do not depend on
    them.

    When: weights on a simplex, rows of fixed norm, bounds. When not: the set has no simple
    projection; then write the parameter as a function of a free one.

    Args:
      kind: the name of a projection of `gradtx.projections` without its prefix: "simplex",
        "l2_ball", "box", ...; or a function `f(tree, **arguments) -> tree` at module level, which
        receives those of the arguments below that are not None.
      where: which leaves: a regular expression on paths, a predicate, or a tree of bools, as in
        `masked`; None: all.
      axis: the axes of one vector, -1 for rows; None: all chosen leaves together are one vector.
      scale: the radius, or the sum of a simplex, ≥ 0; None: 1.
      lower: the lower bounds of a box: a number, or an array that broadcasts to each leaf.
      upper: the upper bounds of a box.
      a: the normal of a hyperplane or a half-space, the direction of a vector.
      b: the offset of a hyperplane, the limit of a half-space.

    Raises:
      HyperparamError: the set lacks an argument, or does not use one; a negative `scale`; the set
        is empty.
      MissingParamsError: `update` is called without parameters.
      SelectionError: `where` chooses no leaf.
      StructureError: a complex leaf where order counts; a function returns another tree.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> from gradtx import project
    >>> params = {"mix": jnp.array([0.5, 0.5]), "bias": jnp.array([0.0])}
    >>> tx = gradtx.chain(gradtx.sgd(1.0), project("simplex", "mix"))
    >>> grads = {"mix": jnp.array([-1.0, 0.0]), "bias": jnp.array([1.0])}
    >>> updates, state = tx.update(grads, tx.init(params), params)
    >>> gradtx.apply_updates(params, updates)
    {'bias': Array([-1.], dtype=float32), 'mix': Array([1., 0.], dtype=float32)}

    See also: `keep_params_nonnegative`, `masked`, `gradtx.projections`.

    Bertsekas 1976, On the Goldstein-Levitin-Polyak gradient projection method, IEEE Transactions on
    Automatic Control 21, equation 2.
    """
    _check_arguments(kind, {"scale": scale, "lower": lower, "upper": upper, "a": a, "b": b})
    rule = treewise(None, _project, needs_params=True)
    return rule if where is None else [Branch(None, rule, Selector(where, True, "project"))]
