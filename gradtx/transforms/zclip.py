r"""ZClip: bound the norm of the gradient by its recent mean and deviation.

n = ‖g‖                                         over all arrays
z = (n − μ) / (σ + ε)                           the deviation of n
n* = μ + z_max² σ / z  where z > z_max;  else n
u = g min(1, n*/n, k/n)
μ ← β μ + (1 − β) n*                            σ² ← β σ² + (1 − β) (n* − μ)²

Over the first N norms, μ and σ² are their mean and variance, and only k is a bound.
"""

import operator
from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.leafwise import leafwise
from gradtx.compose.over_axes import AxisFlags, apply_axis_flags
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, Limit, NonNegative, Positive
from gradtx.engine.clock import next_count
from gradtx.transforms.clipping import measure_square, shrink, shrink_by_factor
from gradtx.transforms.moments import average
from gradtx.tree.arithmetic import sqrt, sum_scalars
from gradtx.tree.casts import promote


class NormStatistics(NamedTuple):
    """The scalars of the whole tree."""

    mean: jax.Array
    """μ, of the norms."""
    variance: jax.Array
    """σ², of the norms."""
    norm_count: jax.Array
    """The number of norms so far, up to `warmup_steps`."""


def _init() -> NormStatistics:
    return NormStatistics(jnp.asarray(0.0), jnp.asarray(0.0), jnp.zeros((), jnp.int32))


def _warmup(old: NormStatistics, size: jax.Array) -> NormStatistics:
    """The mean and the variance with one more norm, by Welford's update."""
    count = next_count(old.norm_count)
    number = count.astype(size.dtype)
    mean = old.mean + (size - old.mean) / number
    square = (size - old.mean) * (size - mean)
    return NormStatistics(mean, old.variance + (square - old.variance) / number, count)


def _average(old: NormStatistics, size: jax.Array, decay: jax.Array) -> NormStatistics:
    """The averages one step further; the variance is about the new mean."""
    mean = average(old.mean, size, decay)
    return NormStatistics(mean, average(old.variance, (size - mean) ** 2, decay), old.norm_count)


def _bound(old: NormStatistics, size: jax.Array, threshold: jax.Array, eps: jax.Array) -> jax.Array:
    """n*: the norm, or less where it is a spike."""
    # Without z, which divides by σ + ε: that may be 0.
    sigma, excess = sqrt(old.variance), size - old.mean
    spike = excess > threshold * (sigma + eps)
    lower = old.mean + threshold**2 * sigma * (sigma + eps) / jnp.where(spike, excess, 1.0)
    return jnp.where(spike, lower, size)


def _conclude(
    measures,
    tree_slots: NormStatistics,
    step,
    *,
    z_threshold,
    decay,
    warmup_steps,
    max_norm,
    eps,
):
    size = sqrt(sum_scalars(measures.square))
    warm = operator.lt(*promote(tree_slots.norm_count, warmup_steps))
    bound = jnp.where(warm, size, _bound(tree_slots, size, z_threshold, eps))
    new = jax.tree.map(
        lambda first, later: jnp.where(warm, first, later),
        _warmup(tree_slots, size),
        _average(tree_slots, bound, decay),
    )
    # A norm that is not finite would stay in μ and σ² for ever.
    good = jnp.isfinite(size)
    new = jax.tree.map(lambda now, before: jnp.where(good, now, before), new, tree_slots)
    return {"factor": jnp.where(good, shrink(size, jnp.minimum(bound, max_norm)), 0.0)}, new


@definition
def zclip(
    z_threshold: Positive = 2.5,
    decay: Decay = 0.97,
    warmup_steps: Positive = 25,
    max_norm: Limit = 1.0,
    eps: NonNegative = 1e-6,
    **flags: Unpack[AxisFlags],
) -> GradientTransformation:
    r"""ZClip: adaptive gradient clipping of norm spikes, u ← g min(1, n*/n, k/n).

    It shrinks all updates together when their norm is far above its recent mean. n = ‖g‖ over all
    arrays, z = (n − μ) / (σ + ε), n* = μ + z_max² σ / z where z > z_max, else n; then μ ← β μ + (1
    − β) n* and σ² ← β σ² + (1 − β) (n* − μ)². The first N norms give μ and σ² by their mean and
    variance, and only k is a bound.

    When: long runs whose gradients spike now and then, and whose usual norm changes during
    training, so that no `max_norm` fits all of it. When not: the norm may rise for good by more
    than z_max √(z_max² + 2) deviations, 7 by default. Then σ shrinks faster than μ rises, and the
    bound never follows; take `clip_by_global_norm`.

    A norm that is not finite does not enter μ and σ²; finite entries then become 0, and inf and nan
    do not change. Where all norms were equal, σ = 0, and a larger norm is cut to their mean. The
    norm is summed in float32 at least.

    Args:
      z_threshold: z_max > 0, in standard deviations; 2 to 3. At it, n* is the norm itself; the
        larger z, the nearer n* is to μ.
      decay: β in [0, 1), decay of μ and σ²; 0.97 remembers about 33 norms.
      warmup_steps: N > 0, the number of finite norms for the first mean and variance; 25.
      max_norm: k ≥ 0, a bound at every step, in units of the gradient; 1.0, as in the authors'
        code; `math.inf`: none.
      eps: ε ≥ 0, added to σ, in units of the gradient's norm; 1e-6.
      **flags: `axis_names`: the mesh axes that cut the arrays; see `over_axes`.

    Raises:
      HyperparamError: a number out of its range.

    State: 0 bytes per parameter; three numbers for the whole tree: `mean`, `variance` and
    `norm_count`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.zclip(warmup_steps=4, max_norm=100.0)
    >>> state, results = tx.init(jnp.zeros(1)), []
    >>> # mean 10, deviation 1; a deviation of 2 passes, one of 48 does not
    >>> for norm in (9.0, 11.0, 9.0, 11.0, 12.0, 60.0):
    ...     u, state = tx.update(jnp.array([norm]), state)
    ...     results.append(round(u.item(), 2))
    >>> results
    [9.0, 11.0, 9.0, 11.0, 12.0, 10.2]

    See also: `clip_by_global_norm`.

    Kumar, Owen, Roy Chowdhury and Güra 2025, arXiv 2504.02507.
    """
    return apply_axis_flags(
        leafwise(
            None,
            shrink_by_factor,
            measure=measure_square,
            conclude=_conclude,
            init_tree_slots=_init,
        ),
        flags,
    )
