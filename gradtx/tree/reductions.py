"""Numbers of a whole tree: norms, sums, inner products, extremes, sizes, comparisons."""

import builtins
import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from gradtx.tree.arithmetic import sqrt, sum_of_squares, sum_promoted
from gradtx.tree.casts import as_array, compute_dtype, is_inexact_dtype, mixed_promotion, widest
from gradtx.tree.errors import HyperparamError, StructureError
from gradtx.tree.kernels import map_arrays
from gradtx.tree.manual_axes import Names, leaf_axes, manual_axes, reduce_over
from gradtx.tree.pairs import at, joint_dtype, map_rows, match_rows, wide_dtype
from gradtx.tree.paths import tree_paths


def _arrays(tree: Any) -> list[jax.Array]:
    return [as_array(leaf) for leaf in jax.tree.leaves(tree)]


def norm(
    tree: Any,
    ord: int | str | float | None = None,
    squared: bool = False,
    *,
    axis_names: Any = None,
) -> jax.Array:
    """The vector norm of a pytree taken as one vector: 2-norm, 1-norm or maximum norm.

    √(Σ |x_i|²), Σ |x_i| or max |x_i|, over the entries of all leaves, integers included. Sums run
    in float32 at least, and the norm has that dtype: 100,000 entries of 300 in float16 have a norm
    that float16 cannot hold. The gradient at zero is 0.

    When: gradient norms for logs and clipping. When not: one norm for each leaf; use
    `jax.tree.map(jnp.linalg.norm, tree)`.

    Args:
      tree: the tree; an empty one has norm 0.
      ord: None or 2, 1, or inf (also as text).
      squared: return the square of the norm; for the 2-norm this takes no root.
      axis_names: inside `shard_map` and `pmap` the mesh axes that cut the arrays, as in
        `gradtx.global_norm`.

    Returns: a scalar.

    Raises:
      GradtxError: inside `shard_map`, arrays that differ over devices, and no `axis_names`.
      HyperparamError: another `ord`.

    >>> import jax.numpy as jnp
    >>> from gradtx.tree.reductions import norm
    >>> tree = {"a": jnp.array([3.0]), "b": jnp.array([[-4.0]])}
    >>> [norm(tree, ord).item() for ord in (None, 1, jnp.inf)]
    [5.0, 7.0, 4.0]

    See also: `gradtx.global_norm`, which leaves out integers.
    """
    arrays = _arrays(tree)
    is_cut = axis_names is not None or manual_axes()
    names = leaf_axes("norm", tree, arrays, axis_names) if is_cut else [()] * len(arrays)
    if ord in (None, 2):
        square = _total(sum_of_squares, arrays, names)
        return square if squared else sqrt(square)
    if ord == 1:
        size = _total(_sum_of_sizes, arrays, names)
    elif ord in ("inf", math.inf):
        sizes = map_arrays(_largest_size, arrays)
        size = reduce_over(sizes, names, _largest, lax.pmax) if sizes else _largest(sizes)
    else:
        raise HyperparamError(f"norm: ord = {ord!r} is unknown; choose None, 1, 2 or inf")
    return size * size if squared else size


def _total(
    function: Callable[..., jax.Array], arrays: Sequence[jax.Array], names: Sequence[Names]
) -> jax.Array:
    """The sum of one number for each array, over the devices that divide it."""
    parts = map_arrays(function, arrays)
    return reduce_over(parts, names, sum_promoted) if len(parts) else sum_promoted(parts)


def _largest(sizes: Sequence[jax.Array]) -> jax.Array:
    return _reduce_scalars(jnp.maximum, sizes, 0.0)


def _sum_of_sizes(array: jax.Array) -> jax.Array:
    return jnp.sum(jnp.abs(array.astype(compute_dtype(array.dtype))))


def _largest_size(array: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(array.astype(compute_dtype(array.dtype))), initial=0)


def _reduce_scalars(
    function: Callable[..., jax.Array], scalars: Sequence[jax.Array], empty: float
) -> jax.Array:
    """One scalar of many, in the dtype that holds them all; `empty` where there are none."""
    if not scalars:
        return jnp.full((), empty)
    dtype = widest(*(scalar.dtype for scalar in scalars))
    return functools.reduce(function, [scalar.astype(dtype) for scalar in scalars])


def sum(tree: Any, associative_reduction: bool = False) -> jax.Array:
    """The sum of all entries of a pytree.

    Low precision is summed in float32; the result has the dtype of the leaves.

    Args:
      tree: the tree; the sum of an empty one is 0.
      associative_reduction: add the sums of leaves in pairs instead of one after another.

    Returns: a scalar.

    >>> import jax.numpy as jnp
    >>> from gradtx.tree.reductions import sum
    >>> sum({"a": jnp.ones(3), "b": jnp.arange(3)}).item()
    6.0
    """
    arrays = _arrays(tree)
    parts = map_arrays(_sum_wide, arrays)
    if not parts:
        return jnp.zeros(())
    each = zip(arrays, parts, strict=True)
    dtype = widest(*(x.dtype if is_inexact_dtype(x.dtype) else one.dtype for x, one in each))
    return (_sum_pairs(parts) if associative_reduction else sum_promoted(parts)).astype(dtype)


def _sum_wide(array: jax.Array) -> jax.Array:
    return jnp.sum(array.astype(wide_dtype(array.dtype)))


def _sum_pairs(scalars: Sequence[jax.Array]) -> jax.Array:
    dtype = widest(*(scalar.dtype for scalar in scalars))
    level = [scalar.astype(dtype) for scalar in scalars]
    while len(level) > 1:
        pairs = [one + other for one, other in zip(level[::2], level[1::2], strict=False)]
        level = pairs + level[len(level) - len(level) % 2 :]
    return level[0]


def _vdot(x: jax.Array, y: jax.Array) -> jax.Array:
    wide = wide_dtype(joint_dtype((x, y)))
    left, right = x.astype(wide), y.astype(wide)
    if x.shape != y.shape:
        left, right = left.ravel(), right.ravel()
    # Not `jnp.vdot`: to flatten an array that is cut over a mesh would gather it.
    return jnp.sum(left.conj() * right)


def vdot(tree_x: Any, tree_y: Any) -> jax.Array:
    """The inner product of two pytrees as vectors: Σ x̄_i y_i.

    x̄ is the complex conjugate. Low precision is summed in float32; the result has the dtype of the
    leaves. A product of integers is exact, within int32.

    Args:
      tree_x: the tree x.
      tree_y: the tree y, of the same structure, and with as many entries in each leaf.

    Returns: a scalar; 0 for empty trees.

    Raises:
      StructureError: trees of different structures, or leaves of different sizes.

    >>> import jax.numpy as jnp
    >>> from gradtx.tree.reductions import vdot
    >>> x, y = {"a": jnp.array([1, 2])}, {"a": jnp.array([-1, 3])}
    >>> vdot(x, y).item()
    5
    """
    rows, _ = match_rows("vdot", {"tree_x": tree_x, "tree_y": tree_y})
    for place, (x, y) in enumerate(rows):
        if (x is None) != (y is None) or np.size(x) != np.size(y):
            shapes = [None if one is None else np.shape(one) for one in (x, y)]
            raise StructureError(
                f"vdot: the leaves differ in size{at(tree_paths(tree_x)[place])}: tree_x has shape "
                f"{shapes[0]}, tree_y has shape {shapes[1]}"
            )
    pairs = [(as_array(x), as_array(y)) for x, y in rows if x is not None]
    if not pairs:
        return jnp.zeros(())
    total = sum_promoted(map_arrays(_vdot, *zip(*pairs, strict=True)))
    return total.astype(widest(*(joint_dtype(pair) for pair in pairs)))


def max(tree: Any) -> jax.Array:
    """The largest entry of a pytree; −inf if there are none.

    Args:
      tree: the tree.

    Returns: a scalar, in the dtype that holds all leaves; nan where one is nan.

    >>> import jax.numpy as jnp
    >>> from gradtx.tree.reductions import max
    >>> max({"a": jnp.array([1.0, 4.0]), "b": jnp.array([3])}).item()
    4.0
    """
    arrays = [array for array in _arrays(tree) if array.size]
    return _reduce_scalars(jnp.maximum, map_arrays(jnp.max, arrays), -math.inf)


def min(tree: Any) -> jax.Array:
    """The smallest entry of a pytree; inf if there are none.

    Args:
      tree: the tree.

    Returns: a scalar, in the dtype that holds all leaves; nan where one is nan.

    >>> import jax.numpy as jnp
    >>> from gradtx.tree.reductions import min
    >>> min({"a": jnp.array([1.0, 4.0]), "b": jnp.array([3])}).item()
    1.0
    """
    arrays = [array for array in _arrays(tree) if array.size]
    return _reduce_scalars(jnp.minimum, map_arrays(jnp.min, arrays), math.inf)


def size(tree: Any) -> int:
    """The number of entries of a pytree: the parameters of a model.

    Args:
      tree: arrays, numbers, or shapes (`jax.ShapeDtypeStruct`).

    Returns: a Python integer, which does not overflow.

    >>> import jax.numpy as jnp
    >>> from gradtx.tree.reductions import size
    >>> size({"w": jnp.ones((3, 4)), "b": jnp.ones(4), "none": None})
    16
    """
    return builtins.sum(math.prod(np.shape(leaf)) for leaf in jax.tree.leaves(tree))


@functools.lru_cache(maxsize=2)
def _closeness(equal_nan: bool) -> Callable[..., jax.Array]:
    return functools.partial(_is_close, equal_nan)


def _is_close(
    equal_nan: bool, a: jax.Array, b: jax.Array, rtol: jax.Array, atol: jax.Array
) -> jax.Array:
    with mixed_promotion():
        return jnp.allclose(a, b, rtol, atol, equal_nan)


def allclose(
    a: Any, b: Any, rtol: ArrayLike = 1e-5, atol: ArrayLike = 1e-8, equal_nan: bool = False
) -> jax.Array:
    """Whether two pytrees are equal within tolerances: |a − b| ≤ atol + rtol |b|, everywhere.

    Args:
      a: a tree.
      b: a tree of the same structure; tolerances are relative to it.
      rtol: relative tolerance.
      atol: absolute tolerance.
      equal_nan: whether nan equals nan.

    Returns: a bool as an array; True for empty trees.

    Raises:
      StructureError: trees of different structures, or shapes that do not broadcast.

    >>> import jax.numpy as jnp
    >>> from gradtx.tree.reductions import allclose
    >>> allclose({"w": jnp.ones(2)}, {"w": jnp.array([1.0, 1.000001])}).item()
    True
    """
    answers = map_rows("allclose", _closeness(equal_nan), {"a": a, "b": b}, (rtol, atol))
    return _all(jax.tree.leaves(answers))


@jax.jit
def _all(answers: Sequence[jax.Array]) -> jax.Array:
    return functools.reduce(operator.and_, answers, jnp.ones((), bool))
