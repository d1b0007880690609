"""`flatten`: all arrays of one dtype as one vector."""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.compose.wrapwise import Member, wrapwise
from gradtx.definition.types import PyTree
from gradtx.tree.casts import as_array, is_inexact
from gradtx.tree.paths import Treedef
from gradtx.tree.paths import flatten as flatten_tree
from gradtx.tree.placement import cut_evenly, run_auto, run_auto_if


class Layout(NamedTuple):
    """The leaves of a tree, and the indices of the leaves of each vector."""

    treedef: Treedef
    leaves: Sequence[Any]
    groups: dict[str, list[int]]


def _layout(tree: PyTree) -> Layout:
    leaves, treedef = flatten_tree(tree)
    groups: dict[str, list[int]] = {}
    for index, leaf in enumerate(leaves):
        if is_inexact(leaf):
            groups.setdefault(jnp.result_type(leaf).name, []).append(index)
    return Layout(treedef, leaves, groups)


def _ravel(layout: Layout, tree: PyTree) -> Any:
    """A tree of this structure as vectors; anything else unchanged."""
    values, treedef = flatten_tree(tree)
    if treedef != layout.treedef:
        return tree
    groups = layout.groups.items()
    return {name: _join([values[index] for index in places]) for name, places in groups}


def _join(arrays: Sequence[Any]) -> Any:
    """Join arrays into one vector, or shapes into one shape."""
    # `init` may receive shapes only.
    if any(isinstance(array, jax.ShapeDtypeStruct) for array in arrays):
        return jax.ShapeDtypeStruct((sum(array.size for array in arrays),), arrays[0].dtype)
    arrays = list(map(as_array, arrays))
    mesh = jax.typeof(arrays[0]).sharding.mesh
    if not mesh.explicit_axes:
        return _concatenate(arrays)
    size = sum(array.size for array in arrays)
    return run_auto(_concatenate, mesh, cut_evenly((size,), arrays[0]), arrays)


def _concatenate(arrays: Sequence[jax.Array]) -> jax.Array:
    return jnp.concatenate([array.reshape(-1) for array in arrays])


def _part(vector: jax.Array, *, start: int, shape: tuple[int, ...]) -> jax.Array:
    return vector[start : start + math.prod(shape)].reshape(shape)


def _unravel(layout: Layout, vectors: dict[str, jax.Array]) -> Any:
    leaves = list(layout.leaves)
    for name, places in layout.groups.items():
        start = 0
        for index in places:
            like = as_array(leaves[index])
            part = functools.partial(_part, start=start, shape=like.shape)
            leaves[index], start = run_auto_if(part, like, vectors[name]), start + like.size
    return jax.tree.unflatten(layout.treedef, leaves)


def _ravel_all(params):
    return _ravel(_layout(params), params)


def _flatten(updates, own, params, step, *, inner: Member, extra):
    layout = _layout(updates)
    vectors = None if params is None else _ravel(layout, params)
    extra = {name: _ravel(layout, value) for name, value in extra.items()}
    new, inner = inner.update(_ravel(layout, updates), vectors, extra=extra)
    return _unravel(layout, new), inner, own


def _evaluate(params, own, *, inner: Member):
    layout = _layout(params)
    return _unravel(layout, inner.evaluate(_ravel(layout, params)))


@definition
def flatten(inner: GradientTransformation) -> GradientTransformation:
    """Flatten all arrays of one dtype into one vector for `inner`.

    When: `inner` is to treat all arrays together, for example with one block norm of the whole; or
    there are thousands of tiny arrays. When not: large arrays, because every step copies them into
    the vector and out of it; or arrays sharded over devices, because they are gathered.

    Each vector has the name of its dtype, `float32`. Masks inside `inner` match this path.

    Args:
      inner: the transformation.

    State: that of `inner`, in vectors.

    >>> import gradtx, jax.numpy as jnp
    >>> params = {"a": jnp.array([3.0]), "b": jnp.array([[4.0]])}
    >>> chain = gradtx.chain(gradtx.clip_by_block_rms(1.0), gradtx.trace(0.9))
    >>> tx = gradtx.flatten(chain)  # the root mean square of both
    >>> updates, state = tx.update(params, tx.init(params))
    >>> [round(u.item(), 4) for u in updates.values()], state.slots["trace"].trace["float32"].shape
    ([0.8485, 1.1314], (2,))
    """
    return wrapwise(inner, None, _flatten, member_params=_ravel_all, evaluate=_evaluate)
