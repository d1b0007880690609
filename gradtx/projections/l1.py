r"""Projections onto the ℓ1 ball and its surface, both by the simplex of magnitudes.

y_i = sign(x_i) max(|x_i| − τ, 0)
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.projections.checks import check_radius
from gradtx.projections.simplex import nan_below_zero, project_simplex
from gradtx.projections.vectors import Axes, Axis, leaves_of, map_vectors, total
from gradtx.tree.arithmetic import abs_sq, divide, sqrt


def _magnitudes(arrays: Sequence[jax.Array]) -> list[jax.Array]:
    """|x|, whose derivative is 0 at 0."""
    return [sqrt(abs_sq(one)) if jnp.iscomplexobj(one) else jnp.abs(one) for one in arrays]


def _with_sign(magnitude: jax.Array, array: jax.Array) -> jax.Array:
    """A magnitude with the sign or the phase of x; those of 0 are 1."""
    if not jnp.iscomplexobj(array):
        return jnp.where(array < 0, -magnitude, magnitude)
    size = sqrt(abs_sq(array))
    phase = divide(array, jnp.where(size == 0, 1, size).astype(array.dtype))
    return magnitude.astype(array.dtype) * jnp.where(size == 0, 1, phase)


def _sphere(arrays: list[jax.Array], scale: jax.Array, *, axes: Axes) -> list[jax.Array]:
    sizes = project_simplex(_magnitudes(arrays), nan_below_zero(scale), axes)
    return [_with_sign(size, array) for size, array in zip(sizes, arrays, strict=True)]


def _ball(arrays: list[jax.Array], scale: jax.Array, *, axes: Axes) -> list[jax.Array]:
    inside = total(_magnitudes(arrays), axes) <= scale
    each = zip(arrays, _sphere(arrays, scale, axes=axes), strict=True)
    return [jnp.where(inside, array, point) for array, point in each]


def projection_l1_ball(tree: Any, scale: ArrayLike = 1, *, axis: Axis = None) -> Any:
    """Projection onto the ℓ1 ball: the nearest point whose absolute values sum to at most r.

    argmin_y ‖x − y‖² with Σ |y_i| ≤ r. Inside the ball y = x; outside, small entries become 0 and
    the others shrink by one amount. x and y have one shape. Of complex entries the magnitude
    shrinks and the phase stays.

    When: sparse parameters under a budget (the constrained lasso). When not: a penalty in place of
    a budget; then shrink by a fixed amount.

    Args:
      tree: x, an array or a tree; without `axis` all of its entries are one vector.
      scale: r ≥ 0, the radius; with `axis`, one number or one for each vector.
      axis: the axes of one vector, -1 for rows; None: the whole tree is one vector, as in Optax.

    Returns:
      y, a tree like `tree`, in its dtypes; integers become floats.

    Raises:
      HyperparamError: `scale` is below 0.
      StructureError: `axis` or the shape of `scale` does not fit.

    >>> import jax.numpy as jnp
    >>> projection_l1_ball(jnp.array([-2.0, 1.5, 0.2]), 2.5).tolist()
    [-1.5, 1.0, 0.0]

    See also: `projection_l1_sphere`, `projection_simplex`.

    Duchi et al. 2008, ICML, Efficient Projections onto the ℓ1-Ball, section 4.
    """
    check_radius("projection_l1_ball", scale)
    leaves = leaves_of("projection_l1_ball", tree)
    return map_vectors(_ball, leaves, axis, numbers={"scale": scale})


def projection_l1_sphere(tree: Any, scale: ArrayLike = 1, *, axis: Axis = None) -> Any:
    """Projection onto the ℓ1 sphere: the nearest point whose absolute values sum to r.

    argmin_y ‖x − y‖² with Σ |y_i| = r. x and y have one shape. An entry of 0 counts as positive, so
    that the result lies on the sphere; of the points that are equally near, it is one.

    When: a fixed budget of absolute weight, used to the full. When not: less than the budget is
    allowed as well; take `projection_l1_ball`.

    Args:
      tree: x, an array or a tree; without `axis` all of its entries are one vector.
      scale: r ≥ 0, the radius; with `axis`, one number or one for each vector.
      axis: the axes of one vector, -1 for rows; None: the whole tree is one vector, as in Optax.

    Returns:
      y, a tree like `tree`, in its dtypes; integers become floats.

    Raises:
      HyperparamError: `scale` is below 0.
      StructureError: `axis` or the shape of `scale` does not fit.

    >>> import jax.numpy as jnp
    >>> projection_l1_sphere(jnp.array([-0.5, 0.0])).tolist()
    [-0.75, 0.25]

    See also: `projection_l1_ball`.

    Duchi et al. 2008, ICML, Efficient Projections onto the ℓ1-Ball, section 4.
    """
    check_radius("projection_l1_sphere", scale)
    leaves = leaves_of("projection_l1_sphere", tree)
    return map_vectors(_sphere, leaves, axis, numbers={"scale": scale})
