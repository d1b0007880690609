r"""Dynamic loss scaling for float16: the scale follows the overflows of the gradients.

The loss is multiplied by s before its gradient is taken, so that small entries do not underflow; g
is divided by s before anything else. With n = ‖g‖ over all arrays and k good steps in a row:

    n not finite:  skip,  s ← max(b s, s_min),  k ← 0
    n finite:      k ← k + 1;  k = K:  s ← min(f s, s_max),  k ← 0
"""

import operator
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.choosing import keep_if
from gradtx.compose.transformation import GradientTransformation, TransformationLike, definition
from gradtx.compose.wrapwise import Member, wrapwise
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import Interval, Numeric, Positive
from gradtx.engine.clock import next_count
from gradtx.tree.arithmetic import norm_of_tree
from gradtx.tree.casts import as_array, compute_dtype, is_inexact, promote
from gradtx.tree.maps import map_leaves
from gradtx.tree.paths import is_none
from gradtx.wrappers.guard import Steps

Growth = Annotated[Numeric, Interval(1.0)]
"""A factor of at least 1."""
Backoff = Annotated[Numeric, Interval(0.0, 1.0, low_open=True, high_open=True)]
"""A factor in (0, 1)."""


class LossScale(NamedTuple):
    """The scale and its counters."""

    scale: jax.Array
    """The factor of the loss."""
    good_steps: jax.Array
    """The number of finite steps in a row since the scale last changed."""
    applied: jax.Array
    """The number of updates that `inner` made: its clock."""
    skipped: jax.Array
    """The number of steps skipped because the gradients were not finite."""


def _init(params, *, initial_scale) -> LossScale:
    # A copy, and arrays of their own: the state may be donated, the definition may not.
    scale = jnp.array(initial_scale, jnp.float32, copy=True)
    return LossScale(scale, *(jnp.zeros((), jnp.int32) for _ in range(3)))


def _float32(leaf: Any) -> Any:
    """A gradient of low precision in float32, where the division by the scale loses nothing."""
    return as_array(leaf).astype(compute_dtype(as_array(leaf).dtype)) if is_inexact(leaf) else leaf


def _divide(grad, *, scale):
    return grad / scale


def _second(grad, update):
    return update


def _dynamic_loss_scale(
    updates,
    own: LossScale,
    params,
    step,
    *,
    inner: Member,
    growth_interval,
    growth_factor,
    backoff_factor,
    min_scale,
    max_scale,
    extra,
):
    high = jax.tree.map(_float32, updates, is_leaf=is_none)
    grads = map_leaves(_divide, high, scale=own.scale)
    finite = jnp.isfinite(norm_of_tree(grads))
    # The gradient that a line search reads carries the scale too.
    extra = {**extra, "grad": grads} if "grad" in extra else extra
    new, inner = inner.update(grads, params, gate=finite, extra=extra)
    # `grads` are float32; updates return to the dtypes of the gradients that came in.
    new = keep_if(finite, map_leaves(_second, updates, new))
    good = next_count(own.good_steps)
    grows = operator.ge(*promote(good, growth_interval))
    numbers = (growth_factor, backoff_factor, min_scale, max_scale)
    scale = _next_scale(own.scale, finite, grows, *numbers)
    good = jnp.where(finite & ~grows, good, 0)
    applied, skipped = next_count(own.applied, finite), next_count(own.skipped, ~finite)
    return new, inner, LossScale(scale, good, applied, skipped)


def _next_scale(scale, finite, grows, growth_factor, backoff_factor, min_scale, max_scale):
    """The scale after a step; schedules may give their numbers in another dtype."""
    numbers = (growth_factor, backoff_factor, min_scale, max_scale)
    growth, backoff, low, high = (jnp.asarray(number, scale.dtype) for number in numbers)
    up = jnp.where(grows, jnp.minimum(scale * growth, high), scale)
    return jnp.where(finite, up, jnp.maximum(scale * backoff, low))


def _report(own: LossScale):
    return {"loss_scale": own.scale, "overflow_steps": own.skipped}


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
    r"""Dynamic loss scaling for mixed precision training in float16.

    Gradients of the scaled loss are divided by the scale s. The scale halves at an overflow, and
    doubles after many steps without one. For all arrays g: g ← g / s in float32, then `inner`. When
    ‖g‖ is inf or nan, the wrapper skips the step like `guard`: parameters, slots and clock of
    `inner` keep their values, and s ← max(b s, s_min). After K finite steps in a row s ← min(f s,
    s_max).

    The loss must be multiplied by s: `make_step` does this; in a loop of your own, differentiate
    `loss * gradtx.loss_scale(tx, state)`. Where a member needs `value=`, pass the loss without the
    scale.

    When: the forward or backward pass is in float16, whose smallest numbers are 6e-8. When not:
    bfloat16 or float32, whose range is sufficient; `guard` skips steps that are not finite.

    Put it outermost. A `guard` inside receives gradients without the scale, and both use one norm,
    which is computed once. A guard around it would skip every overflow before the scale could
    follow; `loss_scale` refuses such a definition.

    Args:
      inner: the transformation; put the whole chain here.
      initial_scale: s at first, > 0; 2^15. The division is exact where the scale and the factors
        are powers of 2.
      growth_interval: K ≥ 1, finite steps in a row before s grows; 2000.
      growth_factor: f ≥ 1; 2.
      backoff_factor: b in (0, 1); 0.5.
      min_scale: s_min > 0; 1.
      max_scale: s_max > 0; 2^24, at which even small losses approach the limit of float16.

    Raises:
      HyperparamError: a number out of its range; `min_scale` above `max_scale`.

    State: that of `inner`, and under "dynamic_loss_scale" the numbers `scale`,
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
            f"dynamic_loss_scale: min_scale = {min_scale!r} is above max_scale = {max_scale!r}; "
            "swap the two numbers"
        )
    return wrapwise(inner, _init, _dynamic_loss_scale, report=_report, clock="applied", leads=True)
