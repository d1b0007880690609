"""`flatten`: all arrays as one vector."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.compose.treewise import treewise
from gradtx.engine.rules import Child
from gradtx.tree.casts import as_array, is_inexact
from gradtx.tree.paths import Treedef
from gradtx.tree.paths import flatten as flatten_tree


class Layout(NamedTuple):
    """A tree as a list: what its leaves are, and which of them go into which vector."""

    treedef: Treedef
    leaves: Sequence[Any]
    groups: dict[str, list[int]]


def _layout(tree: Any) -> Layout:
    leaves, treedef = flatten_tree(tree)
    groups: dict[str, list[int]] = {}
    for index, leaf in enumerate(leaves):
        if is_inexact(leaf):
            groups.setdefault(jnp.result_type(leaf).name, []).append(index)
    return Layout(treedef, leaves, groups)


def _ravel(layout: Layout, tree: Any) -> Any:
    """A tree of this structure as vectors; anything else as it is."""
    values, treedef = flatten_tree(tree)
    return (
        {name: _join([values[index] for index in places]) for name, places in layout.groups.items()}
        if treedef == layout.treedef
        else tree
    )


def _join(arrays: Sequence[Any]) -> Any:
    """One vector; one of shapes only gives its shape."""
    if any(isinstance(array, jax.ShapeDtypeStruct) for array in arrays):
        return jax.ShapeDtypeStruct((sum(array.size for array in arrays),), arrays[0].dtype)
    return jnp.concatenate([as_array(array).reshape(-1) for array in arrays])


def _unravel(layout: Layout, vectors: dict[str, jax.Array]) -> Any:
    leaves = list(layout.leaves)
    for name, places in layout.groups.items():
        start = 0
        for index in places:
            size, shape = jnp.size(leaves[index]), jnp.shape(leaves[index])
            leaves[index], start = vectors[name][start : start + size].reshape(shape), start + size
    return jax.tree.unflatten(layout.treedef, leaves)


def _init(params: Any, *, inner: GradientTransformation) -> dict[str, Any]:
    return inner.init_slots(_ravel(_layout(params), params))


def _update(
    updates: Any,
    slots: Any,
    params: Any,
    step: Any,
    *,
    inner: GradientTransformation,
    extra: Any,
    gate: Any,
) -> Any:
    layout = _layout(updates)
    attach = None if params is None else _ravel(layout, params)
    told = {name: _ravel(layout, value) for name, value in extra.items()}
    vectors, slots = inner.update_slots(_ravel(layout, updates), slots, attach, step, told, gate)
    return _unravel(layout, vectors), slots


def _inside(slots: Any, count: Any, *, inner: GradientTransformation) -> list[Child]:
    return [Child(inner, slots, count)]


def _evaluate(params: Any, slots: Any, count: Any, *, inner: GradientTransformation) -> Any:
    layout = _layout(params)
    return _unravel(layout, inner.evaluate_slots(slots, _ravel(layout, params), count))


@definition
def flatten(inner: GradientTransformation) -> GradientTransformation:
    """`inner` on all arrays as one vector, one for each dtype.

    When: what `inner` does per array is meant for all together, such as one block norm of the
    whole; or there are thousands of tiny arrays. When not: large arrays, which are copied into the
    vector and out of it at every step, and arrays that are sharded over devices, which are
    gathered.

    The vectors are called like their dtypes, `float32`; that is the path that masks inside `inner`
    see.

    Args:
      inner: the transformation.

    State: that of `inner`, in vectors.

    >>> import gradtx, jax.numpy as jnp
    >>> params = {"a": jnp.array([3.0]), "b": jnp.array([[4.0]])}
    >>> tx = gradtx.flatten(gradtx.chain(gradtx.clip_by_block_rms(1.0), gradtx.trace(0.9)))  # the root mean square of both
    >>> updates, state = tx.update(params, tx.init(params))
    >>> [round(u.item(), 4) for u in updates.values()], state.slots["trace"].trace["float32"].shape
    ([0.8485, 1.1314], (2,))
    """
    evaluate = _evaluate if inner.has_evaluation else None
    return treewise(
        _init, _update, inner=inner, children=_inside, evaluate=evaluate, own_clock=inner.own_clock
    )
