r"""Bound the norm of the gradient by what it usually is.

n = ‖g‖                                         over all arrays
z = (n − μ) / (σ + ε)                           how unusual it is
n* = μ + z_max² σ / z  where z > z_max;  else n
u = g min(1, n*/n, k/n)
μ ← β μ + (1 − β) n*                            σ² ← β σ² + (1 − β) (n* − μ)²

Over the first N norms, μ and σ² are their mean and variance, and only k is a bound.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Decay, NonNegative, Positive
from gradtx.transforms.clipping import measure_square, shrink, shrink_by_factor
from gradtx.transforms.moments import average
from gradtx.tree.arithmetic import sum_scalars


class NormStatistics(NamedTuple):
    """What is kept for the whole tree."""

    mean: jax.Array
    """μ, of the norms."""
    variance: jax.Array
    """σ², of the norms."""
    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    """Norms seen so far, up to `warmup_steps`."""


def _init() -> NormStatistics:
    return NormStatistics(jnp.asarray(0.0), jnp.asarray(0.0), jnp.zeros((), jnp.int32))


def _gathered(kept: NormStatistics, size: jax.Array) -> NormStatistics:
    """The mean and the variance of one norm more."""
    count = kept.count + 1
    mean = kept.mean + (size - kept.mean) / count
    return NormStatistics(
        mean, kept.variance + ((size - kept.mean) * (size - mean) - kept.variance) / count, count
    )


def _followed(kept: NormStatistics, size: jax.Array, decay: jax.Array) -> NormStatistics:
    """The averages a step further; the new mean is that of the variance, too."""
    mean = average(kept.mean, size, decay)
    return NormStatistics(mean, average(kept.variance, (size - mean) ** 2, decay), kept.count)


def _usual(
    kept: NormStatistics, size: jax.Array, threshold: jax.Array, eps: jax.Array
) -> jax.Array:
    """n*: the norm, or less where it is a spike. Without z, which divides by σ + ε: that may be 0."""
    sigma, excess = jnp.sqrt(kept.variance), size - kept.mean
    spike = excess > threshold * (sigma + eps)
    return jnp.where(
        spike,
        kept.mean + threshold**2 * sigma * (sigma + eps) / jnp.where(spike, excess, 1.0),
        size,
    )


def _conclude(
    found: Any,
    shared: NormStatistics,
    step: jax.Array,
    *,
    z_threshold: jax.Array,
    decay: jax.Array,
    warmup_steps: jax.Array,
    max_norm: jax.Array,
    eps: jax.Array,
) -> tuple[dict[str, Any], NormStatistics]:
    size = jnp.sqrt(sum_scalars(found.square))
    gathering = shared.count < warmup_steps
    usual = jnp.where(gathering, size, _usual(shared, size, z_threshold, eps))
    both = zip(_gathered(shared, size), _followed(shared, usual, decay), shared, strict=True)
    good = jnp.isfinite(size)
    kept = NormStatistics(
        *(jnp.where(good, jnp.where(gathering, first, later), old) for first, later, old in both)
    )
    return {"factor": jnp.where(good, shrink(size, jnp.minimum(usual, max_norm)), 0.0)}, kept


@definition
def zclip(
    z_threshold: Positive = 2.5,
    decay: Decay = 0.97,
    warmup_steps: Positive = 25,
    max_norm: NonNegative = 1.0,
    eps: NonNegative = 1e-6,
) -> GradientTransformation:
    r"""Shrink all updates together when their norm is far above what it was of late: u ← g min(1,
    n*/n, k/n).

    n = ‖g‖ over all arrays, z = (n − μ) / (σ + ε), n* = μ + z_max² σ / z where z > z_max, else n;
    then μ ← β μ + (1 − β) n* and σ² ← β σ² + (1 − β) (n* − μ)². The first N norms give μ and σ² by
    their mean and variance, and are bound by k alone.

    When: long runs whose gradients spike now and then, and whose usual norm changes as training
    goes on, so that no `max_norm` fits all of it. When not: the norm may rise for good by more than
    z_max √(z_max² + 2) deviations, 7 by default. Then σ shrinks faster than μ rises, and the bound
    never follows; take `clip_by_global_norm`.

    A norm that is not finite does not enter μ and σ²; finite entries then become 0, and the others
    stay where they are. Where all norms were equal, σ = 0, and what is above their mean is cut to
    it. The norm is summed in float32 at least.

    Args:
      z_threshold: z_max > 0, in standard deviations; 2 to 3. At it, n* is the norm itself; the
        larger z, the nearer n* is to μ.
      decay: β in [0, 1), decay of μ and σ²; 0.97 remembers about 33 norms.
      warmup_steps: N > 0, how many finite norms are gathered first; 25.
      max_norm: k ≥ 0, a bound for all times, in units of the gradient; 1.0, as the authors' code
        has it; `math.inf`: none.
      eps: ε ≥ 0, beside σ, in units of the gradient's norm; 1e-6.

    Raises:
      HyperparamError: a number out of its range.

    State: 0 bytes per parameter; three numbers for the whole tree: `mean`, `variance`, `count`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.zclip(warmup_steps=4, max_norm=100.0)
    >>> state, seen = tx.init(jnp.zeros(1)), []
    >>> for norm in (9.0, 11.0, 9.0, 11.0, 12.0, 60.0):  # mean 10, deviation 1; a deviation of 2 passes, one of 48 does not
    ...     u, state = tx.update(jnp.array([norm]), state)
    ...     seen.append(round(u.item(), 2))
    >>> seen
    [9.0, 11.0, 9.0, 11.0, 12.0, 10.2]

    See also: `clip_by_global_norm`.

    Kumar, Owen, Roy Chowdhury and Güra 2025, arXiv 2504.02507.
    """
    return leafwise(
        None,
        shrink_by_factor,
        z_threshold=z_threshold,
        decay=decay,
        warmup_steps=warmup_steps,
        max_norm=max_norm,
        eps=eps,
        measure=measure_square,
        conclude=_conclude,
        init_tree_slots=_init,
    )
