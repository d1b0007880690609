r"""Clip the norm of the updates at z deviations above the mean of the last norms.

n = ‖g‖                              over all arrays
m, s: mean and deviation of the last W norms, as they were before clipping
u = g min(1, (m + z s)/n)
"""

from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.leafwise import leafwise
from gradtx.compose.over_axes import AxisFlags, apply_axis_flags
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Positive
from gradtx.transforms.clipping import measure_square, shrink, shrink_by_factor
from gradtx.transforms.rolling import check_window, init_window, is_active, record, statistics
from gradtx.tree.arithmetic import sqrt, sum_scalars


class Norms(NamedTuple):
    """The last norms of the whole tree."""

    norms: jax.Array
    """The norms before clipping, in a ring."""
    norm_count: jax.Array
    """The number of norms so far; from 2 W on it goes back to W."""


def _init(*, window: int) -> Norms:
    return Norms(init_window(window), jnp.zeros((), jnp.int32))


def _conclude(
    measures, tree_slots: Norms, step, *, zscore, warmup_steps, window: int
) -> tuple[dict[str, jax.Array], Norms]:
    size = sqrt(sum_scalars(measures.square))
    found = statistics(*tree_slots)
    active = is_active(tree_slots.norm_count, window, warmup_steps) & (found.deviation > 0)
    limit = jnp.where(active, found.mean + zscore * found.deviation, jnp.inf)
    # A norm that is not finite would stay in the statistics until it leaves the window.
    new = Norms(*record(*tree_slots, size, jnp.isfinite(size)))
    return {"factor": shrink(size, limit)}, new


@definition
def clip_by_zscore(
    zscore: Positive = 3.0,
    window: int = 128,
    warmup_steps: Positive = 64,
    **flags: Unpack[AxisFlags],
) -> GradientTransformation:
    r"""Clip updates whose norm is z standard deviations above the mean of the last norms.

    With n = ‖g‖ over all arrays, and m and s the mean and the unbiased deviation of the last W
    norms: u = g min(1, (m + z s)/n). The window holds norms as they were before clipping, so that
    the bound follows a lasting rise within some steps.

    When: behind the optimizer, to bound its steps, or in front of it, for its gradients; where the
    usual norm changes during training. When not: large norms are bad, whatever came before
    (`clip_by_global_norm`); or a spike is to be left out (`guard`).

    A norm that is not finite does not enter the window; finite entries then become 0 where the
    norm is NaN or above the bound, and inf and nan do not change. The deviation is a thousandth of
    the mean at least, so that equal norms pass.

    Args:
      zscore: z > 0, in standard deviations; 3.
      window: W ≥ 2, norms; 128.
      warmup_steps: the number of norms before the first clipping; half of the window. At most the
        window counts.
      **flags: `axis_names`: the mesh axes that cut the arrays; see `over_axes`.

    Raises:
      HyperparamError: a number out of its range; a window below 2.

    State: 0 bytes per parameter; W + 1 numbers for the whole tree.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.clip_by_zscore(zscore=3.0, window=4, warmup_steps=4)
    >>> state, results = tx.init(jnp.zeros(1)), []
    >>> # mean 10, deviation √(4/3): the bound is 13.46; then 22.5 + 3 √(1876/3)
    >>> for norm in (9.0, 11.0, 9.0, 11.0, 59.0, 59.0):
    ...     u, state = tx.update(jnp.array([norm]), state)
    ...     results.append(round(u.item(), 2))
    >>> results
    [9.0, 11.0, 9.0, 11.0, 13.46, 59.0]

    See also: `zclip`, `clip_by_global_norm`, `guard`.
    """
    check_window("clip_by_zscore", window)
    rule = leafwise(
        None,
        shrink_by_factor,
        measure=measure_square,
        conclude=_conclude,
        init_tree_slots=_init,
    )
    return apply_axis_flags(rule, flags)
