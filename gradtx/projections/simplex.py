r"""The projection onto a simplex.

    y_i = max(x_i − τ, 0), with the one τ for which Σ y_i = r

The function f(τ) = Σ max(x_i − τ, 0) − r is convex and falls with slope −n(τ), where n(τ) counts
the entries above τ. Newton's method starts left of the root, so it rises to the root and never
passes it. It ends when no entry leaves the support; then τ is exact: (Σ_{x_i > τ} x_i − r) / n(τ).
The product f(τ) n(τ) falls at least fourfold in every iteration, so that there are O(log(n / ε)) of
them, some ten in practice. Each is a sum over the entries; a sort moves every entry log n times.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.projections.checks import check_radius
from gradtx.projections.vectors import Axes, Axis, largest, leaves_of, length, map_vectors, total

CURE = "project its real part, or take projection_l2_ball"


def _support_sums(
    arrays: Sequence[jax.Array], threshold: jax.Array, axes: Axes
) -> tuple[jax.Array, jax.Array]:
    """The number of entries above a threshold, and their sum."""
    above = [array > threshold for array in arrays]
    each = zip(above, arrays, strict=True)
    return (
        total([one.astype(threshold.dtype) for one in above], axes),
        total([jnp.where(one, array, 0) for one, array in each], axes),
    )


def _newton(
    arrays: Sequence[jax.Array], scale: jax.Array, axes: Axes, state: tuple[jax.Array, ...]
) -> tuple[jax.Array, ...]:
    threshold, before, _ = state
    count, mass = _support_sums(arrays, threshold, axes)
    # Rounding may not take a step back: an entry that left the support stays outside.
    rising = jnp.maximum(threshold, (mass - scale) / jnp.maximum(count, 1))
    return rising, count, jnp.any(count < before)


def find_threshold(arrays: Sequence[jax.Array], scale: jax.Array, axes: Axes) -> jax.Array:
    """τ of vectors whose largest entry is 0."""
    count = length(arrays, axes)
    mean = (total(arrays, axes) - scale) / max(count, 1.0)
    start = jnp.maximum(mean, -scale)  # f ≥ 0 at both
    # True from the data, so that within shard_map it varies over devices as the data do.
    state = (start, jnp.full_like(start, count + 1), jnp.any(start < jnp.inf))
    step = functools.partial(_newton, arrays, scale, axes)
    return jax.lax.while_loop(lambda state: state[2], step, state)[0]


def _nearest(arrays: list[jax.Array], scale: jax.Array, axes: Axes) -> list[jax.Array]:
    top = largest(arrays, axes)
    # Sums of differences from the largest entry lose no digits to a common offset.
    shifted = [array - top for array in arrays]
    threshold = find_threshold(shifted, scale, axes)
    return [jnp.maximum(array - threshold, 0) for array in shifted]


project_simplex: jax.custom_jvp[list[jax.Array]] = jax.custom_jvp(_nearest, nondiff_argnums=(2,))
"""The nearest points of the simplex, with the derivative on their support."""


@project_simplex.defjvp
def _simplex_jvp(
    axes: Axes, primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[list[jax.Array], list[jax.Array]]:
    """On the support ẏ = ẋ − mean(ẋ) + ṙ / n, else 0."""
    points, (array_tangents, scale_tangent) = project_simplex(*primals, axes), tangents
    support = [(point > 0).astype(point.dtype) for point in points]
    each = list(zip(support, array_tangents, strict=True))
    moved = total([one * tangent for one, tangent in each], axes)
    shift = (scale_tangent - moved) / jnp.maximum(total(support, axes), 1)
    return points, [one * (tangent + shift) for one, tangent in each]


def _rule(arrays: list[jax.Array], scale: jax.Array, *, axes: Axes) -> list[jax.Array]:
    return project_simplex(arrays, nan_below_zero(scale), axes)


def nan_below_zero(scale: jax.Array) -> jax.Array:
    """A radius, or nan where it is below 0: no point is in the set, and no number may look so."""
    return jnp.where(scale >= 0, scale, jnp.nan)


def projection_simplex(tree: Any, scale: ArrayLike = 1, *, axis: Axis = None) -> Any:
    """Projection onto the simplex: the nearest weights y ≥ 0 whose sum is r.

    argmin_y ‖x − y‖² with y ≥ 0 and Σ y_i = r. It is y_i = max(x_i − τ, 0) with the τ that gives
    the sum. x and y have one shape; the default r = 1 gives probabilities. Derivatives are exact on
    the support: ẏ = ẋ − mean(ẋ).

    When: mixing weights, portfolios, attention that is exactly 0 in places (sparsemax). When not:
    each weight must stay above 0; take softmax.

    Args:
      tree: x, an array or a tree; without `axis` all of its entries are one vector.
      scale: r ≥ 0, the sum; with `axis`, one number or one for each vector.
      axis: the axes of one vector, -1 for rows; None: the whole tree is one vector, as in Optax.

    Returns:
      y, a tree like `tree`, in its dtypes; integers become floats. A nan makes its vector nan, and
      so does a traced r below 0.

    Raises:
      HyperparamError: `scale` is below 0.
      StructureError: a complex array; `axis` or the shape of `scale` does not fit.

    >>> import jax.numpy as jnp
    >>> rows = jnp.array([[2.5, 2.0, -1.0], [0.0, 0.0, 0.0]])
    >>> projection_simplex(rows, 1.5, axis=-1).tolist()
    [[1.0, 0.5, 0.0], [0.5, 0.5, 0.5]]

    See also: `projection_l1_ball`, `gradtx.project`.

    Held, Wolfe and Crowder 1974, Mathematical Programming 6; Condat 2016, Mathematical Programming
    158, section 3, compares methods; the derivative: Martins and Astudillo 2016, arXiv 1602.02068,
    equation 9.
    """
    leaves = leaves_of("projection_simplex", tree)
    leaves.check_real(CURE)
    check_radius("projection_simplex", scale)
    return map_vectors(_rule, leaves, axis, numbers={"scale": scale})
