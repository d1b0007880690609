"""Optax's spelling of gradient accumulation: `MultiSteps`, and its functions that skip steps."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.compose.transformation import (
    GradientTransformation,
    TransformationLike,
    as_transformation,
)
from gradtx.definition.types import Array, DTypeLike, Numeric, Params, State, Updates
from gradtx.engine.walk import plain_state
from gradtx.tree.arithmetic import norm_of_tree
from gradtx.tree.casts import as_array, is_inexact
from gradtx.tree.kernels import map_arrays
from gradtx.wrappers.accumulate import accumulate


class MultiSteps:
    """Gradient accumulation, Optax's spelling of `accumulate(opt, every_k_schedule)`.

    Its `init` and `update` are those of `gradient_transformation()`; the state is that of
    `accumulate`, where `state.slots["accumulate"].micro_step` is Optax's `mini_step`, and
    `state.count` its `gradient_step`.

    Args:
      opt: the transformation.
      every_k_schedule: micro-steps per update, or a function of the number of earlier updates.
      use_grad_mean: whether `opt` receives the mean of the gradients or their sum.
      should_skip_update_fn: `(updates, count, params) -> (skip, anything)`; `skip_not_finite`, or
        `skip_large_updates` with its limit.
      accumulator_dtype: dtype of the sum; None: the gradient's, float32 at least.

    >>> import gradtx, jax.numpy as jnp
    >>> steps = MultiSteps(gradtx.sgd(1.0), every_k_schedule=2)
    >>> state, outputs = steps.init(jnp.zeros(())), []
    >>> for g in (1.0, 3.0):
    ...     u, state = steps.update(jnp.array(g), state)
    ...     outputs.append((u.item(), bool(steps.has_updated(state))))
    >>> outputs
    [(-0.0, False), (-2.0, True)]
    """

    def __init__(
        self,
        opt: TransformationLike,
        every_k_schedule: Numeric,
        use_grad_mean: bool = True,
        should_skip_update_fn: Callable[..., Any] | None = None,
        accumulator_dtype: DTypeLike | None = jnp.float32,
    ):
        self._tx = accumulate(
            opt,
            every_k_schedule,
            use_grad_mean=use_grad_mean,
            should_skip_update_fn=should_skip_update_fn,
            accumulator_dtype=accumulator_dtype,
        )

    @property
    def inner_opt(self) -> GradientTransformation:
        """The transformation that makes the updates."""
        return as_transformation(self._tx.arguments["inner"])

    def init(self, params: Params) -> State:
        """The state before the first micro-step."""
        return self._tx.init(params)

    def update(
        self, updates: Updates, state: State, params: Params | None = None, **extra: Any
    ) -> tuple[Any, Any]:
        """Run one micro-step."""
        return self._tx.update(updates, state, params, **extra)

    def has_updated(self, state: State) -> Array:
        """Whether the last micro-step made an update."""
        slots = plain_state(state).slots["accumulate"]
        return (slots.micro_step == 0) & (slots.applied > 0)

    def gradient_transformation(self) -> GradientTransformation:
        """The definition, which is data."""
        return self._tx


def skip_not_finite(
    updates: Updates, gradient_step: Any, params: Params | None
) -> tuple[Array, dict[str, Array]]:
    """Skip a micro-step whose gradients hold inf or nan (a `should_skip_update_fn`).

    The second result counts the entries that are not finite.

    >>> import jax.numpy as jnp
    >>> skip, counts = skip_not_finite({"w": jnp.array([1.0, jnp.nan])}, 0, None)
    >>> bool(skip), int(counts["num_not_finite"])
    (True, 1)
    """
    arrays = [as_array(leaf) for leaf in jax.tree.leaves(updates) if is_inexact(leaf)]
    number = sum(map_arrays(_count_not_finite, arrays), start=jnp.zeros((), jnp.int32))
    return number > 0, {"should_skip": number > 0, "num_not_finite": number}


def _count_not_finite(array: Array) -> Array:
    return jnp.sum(~jnp.isfinite(array), dtype=jnp.int32)


def skip_large_updates(
    updates: Updates, gradient_step: Any, params: Params | None, max_squared_norm: float | jax.Array
) -> tuple[Array, dict[str, Array]]:
    """Skip a micro-step whose squared global norm is not below a limit.

    Bind the limit by `functools.partial` for `should_skip_update_fn`. It skips nan too, since nan
    is not below any limit.

    >>> import functools, jax.numpy as jnp
    >>> skip = functools.partial(skip_large_updates, max_squared_norm=20.0)
    >>> bool(skip({"w": jnp.array([3.0, 4.0])}, 0, None)[0])
    True
    """
    squared = norm_of_tree(updates) ** 2
    # Not `squared >= max_squared_norm`, which is False for nan.
    skip = ~(squared < max_squared_norm)
    return skip, {"should_skip": skip, "norm_squared": squared}
