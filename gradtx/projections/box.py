r"""Projections entry by entry: y_i = min(max(x_i, l_i), u_i)."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.projections.checks import check_bounds, check_radius
from gradtx.projections.vectors import Axis, Leaves, float_dtype, leaves_of, per_entry
from gradtx.tree.casts import is_inexact

CURE = "project its real and its imaginary part"


def _clip(array: jax.Array, lower: jax.Array, upper: jax.Array) -> jax.Array:
    """The nearest entries between two bounds, in the dtype of the array.

    Integers become floats where a bound is one.
    """
    dtype = float_dtype(array) if is_inexact(lower) or is_inexact(upper) else array.dtype
    return _clip_kernel(*(one.astype(dtype) for one in (array, lower, upper)))


@jax.jit
def _clip_kernel(array: jax.Array, lower: jax.Array, upper: jax.Array) -> jax.Array:
    return jnp.minimum(jnp.maximum(array, lower), upper)


def _box(leaves: Leaves, lower: Any, upper: Any, axis: Axis) -> Any:
    leaves.check_real(CURE)
    lowers, uppers = leaves.beside(lower, "lower"), leaves.beside(upper, "upper")
    check_bounds(leaves, lowers, uppers)
    points = [
        _clip(
            array,
            per_entry(leaves, number, "lower", lowers[number], axis),
            per_entry(leaves, number, "upper", uppers[number], axis),
        )
        for number, array in enumerate(leaves.arrays)
    ]
    return jax.tree.unflatten(leaves.treedef, points)


def projection_box(tree: Any, lower: Any, upper: Any, *, axis: Axis = None) -> Any:
    """Projection onto a box: clip every entry between a lower and an upper bound.

    argmin_y ‖x − y‖² with l ≤ y ≤ u. It is y_i = min(max(x_i, l_i), u_i). x and y have one shape.

    When: parameters with known limits. When not: a limit that a smooth parameter may approach; take
    a sigmoid of it.

    Args:
      tree: x, an array or a tree.
      lower: l: a number, an array that broadcasts to each array, or a tree like `tree`; -inf is no
        limit.
      upper: u, as `lower`.
      axis: None: bounds are per entry. Else the axes that share a bound: an array of bounds then
        has the other axes alone.

    Returns:
      y, a tree like `tree`, in its dtypes; integers become floats where a bound is a float. With
      traced bounds l > u the result is u.

    Raises:
      HyperparamError: a lower bound is above an upper one: the box is empty.
      StructureError: a complex array; a bound does not fit.

    >>> import jax.numpy as jnp
    >>> projection_box(jnp.array([-2.0, 0.5, 2.0]), -1.0, jnp.array([1.0, 0.0, 1.0])).tolist()
    [-1.0, 0.0, 1.0]

    See also: `projection_hypercube`, `projection_non_negative`.

    Parikh and Boyd 2014, Proximal Algorithms, section 6.2.4.
    """
    return _box(leaves_of("projection_box", tree), lower, upper, axis)


def projection_hypercube(tree: Any, scale: Any = 1, *, axis: Axis = None) -> Any:
    """Projection onto a hypercube: clip every entry between 0 and an edge length.

    argmin_y ‖x − y‖² with 0 ≤ y_i ≤ c. It is y_i = min(max(x_i, 0), c). x and y have one shape.

    When: probabilities of independent events, gates, shares. When not: they must sum to 1; take
    `projection_simplex`.

    Args:
      tree: x, an array or a tree.
      scale: c ≥ 0: a number, an array that broadcasts to each array, or a tree like `tree`.
      axis: None: c is per entry. Else the axes that share it: an array then has the other axes.

    Returns:
      y, a tree like `tree`, in its dtypes; integers become floats where c is a float.

    Raises:
      HyperparamError: `scale` is below 0.
      StructureError: a complex array; `scale` does not fit.

    >>> import jax.numpy as jnp
    >>> projection_hypercube(jnp.array([-2.0, 0.5, 2.0])).tolist()
    [0.0, 0.5, 1.0]

    See also: `projection_box`.

    Parikh and Boyd 2014, Proximal Algorithms, section 6.2.4.
    """
    leaves = leaves_of("projection_hypercube", tree)
    for edge in leaves.beside(scale, "scale"):
        check_radius("projection_hypercube", edge)
    return _box(leaves, 0, scale, axis)


def projection_linf_ball(tree: Any, scale: ArrayLike = 1, *, axis: Axis = None) -> Any:
    """Projection onto the ℓ∞ ball: clip every entry to an absolute value of at most r.

    argmin_y ‖x − y‖² with max |y_i| ≤ r. It is y_i = min(max(x_i, −r), r). x and y have one shape.

    When: adversarial perturbations, weight clipping. When not: for gradients; `clip` does it in a
    chain.

    Args:
      tree: x, an array or a tree.
      scale: r ≥ 0, the radius; with `axis`, one number or one for each vector.
      axis: the axes of one vector, for radii per vector; the result depends on it in no other way.

    Returns:
      y, a tree like `tree`, in its dtypes; integers become floats where r is a float.

    Raises:
      HyperparamError: `scale` is below 0.
      StructureError: a complex array; `scale` does not fit.

    >>> import jax.numpy as jnp
    >>> rows = jnp.array([[-2.0, 0.5], [-2.0, 0.5]])
    >>> projection_linf_ball(rows, jnp.array([1.0, 0.25]), axis=-1).tolist()
    [[-1.0, 0.5], [-0.25, 0.25]]

    See also: `projection_l2_ball`, `projection_box`.

    Parikh and Boyd 2014, Proximal Algorithms, section 6.2.4.
    """
    leaves = leaves_of("projection_linf_ball", tree)
    radii = leaves.beside(scale, "scale")
    for radius in radii:
        check_radius("projection_linf_ball", radius)
    lower, upper = (
        jax.tree.unflatten(leaves.treedef, bounds)
        for bounds in ([-jnp.asarray(radius) for radius in radii], radii)
    )
    return _box(leaves, lower, upper, axis)


def projection_non_negative(tree: Any, *, axis: Axis = None) -> Any:
    """Projection onto the nonnegative orthant: replace entries below 0 by 0.

    argmin_y ‖x − y‖² with y ≥ 0. It is y_i = max(x_i, 0). x and y have one shape.

    When: rates, variances, nonnegative factors. When not: 0 itself is not allowed; learn the
    logarithm. In a chain, `keep_params_nonnegative` does it.

    Args:
      tree: x, an array or a tree.
      axis: as for the other projections; the result does not depend on it.

    Returns:
      y, a tree like `tree`, in its dtypes.

    Raises:
      StructureError: a complex array.

    >>> import jax.numpy as jnp
    >>> projection_non_negative({"w": jnp.array([-1.0, 2.0])})
    {'w': Array([0., 2.], dtype=float32)}

    See also: `projection_box`.

    Parikh and Boyd 2014, Proximal Algorithms, section 6.2.4.
    """
    leaves = leaves_of("projection_non_negative", tree)
    leaves.check_real(CURE)
    points = [jnp.maximum(array, jnp.zeros((), array.dtype)) for array in leaves.arrays]
    return jax.tree.unflatten(leaves.treedef, points)
