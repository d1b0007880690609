r"""Projections onto a line, a hyperplane and a half-space.

excess = ⟨a, x⟩ − b,   y = x − a excess / ‖a‖²
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.projections.checks import check_normal, known
from gradtx.projections.vectors import Axes, Axis, Leaves, inner, leaves_of, map_vectors, squares
from gradtx.tree.arithmetic import divide
from gradtx.tree.casts import widest


def _line(arrays: list[jax.Array], directions: list[jax.Array], *, axes: Axes) -> list[jax.Array]:
    arrays, directions = _alike(arrays, directions)
    size = squares(directions, axes)
    part = inner(directions, arrays, axes)
    factor = divide(part, jnp.where(size == 0, 1, size).astype(part.dtype))
    return [factor * direction for direction in directions]


def _alike(*lists: list[jax.Array]) -> list[list[jax.Array]]:
    """Arrays in one dtype: complex, if one of them is."""
    dtype = widest(*(array.dtype for arrays in lists for array in arrays))
    return [[array.astype(dtype) for array in arrays] for arrays in lists]


def _move(
    arrays: list[jax.Array], normals: list[jax.Array], excess: jax.Array, axes: Axes
) -> list[jax.Array]:
    """Move along the normal until the excess is 0; nan where the normal is 0 and cannot do it."""
    size = squares(normals, axes)
    factor = divide(excess, jnp.where(size == 0, 1, size).astype(excess.dtype))
    impossible = jnp.where(excess == 0, 0, jnp.nan).astype(excess.dtype)
    factor = jnp.where(size == 0, impossible, factor)
    return [array - factor * normal for array, normal in zip(arrays, normals, strict=True)]


def _hyperplane(
    arrays: list[jax.Array], normals: list[jax.Array], offset: jax.Array, *, axes: Axes
) -> list[jax.Array]:
    arrays, normals = _alike(arrays, normals)
    product = inner(normals, arrays, axes)
    if jnp.iscomplexobj(product):
        offset = offset.astype(product.dtype)
    return _move(arrays, normals, product - offset, axes)


def _halfspace(
    arrays: list[jax.Array], normals: list[jax.Array], offset: jax.Array, *, axes: Axes
) -> list[jax.Array]:
    excess = jnp.maximum(inner(normals, arrays, axes) - offset, 0)
    return _move(arrays, normals, excess, axes)


def projection_vector(x: Any, a: Any, *, axis: Axis = None) -> Any:
    """Projection onto a vector: the part of x along the line through a.

    y = a ⟨a, x⟩ / ‖a‖², the nearest point of the line {t a}. x, a and y have one shape. A line
    through a = 0 is the point 0.

    When: to take a component out of x, or to keep only it. When not: for several directions at
    once; they must be orthogonal to be projected one after the other.

    Args:
      x: an array or a tree; without `axis` all of its entries are one vector.
      a: the direction: a tree like x, or an array that broadcasts to each array.
      axis: the axes of one vector, -1 for rows; None: the whole tree is one vector, as in Optax.

    Returns:
      y, a tree like x, in its dtypes; integers become floats.

    Raises:
      StructureError: `a` or `axis` does not fit x.

    >>> import jax.numpy as jnp
    >>> projection_vector(jnp.array([2.0, 4.0]), jnp.array([1.0, 1.0])).tolist()
    [3.0, 3.0]

    See also: `projection_hyperplane`.

    Boyd and Vandenberghe 2004, Convex Optimization, section 8.1.
    """
    return map_vectors(_line, leaves_of("projection_vector", x), axis, {"a": a})


def projection_hyperplane(x: Any, a: Any, b: ArrayLike, *, axis: Axis = None) -> Any:
    """Projection onto a hyperplane: the nearest point with ⟨a, y⟩ = b.

    y = x − a (⟨a, x⟩ − b) / ‖a‖². x, a and y have one shape; b is a number.

    When: a sum or a weighted sum of parameters is fixed. When not: entries must be nonnegative as
    well; take `projection_simplex`.

    Args:
      x: an array or a tree; without `axis` all of its entries are one vector.
      a: the normal: a tree like x, or an array that broadcasts to each array.
      b: the offset; with `axis`, one number or one for each vector.
      axis: the axes of one vector, -1 for rows; None: the whole tree is one vector, as in Optax.

    Returns:
      y, a tree like x, in its dtypes; integers become floats. With a = 0, x where b = 0, else nan.

    Raises:
      HyperparamError: a = 0 and b ≠ 0: the set is empty.
      StructureError: `a`, `b` or `axis` does not fit x.

    >>> import jax.numpy as jnp
    >>> projection_hyperplane(jnp.array([[2.0, 4.0], [0.0, 0.0]]), jnp.ones(2), 2.0, axis=-1)
    Array([[0., 2.],
           [1., 1.]], dtype=float32)

    See also: `projection_halfspace`, `projection_vector`.

    Boyd and Vandenberghe 2004, Convex Optimization, section 8.1.
    """
    leaves = leaves_of("projection_hyperplane", x)
    return _affine(_hyperplane, leaves, a, b, axis)


def projection_halfspace(x: Any, a: Any, b: ArrayLike, *, axis: Axis = None) -> Any:
    """Projection onto a half-space: the nearest point with ⟨a, y⟩ ≤ b.

    y = x − a max(⟨a, x⟩ − b, 0) / ‖a‖². x, a and y have one shape; b is a number.

    When: one linear constraint, a budget for example. When not: several constraints at once; take
    turns among them, or solve the program.

    Args:
      x: an array or a tree of real numbers; without `axis` all of its entries are one vector.
      a: the normal: a tree like x, or an array that broadcasts to each array.
      b: the limit; with `axis`, one number or one for each vector.
      axis: the axes of one vector, -1 for rows; None: the whole tree is one vector, as in Optax.

    Returns:
      y, a tree like x, in its dtypes; integers become floats. With a = 0, x where b ≥ 0, else nan.

    Raises:
      HyperparamError: a = 0 and b < 0: the set is empty.
      StructureError: a complex array; `a`, `b` or `axis` does not fit x.

    >>> import jax.numpy as jnp
    >>> rows = jnp.array([[2.0, 4.0], [0.0, 1.0]])
    >>> projection_halfspace(rows, jnp.ones(2), 2.0, axis=-1).tolist()
    [[0.0, 2.0], [0.0, 1.0]]

    See also: `projection_hyperplane`.

    Boyd and Vandenberghe 2004, Convex Optimization, section 8.1.
    """
    leaves = leaves_of("projection_halfspace", x)
    leaves.check_real("give a condition on its real part")
    return _affine(_halfspace, leaves, a, b, axis)


def _affine(rule: Any, leaves: Leaves, a: Any, b: ArrayLike, axis: Axis) -> Any:
    bound = known(b)
    is_empty = None if bound is None else (bound < 0 if rule is _halfspace else bound != 0)
    if is_empty is not None:
        why = "is below" if rule is _halfspace else "is not"
        check_normal(leaves, leaves.beside(a, "a"), is_empty, why)
    return map_vectors(rule, leaves, axis, {"a": a}, {"b": b})
