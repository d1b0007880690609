"""Per-example gradient clipping: functions on gradients with a leading batch axis."""

import math

import jax
import jax.numpy as jnp

from gradtx.definition.errors import StructureError
from gradtx.definition.show import show_array
from gradtx.definition.types import ArrayLike, PyTree
from gradtx.transforms.clipping import shrink
from gradtx.tree.arithmetic import abs_sq, sqrt, sum_promoted
from gradtx.tree.casts import as_array, compute_dtype, is_inexact
from gradtx.tree.paths import Treedef, path_text


def _flatten_examples(name: str, grads: PyTree) -> tuple[list[jax.Array], Treedef]:
    """The arrays of a tree, all with one batch axis in front."""
    leaves, treedef = jax.tree_util.tree_flatten_with_path(grads)
    arrays = [as_array(leaf) for _, leaf in leaves]
    for (path, _), array in zip(leaves, arrays, strict=True):
        if array.ndim == 0 or array.shape[0] != arrays[0].shape[0]:
            raise StructureError(
                f"{name} needs gradients per example, with one batch axis in front of every array "
                f"(jax.vmap(jax.grad(loss), ...)): the first array is {show_array(arrays[0])}, "
                f"and {path_text(path)!r} is {show_array(array)}"
            )
    return arrays, treedef


def example_squares(array: jax.Array) -> jax.Array:
    """The squared norm of every example, summed in float32 at least."""
    squares = abs_sq(array.astype(compute_dtype(array.dtype)))
    return jnp.sum(squares, axis=tuple(range(1, array.ndim)))


def _weighted_sum(factors: jax.Array, array: jax.Array) -> jax.Array:
    """The sum of the examples, each times its factor, in float32 at least; of integers a float."""
    factors = factors.reshape(-1, *(1 for _ in array.shape[1:]))
    total = jnp.sum(factors * array.astype(compute_dtype(array.dtype)), axis=0)
    return total.astype(array.dtype) if is_inexact(array) else total


def per_example_global_norm_clip(
    grads: PyTree, l2_norm_clip: ArrayLike
) -> tuple[PyTree, jax.Array]:
    """Per-example gradient clipping by global norm, and the sum over the batch.

    It is Σ_b g_b min(1, c / ‖g_b‖), with ‖g_b‖ over all arrays.

    When: differentially private training, where no example may move the sum by more than c. When
    not: to bound the gradient of the batch; take `clip_by_global_norm`, which needs no gradients
    per example.

    Args:
      grads: gradients per example, every array with the batch axis in front, as
        from `jax.vmap(jax.grad(loss), ...)`.
      l2_norm_clip: c ≥ 0, in units of the gradient.

    Returns:
      The sum, without the batch axis, and the number of examples with a norm over c.

    Raises:
      StructureError: arrays that do not have one batch axis in common.

    >>> import gradtx, jax.numpy as jnp
    >>> grads = {"w": jnp.array([[3.0, 4.0], [0.0, 1.0]])}
    >>> total, clipped = gradtx.per_example_global_norm_clip(grads, 2.5)  # norms 5 and 1
    >>> total["w"].tolist(), int(clipped)
    ([1.5, 3.0], 1)

    Abadi et al. 2016, arXiv 1607.00133, Algorithm 1.
    """
    arrays, treedef = _flatten_examples("per_example_global_norm_clip", grads)
    norms = sqrt(sum_promoted([example_squares(array) for array in arrays]))
    limit = jnp.asarray(l2_norm_clip, norms.dtype)
    factors = shrink(norms, limit)
    total = jax.tree.unflatten(treedef, [_weighted_sum(factors, array) for array in arrays])
    return total, jnp.sum(~(norms <= limit))  # not `>`: a norm of nan is over c


def per_example_layer_norm_clip(
    grads: PyTree, global_l2_norm_clip: ArrayLike, uniform: bool = True
) -> tuple[PyTree, PyTree]:
    """Per-example gradient clipping layer by layer, and the sum over the batch.

    It is Σ_b g_bl min(1, c_l / ‖g_bl‖) for array l. The squares of the shares sum to c²: c_l =
    c √(1/L) for each of L arrays, or c √(n_l/n) in proportion to their sizes. So no example's
    gradient has a norm over c, as with `per_example_global_norm_clip`.

    When: arrays whose gradients differ in scale, in differentially private training. When not: the
    direction of an example's gradient must not change.

    Args:
      grads: gradients per example, every array with the batch axis in front.
      global_l2_norm_clip: c ≥ 0, in units of the gradient.
      uniform: the same share for every array; False: in proportion to √n_l.

    Returns:
      The sum, without the batch axis, and for every array the number of examples over its
      share.

    Raises:
      StructureError: arrays that do not have one batch axis in common.

    >>> import gradtx, jax.numpy as jnp
    >>> grads = {"a": jnp.array([[4.0], [1.0]]), "b": jnp.array([[1.0], [-1.0]])}
    >>> total, clipped = gradtx.per_example_layer_norm_clip(grads, 8.0**0.5)  # 2 for each array
    >>> [round(x.item(), 5) for x in total.values()]
    [3.0, 0.0]
    >>> {name: int(count) for name, count in clipped.items()}
    {'a': 1, 'b': 0}

    McMahan et al. 2018, arXiv 1710.06963, per-layer clipping.
    """
    arrays, treedef = _flatten_examples("per_example_layer_norm_clip", grads)
    sizes = [1 if uniform else array[0].size for array in arrays]
    norms = [sqrt(example_squares(array)) for array in arrays]
    limits = [
        jnp.asarray(global_l2_norm_clip, norm.dtype) * math.sqrt(size / sum(sizes))
        for norm, size in zip(norms, sizes, strict=True)
    ]
    sums = [
        _weighted_sum(shrink(norm, limit), array)
        for norm, limit, array in zip(norms, limits, arrays, strict=True)
    ]
    counts = [jnp.sum(~(norm <= limit)) for norm, limit in zip(norms, limits, strict=True)]
    return jax.tree.unflatten(treedef, sums), jax.tree.unflatten(treedef, counts)
