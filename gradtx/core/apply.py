"""Adding updates to parameters."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.errors import StructureError
from gradtx.core.types import Params, Updates
from gradtx.tree.casts import as_array, compute_dtype, is_inexact
from gradtx.tree.kernels import map_arrays
from gradtx.tree.paths import flatten, leaf_paths, told_apart


def apply_updates(params: Params, updates: Updates) -> Params:
    """The new parameters, `params + updates`, each in the dtype of the parameter.

    The sum is taken in float32 at least and rounded once. A parameter whose update is None, and a
    parameter that is no float array, is returned as it is.

    Args:
      params: pytree of parameters.
      updates: pytree of the same structure.

    Raises:
      StructureError: the structures or the shapes differ.

    >>> import gradtx, jax.numpy as jnp
    >>> gradtx.apply_updates({"w": jnp.array([1.0]), "step": jnp.array(3)}, {"w": jnp.array([0.5]), "step": None})
    {'step': Array(3, dtype=int32, weak_type=True), 'w': Array([1.5], dtype=float32)}
    """
    values, treedef = flatten(params)
    try:
        changes = treedef.flatten_up_to(updates)
    except (ValueError, TypeError, KeyError):
        difference = told_apart(leaf_paths(treedef), leaf_paths(flatten(updates)[1]), "the parameters", "the updates")
        raise StructureError(f"the parameters and the updates differ in structure: {difference}") from None
    pairs = {
        index: _pair(treedef, index, value, change)
        for index, (value, change) in enumerate(zip(values, changes, strict=True))
        if is_inexact(value) and change is not None
    }
    for index, value in zip(pairs, map_arrays(_add, *zip(*pairs.values(), strict=True)) if pairs else [], strict=True):
        values[index] = value
    return jax.tree.unflatten(treedef, values)


def _pair(treedef: Any, index: int, param: Any, update: Any) -> tuple[jax.Array, jax.Array]:
    if jnp.shape(param) != jnp.shape(update):
        path = leaf_paths(treedef)[index]
        raise StructureError(f"update at {path!r} has shape {jnp.shape(update)}, its parameter {jnp.shape(param)}")
    return as_array(param), as_array(update)


def _add(param: jax.Array, update: jax.Array) -> jax.Array:
    dtype = compute_dtype(param.dtype)
    return (param.astype(dtype) + update.astype(dtype)).astype(param.dtype)
