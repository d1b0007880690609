r"""A loss scale for float16 that follows what the gradients bear.

The loss is multiplied by s before its gradient is taken, so that small entries do not vanish; g is
divided by s before anything else. With n = ‖g‖ over all arrays and k good steps in a row:

    n not finite:  skip,  s ← max(b s, s_min),  k ← 0
    n finite:      k ← k + 1;  k = K:  s ← min(f s, s_max),  k ← 0
"""

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.choosing import attach, detach, keep_if
from gradtx.compose.transformation import GradientTransformation, TransformationLike, definition
from gradtx.compose.treewise import treewise
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import Interval, Numeric, Positive
from gradtx.engine.rules import Child
from gradtx.tree.arithmetic import global_norm
from gradtx.tree.casts import as_array, compute_dtype, is_inexact
from gradtx.tree.maps import choose, map_leaves
from gradtx.tree.paths import is_none
from gradtx.wrappers.guard import Steps

Growth = Annotated[Numeric, Interval(1.0)]
"""A factor that makes nothing smaller."""
Backoff = Annotated[Numeric, Interval(0.0, 1.0, low_open=True, high_open=True)]
"""A factor in (0, 1), that makes everything smaller and nothing 0."""


class LossScale(NamedTuple):
    """The scale, and the counts it goes by."""

    scale: Any
    """What the loss is multiplied by."""
    good_steps: Any
    """Steps in a row, since the scale last changed, whose gradients were finite."""
    applied: Any
    """Steps at which `inner` acted: what its clock says."""
    skipped: Any
    """Steps left out because the gradients were not finite."""


def _init(params: Any, *, inner: GradientTransformation, initial_scale: Any) -> dict[str, Any]:
    scale = jnp.array(initial_scale, jnp.float32, copy=True)
    good, applied, skipped = (jnp.zeros((), jnp.int32) for _ in range(3))
    return attach(
        inner.init_slots(params), "dynamic_loss_scale", LossScale(scale, good, applied, skipped)
    )


def _widen(leaf: Any) -> Any:
    """A gradient of low precision in float32, where its division by the scale loses nothing."""
    return as_array(leaf).astype(compute_dtype(as_array(leaf).dtype)) if is_inexact(leaf) else leaf


def _divide(grad: jax.Array, *, scale: jax.Array) -> jax.Array:
    return grad / scale


def _like(grad: jax.Array, update: jax.Array) -> jax.Array:
    return update


def _next(
    kept: LossScale,
    finite: jax.Array,
    interval: Any,
    growth: Any,
    backoff: Any,
    least: Any,
    most: Any,
) -> LossScale:
    good = kept.good_steps + 1
    grows = good >= interval
    up = jnp.where(grows, jnp.minimum(kept.scale * growth, most), kept.scale)
    scale = jnp.where(finite, up, jnp.maximum(kept.scale * backoff, least)).astype(kept.scale.dtype)
    return LossScale(
        scale, jnp.where(finite & ~grows, good, 0), kept.applied + finite, kept.skipped + ~finite
    )


def _update(
    updates: Any,
    slots: Any,
    params: Any,
    step: Any,
    *,
    inner: GradientTransformation,
    growth_interval: Any,
    growth_factor: Any,
    backoff_factor: Any,
    min_scale: Any,
    max_scale: Any,
    extra: Mapping[str, Any],
    gate: Any,
) -> Any:
    old, kept = detach(slots, "dynamic_loss_scale")
    grads = map_leaves(_divide, jax.tree.map(_widen, updates, is_leaf=is_none), scale=kept.scale)
    finite = jnp.isfinite(global_norm(grads))
    asked = finite if gate is None else gate & finite
    told = {**extra, "grad": grads} if "grad" in extra else extra
    made, new = inner.update_slots(grads, old, params, kept.applied + 1, told, asked)
    now = _next(kept, finite, growth_interval, growth_factor, backoff_factor, min_scale, max_scale)
    now = choose(gate, now, kept)
    return keep_if(asked, map_leaves(_like, updates, made)), attach(new, "dynamic_loss_scale", now)


def _inside(slots: Any, count: Any, *, inner: GradientTransformation) -> list[Child]:
    old, kept = detach(slots, "dynamic_loss_scale")
    return [Child(inner, old, kept.applied)]


def _report(slots: Any) -> dict[str, Any]:
    kept = slots["dynamic_loss_scale"]
    return {"loss_scale": kept.scale, "overflow_steps": kept.skipped}


@definition
def dynamic_loss_scale(
    inner: TransformationLike,
    initial_scale: Positive = 2.0**15,
    growth_interval: Steps = 2000,
    growth_factor: Growth = 2.0,
    backoff_factor: Backoff = 0.5,
    min_scale: Positive = 1.0,
    max_scale: Positive = 2.0**24,
) -> GradientTransformation:
    r"""Gradients of a loss that was multiplied by s, divided by s; s halves when they overflow, and
    doubles when they long have not.

    For all arrays g: g ← g / s in float32, then `inner`. When ‖g‖ is inf or nan the step is left
    out as `guard` does it: parameters, slots and clock of `inner` stay, and s ← max(b s, s_min).
    After K finite steps in a row s ← min(f s, s_max).

    The loss must be multiplied by s: `make_step` does it; a loop of your own takes `loss *
    gradtx.loss_scale(tx, state)`. `value=`, where a member asks for the loss, is the loss itself.

    When: the forward or backward pass is in float16, whose smallest numbers are 6e-8. When not:
    bfloat16 or float32, which have range enough; `guard` leaves out what is not finite.

    It must be the outermost: a `guard` inside sees gradients as they are without the scale, and
    both go by one norm, which is computed once; a guard around it would leave out every overflow
    before the scale hears of it. `loss_scale` refuses what is put so.

    Args:
      inner: the transformation; put the whole chain here.
      initial_scale: s at first, > 0; 2^15. It must be a power of 2, like the factors, for the
        division to be exact.
      growth_interval: K ≥ 1, finite steps in a row before s grows; 2000.
      growth_factor: f ≥ 1; 2.
      backoff_factor: b in (0, 1); 0.5.
      min_scale: s_min > 0; 1.
      max_scale: s_max > 0; 2^24, where even small losses come near the end of float16.

    Raises:
      HyperparamError: a number out of its range; a least scale above the largest.

    State: that of `inner`, and beside it under "dynamic_loss_scale" the numbers `scale`,
    `good_steps`, `applied` and `skipped`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.dynamic_loss_scale(gradtx.sgd(1.0), initial_scale=8.0)
    >>> state = tx.init(jnp.zeros(()))
    >>> u, state = tx.update(jnp.array(4.0), state)
    >>> lost, state = tx.update(jnp.array(jnp.inf), state)
    >>> u.item(), lost.item(), float(gradtx.loss_scale(tx, state)), int(state.count)
    (-0.5, -0.0, 4.0, 1)

    See also: `guard`, `loss_scale`, `make_step`.

    Micikevicius et al. 2018, arXiv 1710.03740, section 3.2.
    """
    if (
        isinstance(min_scale, int | float)
        and isinstance(max_scale, int | float)
        and min_scale > max_scale
    ):
        raise HyperparamError(
            f"dynamic_loss_scale: min_scale = {min_scale!r} is above max_scale = {max_scale!r}; turn them round"
        )
    _members, told = {"inner": inner}, {"children": _inside, "report": _report}
    return treewise(
        _init,
        _update,
        initial_scale=initial_scale,
        growth_interval=growth_interval,
        growth_factor=growth_factor,
        backoff_factor=backoff_factor,
        min_scale=min_scale,
        max_scale=max_scale,
        inner=inner,
        own_clock=True,
        **told,
    )
