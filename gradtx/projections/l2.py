r"""Projections onto the ℓ2 ball and its surface: both scale the vector, y = x r / ‖x‖."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.projections.checks import check_radius
from gradtx.projections.simplex import nan_below_zero
from gradtx.projections.vectors import Axes, Axis, leaves_of, length, map_vectors, squares
from gradtx.tree.arithmetic import divide, sqrt


def _ball(arrays: list[jax.Array], scale: jax.Array, *, axes: Axes) -> list[jax.Array]:
    radius, norm = nan_below_zero(scale), sqrt(squares(arrays, axes))
    inside = norm <= radius
    # Where x is inside, its norm may be 0, and so may the divisor of its derivative.
    factor = jnp.where(inside, 1, divide(radius, jnp.where(inside, 1, norm)))
    return [array * factor.astype(array.dtype) for array in arrays]


def _sphere(arrays: list[jax.Array], scale: jax.Array, *, axes: Axes) -> list[jax.Array]:
    radius, norm = nan_below_zero(scale), sqrt(squares(arrays, axes))
    is_zero = norm == 0
    factor = divide(radius, jnp.where(is_zero, 1, norm))
    # Every point of the sphere is nearest to 0: the one whose entries are equal stands for them.
    even = jnp.where(is_zero, radius / max(length(arrays, axes), 1.0) ** 0.5, 0)
    return [array * factor.astype(array.dtype) + even.astype(array.dtype) for array in arrays]


def projection_l2_ball(tree: Any, scale: ArrayLike = 1, *, axis: Axis = None) -> Any:
    """Projection onto the ℓ2 ball: the nearest point whose Euclidean norm is at most r.

    argmin_y ‖x − y‖² with ‖y‖ ≤ r. It is y = x min(1, r / ‖x‖). x and y have one shape.

    When: a norm must stay below a limit (max-norm regularization with `axis`, Lipschitz bounds).
    When not: for gradients; `clip_by_global_norm` does it in a chain.

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
    >>> projection_l2_ball({"a": jnp.array([3.0]), "b": jnp.array([4.0])}, 2.5)
    {'a': Array([1.5], dtype=float32), 'b': Array([2.], dtype=float32)}

    See also: `projection_l2_sphere`, `gradtx.project`.

    Parikh and Boyd 2014, Proximal Algorithms, section 6.5.1.
    """
    check_radius("projection_l2_ball", scale)
    leaves = leaves_of("projection_l2_ball", tree)
    return map_vectors(_ball, leaves, axis, numbers={"scale": scale})


def projection_l2_sphere(tree: Any, scale: ArrayLike = 1, *, axis: Axis = None) -> Any:
    """Projection onto the ℓ2 sphere: the vector scaled to Euclidean norm r.

    argmin_y ‖x − y‖² with ‖y‖ = r. It is y = x r / ‖x‖. x and y have one shape. All points of the
    sphere are equally near to x = 0; the result there has n equal entries r / √n, and a finite
    derivative.

    When: directions, embeddings of fixed norm (`axis=-1`), weight normalization. When not: shorter
    vectors are allowed as well; take `projection_l2_ball`.

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
    >>> rows = jnp.array([[0.0, 6.0, 0.0, 8.0], [0.0, 0.0, 0.0, 0.0]])
    >>> projection_l2_sphere(rows, 5.0, axis=-1).tolist()
    [[0.0, 3.0, 0.0, 4.0], [2.5, 2.5, 2.5, 2.5]]

    See also: `projection_l2_ball`.

    Boyd and Vandenberghe 2004, Convex Optimization, section 8.1.
    """
    check_radius("projection_l2_sphere", scale)
    leaves = leaves_of("projection_l2_sphere", tree)
    return map_vectors(_sphere, leaves, axis, numbers={"scale": scale})
