"""Reduce on plateau: lower the step when the loss stops falling."""

import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Fraction, Limit, NonNegative, Positive
from gradtx.engine.clock import next_count
from gradtx.tree.casts import promote


class Plateau(NamedTuple):
    """The scalars of the whole tree."""

    scale: jax.Array
    """c, which multiplies the updates."""
    best_value: jax.Array
    """The best mean value so far."""
    plateau_count: jax.Array
    """Mean values in a row that did not improve."""
    cooldown_count: jax.Array
    """Mean values to skip before they count again."""
    value_count: jax.Array
    """Values in the current mean."""
    avg_value: jax.Array
    """The current mean."""


def _init() -> Plateau:
    # Three arrays, not one three times, which could not be donated.
    plateau, cooldown, count = (jnp.zeros((), jnp.int32) for _ in range(3))
    return Plateau(
        jnp.asarray(1.0), jnp.asarray(jnp.inf), plateau, cooldown, count, jnp.asarray(0.0)
    )


def _judge(old: Plateau, mean, *, factor, patience, rtol, atol, cooldown, min_scale) -> Plateau:
    """Compare a full mean with the best one, and lower c after `patience` means."""
    best = old.best_value
    # The first best is inf, and inf − r inf would be nan.
    limit = jnp.where(jnp.isfinite(best), best - rtol * jnp.abs(best) - atol, best)
    better, waits = mean < limit, old.cooldown_count > 0
    plateau = jnp.where(better, 0, next_count(old.plateau_count))
    lower = operator.ge(*promote(plateau, patience)) & ~waits
    return Plateau(
        scale=jnp.where(lower, jnp.maximum(old.scale * factor, min_scale), old.scale),
        best_value=jnp.where(better, mean, best),
        plateau_count=jnp.where(lower | waits, 0, plateau),
        cooldown_count=jnp.where(
            lower, jnp.asarray(cooldown, jnp.int32), jnp.maximum(old.cooldown_count - 1, 0)
        ),
        value_count=jnp.zeros_like(old.value_count),
        avg_value=jnp.zeros_like(mean),
    )


def _conclude(
    measures: None,
    tree_slots: Plateau,
    step,
    *,
    value,
    factor,
    patience,
    rtol,
    atol,
    cooldown,
    accumulation_size,
    min_scale,
):
    old, count = tree_slots, next_count(tree_slots.value_count)
    # nan would spoil the mean, and a best loss of −inf could not fall any more.
    value = jnp.asarray(value, old.avg_value.dtype)
    value = jnp.where(jnp.isfinite(value), value, jnp.finfo(value.dtype).max)
    mean = old.avg_value + (value - old.avg_value) / count.astype(value.dtype)
    judged = _judge(
        old,
        mean,
        factor=factor,
        patience=patience,
        rtol=rtol,
        atol=atol,
        cooldown=cooldown,
        min_scale=min_scale,
    )
    full = operator.ge(*promote(count, accumulation_size))
    partial = old._replace(value_count=count, avg_value=mean)
    new = Plateau(*(jnp.where(full, *pair) for pair in zip(judged, partial, strict=True)))
    return {"scale": new.scale}, new


def _scale(grad, slots: None, param, step, *, scale):
    return scale * grad, slots


@definition
def reduce_on_plateau(
    factor: Fraction = 0.1,
    patience: Limit = 10,
    rtol: NonNegative = 1e-4,
    atol: NonNegative = 0.0,
    cooldown: NonNegative = 0,
    accumulation_size: Positive = 1,
    min_scale: NonNegative = 0.0,
) -> GradientTransformation:
    r"""Reduce the learning rate on plateau: u ← c u, and c falls when the loss stops falling.

    v is the mean of `accumulation_size` values in a row. It is better when v < v* − r |v*| − a, and
    then v* ← v. After `patience` means in a row without improvement, c ← max(f c, c_min), and the
    next `cooldown` means do not count.

    When: validation losses, or smooth training losses, without a schedule. When not: the length
    of the run is known; a schedule does as well, and does not depend on noise.

    `update(..., value=loss)` needs the value at every step; one that is not finite counts as the
    largest float. All times are in means of `accumulation_size` values, not in steps.

    Args:
      factor: f in [0, 1], a factor of c; 0.1 to 0.5.
      patience: how many means in a row may fail to improve, ≥ 0; 5 to 20.
      rtol: r ≥ 0, the part of |v*| by which v must be better.
      atol: a ≥ 0, the amount by which v must be better, in units of the value.
      cooldown: how many means after a fall of c do not count, ≥ 0.
      accumulation_size: values in a mean, ≥ 1; for noisy losses as many as the steps of an epoch.
      min_scale: c_min ≥ 0.

    Raises:
      HyperparamError: a number out of its range.
      MissingExtraError: `update` is called without `value=`.

    State: 0 bytes per parameter; six numbers for the whole tree: `scale`, `best_value`,
    `plateau_count`, `cooldown_count`, `value_count`, `avg_value`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.chain(gradtx.sgd(1.0), gradtx.reduce_on_plateau(factor=0.5, patience=2))
    >>> state, g, results = tx.init(jnp.zeros(())), jnp.array(1.0), []
    >>> for loss in (3.0, 2.0, 2.0, 2.0, 1.0):  # two means without improvement halve the step
    ...     u, state = tx.update(g, state, value=loss)
    ...     results.append(u.item())
    >>> results
    [-1.0, -1.0, -1.0, -0.5, -0.5]
    >>> float(state.slots["reduce_on_plateau"].best_value)
    1.0
    """
    return leafwise(None, _scale, conclude=_conclude, init_tree_slots=_init, extra=("value",))
