"""Arithmetic of trees, leaf by leaf: sums, products, scaling, clipping and choices."""

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.tree.casts import as_array
from gradtx.tree.errors import StructureError
from gradtx.tree.pairs import as_factor, joint_dtype, map_rows, products, wide_dtype
from gradtx.tree.paths import path_text


def _add(*arrays: jax.Array) -> jax.Array:
    return functools.reduce(operator.add, arrays)


def add(tree_x: Any, tree_y: Any, *other_trees: Any) -> Any:
    """Add two or more pytrees leaf by leaf: x + y + ...

    Leaves broadcast as arrays of JAX do. None must be in the same places. Numbers and arrays of
    NumPy stay so.

    When: gradients of several losses, updates and parameters. When not: dtypes must not change; see
    `gradtx.apply_updates`, which keeps those of the parameters.

    Args:
      tree_x: the first tree.
      tree_y: a tree of the same structure.
      *other_trees: more trees of that structure.

    Returns: a tree of the same structure.

    Raises:
      StructureError: trees of different structures, or shapes that do not broadcast.

    >>> import jax.numpy as jnp
    >>> from gradtx.tree.algebra import add
    >>> add({"w": jnp.ones(2)}, {"w": jnp.arange(2.0)}, {"w": jnp.ones(2)})["w"].tolist()
    [2.0, 3.0]
    """
    more = {f"other_trees[{place}]": tree for place, tree in enumerate(other_trees)}
    trees = {"tree_x": tree_x, "tree_y": tree_y, **more}
    return map_rows("add", _add, trees, is_native=True)


def sub(tree_x: Any, tree_y: Any) -> Any:
    """Subtract two pytrees leaf by leaf: x − y.

    Args:
      tree_x: the tree x.
      tree_y: the tree y, of the same structure.

    Returns: a tree of the same structure.

    Raises:
      StructureError: trees of different structures, or shapes that do not broadcast.

    >>> import jax.numpy as jnp
    >>> from gradtx.tree.algebra import sub
    >>> sub({"w": jnp.ones(2)}, {"w": jnp.arange(2.0)})["w"].tolist()
    [1.0, 0.0]
    """
    trees = {"tree_x": tree_x, "tree_y": tree_y}
    return map_rows("sub", operator.sub, trees, is_native=True)


def mul(tree_x: Any, tree_y: Any) -> Any:
    """Multiply two pytrees leaf by leaf: x y.

    Args:
      tree_x: the tree x.
      tree_y: the tree y, of the same structure.

    Returns: a tree of the same structure.

    Raises:
      StructureError: trees of different structures, or shapes that do not broadcast.

    >>> import jax.numpy as jnp
    >>> from gradtx.tree.algebra import mul
    >>> mul({"w": jnp.arange(3.0)}, {"w": jnp.arange(3.0)})["w"].tolist()
    [0.0, 1.0, 4.0]
    """
    trees = {"tree_x": tree_x, "tree_y": tree_y}
    return map_rows("mul", operator.mul, trees, is_native=True)


def div(tree_x: Any, tree_y: Any) -> Any:
    """Divide two pytrees leaf by leaf: x / y.

    Args:
      tree_x: the tree x.
      tree_y: the tree y, of the same structure.

    Returns: a tree of the same structure; integers become floats.

    Raises:
      StructureError: trees of different structures, or shapes that do not broadcast.

    >>> import jax.numpy as jnp
    >>> from gradtx.tree.algebra import div
    >>> div({"w": jnp.array([1, 3])}, {"w": jnp.array([2, 4])})["w"].tolist()
    [0.5, 0.75]
    """
    trees = {"tree_x": tree_x, "tree_y": tree_y}
    return map_rows("div", operator.truediv, trees, is_native=True)


def _add_scale(x: jax.Array, y: jax.Array, scalar: jax.Array) -> jax.Array:
    dtype = joint_dtype((x, y), scalar)
    wide = wide_dtype(dtype)
    with products(wide):
        return (x.astype(wide) + as_factor(scalar, wide) * y.astype(wide)).astype(dtype)


def add_scale(tree_x: Any, scalar: ArrayLike, tree_y: Any) -> Any:
    """Add a scaled pytree to another, axpy: x + s y.

    Arithmetic is float32 at least. The result has the dtype of the trees, which a scalar does not
    widen: bfloat16 stays bfloat16 beside a learning rate in float32. Where x is None, so is the
    result.

    Args:
      tree_x: the tree x.
      scalar: s, a number, or an array that broadcasts with every leaf.
      tree_y: the tree y, of the same structure.

    Returns: a tree of the same structure.

    Raises:
      StructureError: trees of different structures, or shapes that do not broadcast.

    >>> import jax.numpy as jnp
    >>> from gradtx.tree.algebra import add_scale
    >>> add_scale({"w": jnp.ones(2)}, -0.5, {"w": jnp.arange(2.0)})["w"].tolist()
    [1.0, 0.5]
    """
    trees = {"tree_x": tree_x, "tree_y": tree_y}
    return map_rows("add_scale", _add_scale, trees, (scalar,), none="first")


def _scale(array: jax.Array, scalar: jax.Array) -> jax.Array:
    dtype = joint_dtype((array,), scalar)
    wide = wide_dtype(dtype)
    with products(wide):
        return (as_factor(scalar, wide) * array.astype(wide)).astype(dtype)


def scale(scalar: ArrayLike, tree: Any) -> Any:
    """Multiply a pytree by a scalar: s x.

    Arithmetic is float32 at least. A scalar does not widen the dtype of a leaf.

    Args:
      scalar: s, a number, or an array that broadcasts with every leaf.
      tree: the tree x.

    Returns: a tree of the same structure.

    >>> import jax.numpy as jnp
    >>> from gradtx.tree.algebra import scale
    >>> scale(jnp.float32(0.5), {"w": jnp.ones(2, jnp.bfloat16)})["w"].dtype.name
    'bfloat16'

    See also: `gradtx.scale`, the transformation.
    """
    return map_rows("scale", _scale, {"tree": tree}, (scalar,))


def conj(tree: Any) -> Any:
    """The complex conjugate of a pytree; real leaves do not change.

    Args:
      tree: the tree.

    Returns: a tree of the same structure.

    >>> import jax.numpy as jnp
    >>> from gradtx.tree.algebra import conj
    >>> conj({"w": jnp.array([1 + 2j])})["w"].tolist()
    [(1-2j)]
    """
    return map_rows("conj", jnp.conj, {"tree": tree})


def real(tree: Any) -> Any:
    """The real part of a pytree.

    Args:
      tree: the tree.

    Returns: a tree of the same structure.

    >>> import jax.numpy as jnp
    >>> from gradtx.tree.algebra import real
    >>> real({"w": jnp.array([1 + 2j])})["w"].tolist()
    [1.0]
    """
    return map_rows("real", jnp.real, {"tree": tree})


def _clip_below(array: jax.Array, bound: jax.Array) -> jax.Array:
    dtype = joint_dtype((array,), bound)
    return jnp.maximum(array.astype(dtype), bound.astype(dtype))


def _clip_above(array: jax.Array, bound: jax.Array) -> jax.Array:
    dtype = joint_dtype((array,), bound)
    return jnp.minimum(array.astype(dtype), bound.astype(dtype))


def clip(tree: Any, min_value: ArrayLike | None = None, max_value: ArrayLike | None = None) -> Any:
    """Clip every entry of a pytree to an interval: min(max(x, a), b).

    Where a > b, the result is b. A bound does not widen the dtype of a leaf.

    Args:
      tree: the tree x, real.
      min_value: a, a number or an array that broadcasts with every leaf; None: no lower bound.
      max_value: b; None: no upper bound.

    Returns: a tree of the same structure.

    Raises:
      StructureError: complex numbers, which have no order.

    >>> import jax.numpy as jnp
    >>> from gradtx.tree.algebra import clip
    >>> clip({"w": jnp.array([-3.0, 0.5, 3.0])}, -1.0, 1.0)["w"].tolist()
    [-1.0, 0.5, 1.0]

    See also: `gradtx.clip`, the transformation.
    """
    _check_real({"tree": tree, "min_value": min_value, "max_value": max_value})
    if min_value is not None:
        tree = map_rows("clip", _clip_below, {"tree": tree}, (min_value,))
    if max_value is not None:
        tree = map_rows("clip", _clip_above, {"tree": tree}, (max_value,))
    return tree


def _check_real(arguments: Any) -> None:
    for path, leaf in jax.tree_util.tree_flatten_with_path(arguments)[0]:
        if jnp.iscomplexobj(leaf):
            raise StructureError(
                f"clip: {path_text(path)!r} is complex, and complex numbers have no order; clip "
                "their real parts"
            )


def _where(x: jax.Array, y: jax.Array, condition: jax.Array) -> jax.Array:
    return jnp.where(condition.astype(bool), x, y)


def where(condition: Any, tree_x: Any, tree_y: Any) -> Any:
    """Choose between two pytrees: x where a condition is True, else y.

    Args:
      condition: a bool, or an array of bools that broadcasts with every leaf; may be traced.
      tree_x: the tree x.
      tree_y: the tree y, of the same structure.

    Returns: a tree of the same structure.

    Raises:
      StructureError: trees of different structures, or shapes that do not broadcast.

    >>> import jax.numpy as jnp
    >>> from gradtx.tree.algebra import where
    >>> old, new = {"w": jnp.zeros(2)}, {"w": jnp.array([1.0, jnp.nan])}
    >>> where(jnp.isfinite(new["w"]).all(), new, old)["w"].tolist()
    [0.0, 0.0]
    """
    trees = {"tree_x": tree_x, "tree_y": tree_y}
    return map_rows("where", _where, trees, (as_array(condition),))
