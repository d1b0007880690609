"""`apply_updates` and `update_params`: new parameters from updates or gradients."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.core import Tracer

from gradtx.compose.states import is_update_pair
from gradtx.compose.transformation import TransformationLike, as_transformation
from gradtx.definition.errors import GradtxError, StructureError
from gradtx.definition.types import ArrayLike, Params, Slots, Updates
from gradtx.engine.gradients import fit_gradient
from gradtx.engine.leaf_rule import LeafRule
from gradtx.engine.program import BoundRule
from gradtx.tree.casts import as_array, compute_dtype, is_inexact
from gradtx.tree.kernels import map_arrays
from gradtx.tree.keys import path_hash
from gradtx.tree.paths import flatten, leaf_paths, match_leaves
from gradtx.tree.placement import run_auto_if
from gradtx.tree.rounding import OF_PARAMS, Noise, noise, rounded_to

Paths = Callable[[], Sequence[str]]
Rounding = Literal["nearest", "stochastic"]


def apply_updates(
    params: Params, updates: Updates, rounding: Rounding = "nearest", step: ArrayLike | None = None
) -> Params:
    """Add updates to parameters, each sum in the dtype of the parameter.

    The sum is computed in float32 at least and rounded once. If the update is None, or the
    parameter is not a float array, the parameter is returned unchanged. A scalar update is added to
    every entry of its parameter.

    A 16-bit parameter does not change where an update is less than half of its last bit, 2⁻⁹ |θ| in
    bfloat16. Stochastic rounding is unbiased, so that training needs no float32 copy of the
    parameters.

    Args:
      params: pytree of parameters.
      updates: pytree of the same structure; its arrays have the shapes of the parameters, or ().
      rounding: "nearest", or "stochastic" for parameters in bfloat16 and float16; others are always
        rounded to the nearest.
      step: a number that differs from step to step, `state.count`. The random bits are a hash of
        it, of the path, and of the position, the same on any number of devices.

    Raises:
      StructureError: the structures or the shapes differ.
      GradtxError: an unknown rounding; stochastic rounding without a step.

    >>> import gradtx, jax.numpy as jnp
    >>> params = {"w": jnp.array([1.0]), "step": jnp.array(3)}
    >>> gradtx.apply_updates(params, {"w": jnp.array([0.5]), "step": None})
    {'step': Array(3, dtype=int32, weak_type=True), 'w': Array([1.5], dtype=float32)}
    >>> ones, small = jnp.ones(1000, jnp.bfloat16), jnp.full(1000, 1e-3, jnp.bfloat16)
    >>> for rounding in ("nearest", "stochastic"):  # the next bfloat16 is 1.0078
    ...     new = gradtx.apply_updates(ones, small, rounding, step=1)
    ...     print(f"{float(new.astype(jnp.float32).mean()):.4f}")
    1.0000
    1.0010

    See also: `update_params`, which updates and applies in one kernel; `master_weights`.
    """
    _check(rounding, "apply_updates")
    if rounding == "stochastic" and step is None:
        raise GradtxError(
            'apply_updates: rounding="stochastic" needs step=, which differs from step to step: '
            "pass step=state.count"
        )
    values, treedef = flatten(params)
    paths = functools.partial(leaf_paths, treedef, params)
    if is_update_pair(updates):
        raise StructureError(
            "apply_updates: the updates are the pair that tx.update returned: write "
            "updates, state = tx.update(grads, state, params)"
        )
    changes = match_leaves(
        treedef, paths, updates, "the parameters", "the updates", _updates_differ
    )
    pairs = {
        index: _pair(paths, index, value, change)
        for index, (value, change) in enumerate(zip(values, changes, strict=True))
        if is_inexact(value) and change is not None
    }
    for index, value in zip(
        pairs, _sums(pairs, paths, step if rounding == "stochastic" else None), strict=True
    ):
        values[index] = value
    return jax.tree.unflatten(treedef, values)


def _updates_differ(difference: str) -> StructureError:
    return StructureError(f"the parameters and the updates differ in structure: {difference}")


def _check(rounding: str, where: str) -> None:
    if rounding not in ("nearest", "stochastic"):
        raise GradtxError(f"{where}: rounding = {rounding!r} is neither 'nearest' nor 'stochastic'")


def _sums(pairs: dict[int, Any], paths: Paths, step: Any) -> list[jax.Array]:
    """The new parameters of all pairs (parameter, update)."""
    if not pairs:
        return []
    if step is None and any(isinstance(param, Tracer) for param, _ in pairs.values()):
        # Within a trace one addition is cheaper than the call of a kernel that holds it.
        return [_add(param, update) for param, update in pairs.values()]
    columns = list(zip(*pairs.values(), strict=True))
    if step is None:
        return map_arrays(_add, *columns)
    texts = paths()
    seeds = [noise(step, path_hash(texts[index])).seed for index in pairs]
    return map_arrays(_add_stochastically, *columns, seeds)


def _pair(paths: Paths, index: int, param: Any, update: Any) -> tuple[jax.Array, jax.Array]:
    if jnp.shape(update) not in ((), jnp.shape(param)):
        path = paths()[index]
        raise StructureError(
            f"update at {path!r} has shape {jnp.shape(update)}, its parameter {jnp.shape(param)}: "
            f"pass the updates of these parameters"
        )
    if not is_inexact(update) or jnp.iscomplexobj(update) != jnp.iscomplexobj(param):
        update = fit_gradient(paths()[index], update, param, "update", same_shape=False)
    if jnp.shape(update) != jnp.shape(param):  # one number for every entry
        update = jnp.broadcast_to(as_array(update), jnp.shape(param))
    return as_array(param), as_array(update)


def _sum(param: jax.Array, update: jax.Array) -> jax.Array:
    dtype = compute_dtype(param.dtype)
    return param.astype(dtype) + update.astype(dtype)


def _add(param: jax.Array, update: jax.Array) -> jax.Array:
    if param.dtype == update.dtype == compute_dtype(param.dtype):
        return jax.lax.add(param, update)  # jnp.add costs a trace of its own
    return _sum(param, update).astype(param.dtype)


def _add_stochastically(param: jax.Array, update: jax.Array, seed: jax.Array) -> jax.Array:
    return run_auto_if(_round_stochastically, param, _sum(param, update), param, seed)


def _round_stochastically(total: jax.Array, param: jax.Array, seed: jax.Array) -> jax.Array:
    return rounded_to(total, param.dtype, Noise(seed).sixteen(param.shape, OF_PARAMS))


def _apply(
    grad: jax.Array, slots: Slots, param: jax.Array, step: jax.Array
) -> tuple[jax.Array, Any]:
    return param + grad, slots


def _apply_stochastically(
    grad: jax.Array, slots: Slots, param: jax.Array, step: jax.Array, *, noise: Noise
) -> tuple[jax.Array, Any]:
    # The lifter knows the dtype of the parameter, and rounds the sum with `noise`.
    return param + grad, slots


APPLY = {
    how: BoundRule(
        (), LeafRule(f"apply_updates_{how}", function, needs_params=True, returns_params=True), {}
    )
    for how, function in {"nearest": _apply, "stochastic": _apply_stochastically}.items()
}
"""The rule that adds updates to parameters, by rounding; it runs after those of a definition."""


def update_params(
    tx: TransformationLike,
    grads: Updates,
    state: Any,
    params: Params,
    rounding: Rounding = "nearest",
    **extra: Any,
) -> tuple[Params, Any]:
    """Update the parameters from gradients, in one kernel per array.

    The results equal those of `update` and `apply_updates`. Under `jit` XLA fuses these two into
    one kernel by itself, except where `stored` has a kernel of its own; `update_params` then saves
    an array of updates.

    When: a training loop that does not use the updates; `make_step` calls it. When not: the loop
    reads or changes the updates.

    Args:
      tx: the transformation.
      grads: gradients, a pytree like the parameters.
      state: its state.
      params: the parameters; donate them and the state to `jit`, so that nothing is copied.
      rounding: the rounding of parameters in bfloat16 and float16, "nearest" or "stochastic"; see
        `apply_updates`.
      **extra: `value=`, `grad=`, `value_fn=`, ..., as for `update`.

    Returns:
      The new parameters and the next state.

    Raises:
      GradtxError: an unknown rounding; and all errors of `update`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx, params = gradtx.sgd(0.5), {"w": jnp.array([3.0])}
    >>> params, state = gradtx.update_params(tx, {"w": jnp.array([2.0])}, tx.init(params), params)
    >>> params["w"].tolist(), int(state.count)
    ([2.0], 1)

    See also: `make_step`, `apply_updates`.
    """
    _check(rounding, "update_params")
    tx = as_transformation(tx)
    if tx.is_plain:
        if rounding == "stochastic":
            raise GradtxError(
                f"update_params: {tx.name} has no count of steps; call apply_updates with step= "
                "instead"
            )
        updates, state = tx.update(grads, state, params, **extra)
        return apply_updates(params, updates), state
    new, state = tx.followed_by(APPLY[rounding]).update(grads, state, params, **extra)
    values, treedef = flatten(params)
    pairs = zip(values, treedef.flatten_up_to(new), strict=True)
    # The update of an integer is not a parameter, and None stands for no update.
    values = [one if is_inexact(old) and one is not None else old for old, one in pairs]
    return jax.tree.unflatten(treedef, values), state
