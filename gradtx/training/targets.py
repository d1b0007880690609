"""Target networks and averages: parameters that follow others."""

import functools

import jax
import jax.numpy as jnp

from gradtx.definition.errors import StructureError
from gradtx.definition.types import Array, ArrayLike, Params
from gradtx.tree.casts import is_inexact
from gradtx.tree.maps import map_leaves
from gradtx.tree.paths import flatten, is_none, leaf_paths, match_leaves


def incremental_update(new_tensors: Params, old_tensors: Params, step_size: ArrayLike) -> Params:
    """Soft update of a target network: (1 − s) old + s new.

    Every array keeps the dtype of the old one. The sum is computed in float32 at least and rounded
    once. Leaves that are not float arrays come from the new tree.

    When: target networks, and averages of parameters for evaluation. When not: the old tensors are
    in bfloat16 and s is below 1/256, so that the step rounds to 0; store them in float32.

    Args:
      new_tensors: pytree, for example the parameters in training.
      old_tensors: pytree of the same structure, for example the target network.
      step_size: s in [0, 1]; 1e-3 to 0.05.

    Raises:
      StructureError: the structures differ.

    >>> import gradtx, jax.numpy as jnp
    >>> gradtx.incremental_update({"w": jnp.array([4.0])}, {"w": jnp.array([0.0])}, 0.25)
    {'w': Array([1.], dtype=float32)}

    Lillicrap et al. 2016, arXiv 1509.02971, Algorithm 1.
    """
    _check_alike("incremental_update", new_tensors, old_tensors)
    moved = map_leaves(_mix, old_tensors, new_tensors, step_size=step_size)
    return jax.tree.map(
        lambda old, new: old if is_inexact(old) else new, moved, new_tensors, is_leaf=is_none
    )


def _mix(old: Array, new: Array, step_size: Array) -> Array:
    return step_size * new + (1 - step_size) * old


def periodic_update(
    new_tensors: Params, old_tensors: Params, steps: ArrayLike, update_period: int
) -> Params:
    """Periodic update of a target network: the new tensors at every `update_period`-th step.

    At the other steps it returns the old tensors. Every array keeps the dtype of the old one.

    Args:
      new_tensors: pytree, for example the parameters in training.
      old_tensors: pytree of the same structure, for example the target network.
      steps: the count of steps; 0 is a step of the new tensors.
      update_period: steps in a period, ≥ 1; 100 to 10 000.

    Raises:
      StructureError: the structures differ.

    >>> import gradtx, jax.numpy as jnp
    >>> new, old = {"w": jnp.array([4.0])}, {"w": jnp.array([0.0])}
    >>> [gradtx.periodic_update(new, old, steps, update_period=3)["w"].item() for steps in range(5)]
    [4.0, 0.0, 0.0, 4.0, 0.0]

    Mnih et al. 2015, Nature 518, Algorithm 1.
    """
    _check_alike("periodic_update", new_tensors, old_tensors)
    due = jnp.asarray(steps) % update_period == 0
    updated = map_leaves(_choose, old_tensors, new_tensors, due=due)
    return jax.tree.map(
        lambda old, new: old if old is None or is_inexact(old) else jnp.where(due, new, old),
        updated,
        new_tensors,
        is_leaf=is_none,
    )


def _choose(old: Array, new: Array, due: Array) -> Array:
    return jnp.where(due, new, old)


def _tensors_differ(name: str, difference: str) -> StructureError:
    return StructureError(f"{name}: the new and the old tensors differ in structure: {difference}")


def _check_alike(name: str, new_tensors: Params, old_tensors: Params) -> None:
    old, treedef = flatten(old_tensors)
    error = functools.partial(_tensors_differ, name)
    paths = functools.partial(leaf_paths, treedef, old_tensors)
    new = match_leaves(treedef, paths, new_tensors, "the old", "the new", error)
    for path, one, before in zip(paths(), new, old, strict=True):
        shape = None if one is None else jnp.shape(one)
        if is_inexact(before) and shape != jnp.shape(before):
            raise StructureError(
                f"{name}: {path!r} has shape {shape} in the new tensors, {jnp.shape(before)} in "
                "the old"
            )
