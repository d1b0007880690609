"""Lower the step when the loss has stopped falling."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import Fraction, NonNegative, Positive


class Plateau(NamedTuple):
    """What is kept for the whole tree."""

    scale: jax.Array
    """c, which multiplies the updates."""
    best_value: jax.Array
    """The best mean value so far."""
    plateau_count: jax.Array
    """Mean values in a row that were no better."""
    cooldown_count: jax.Array
    """Mean values still to pass before they count again."""
    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    """Values in the mean of now."""
    avg_value: jax.Array
    """Their mean."""


def _init() -> Plateau:
    plateau, cooldown, count = (jnp.zeros((), jnp.int32) for _ in range(3))
    return Plateau(
        jnp.asarray(1.0), jnp.asarray(jnp.inf), plateau, cooldown, count, jnp.asarray(0.0)
    )


def _conclude(
    found: None,
    shared: Plateau,
    step: jax.Array,
    *,
    value: jax.Array,
    factor: jax.Array,
    patience: jax.Array,
    rtol: jax.Array,
    atol: jax.Array,
    cooldown: jax.Array,
    accumulation_size: jax.Array,
    min_scale: jax.Array,
) -> tuple[dict[str, Any], Plateau]:
    count = shared.count + 1
    mean = shared.avg_value + (value - shared.avg_value) / count
    best = shared.best_value
    limit = jnp.where(jnp.isfinite(best), best - rtol * jnp.abs(best) - atol, best)
    better = mean < limit
    waits, plateau = shared.cooldown_count > 0, jnp.where(better, 0, shared.plateau_count + 1)
    lower = (plateau >= patience) & ~waits
    counted = Plateau(
        scale=jnp.where(lower, jnp.maximum(shared.scale * factor, min_scale), shared.scale),
        best_value=jnp.where(better, mean, best),
        plateau_count=jnp.where(lower | waits, 0, plateau),
        cooldown_count=jnp.where(lower, cooldown, jnp.maximum(shared.cooldown_count - 1, 0)),
        count=jnp.zeros_like(count),
        avg_value=jnp.zeros_like(mean),
    )
    full = count >= accumulation_size
    gathered = shared._replace(count=count, avg_value=mean)
    new = Plateau(
        *(jnp.where(full, now, until) for now, until in zip(counted, gathered, strict=True))
    )
    return {"scale": new.scale}, new


def _scale(grad: jax.Array, slots: None, param: None, step: jax.Array, *, scale: jax.Array) -> Any:
    return scale * grad, slots


@definition
def reduce_on_plateau(
    factor: Fraction = 0.1,
    patience: NonNegative = 10,
    rtol: NonNegative = 1e-4,
    atol: NonNegative = 0.0,
    cooldown: NonNegative = 0,
    accumulation_size: Positive = 1,
    min_scale: NonNegative = 0.0,
) -> GradientTransformation:
    r"""Multiply updates by a number that falls whenever the loss has stopped falling: u ← c u.

    v is the mean of `accumulation_size` values in a row. It is better when v < v* − r |v*| − a, and
    then v* ← v. After `patience` means in a row that were no better, c ← max(f c, c_min), and the
    next `cooldown` means do not count.

    When: validation losses, or smooth training losses, with no schedule at hand. When not: the
    length of the run is known; a schedule does as well, and does not depend on noise.

    `update(..., value=loss)` must be called with the value at every step. With `cooldown` and
    `accumulation_size` in mind, all times are in means, not in steps.

    Args:
      factor: f in [0, 1], what c is multiplied by; 0.1 to 0.5.
      patience: how many means in a row may be no better, ≥ 0; 5 to 20.
      rtol: r ≥ 0, the part of |v*| by which v must be better.
      atol: a ≥ 0, the amount by which v must be better, in units of the value.
      cooldown: how many means after a fall of c do not count, ≥ 0.
      accumulation_size: values in a mean, ≥ 1; for noisy losses as many as the steps of an epoch.
      min_scale: c_min ≥ 0.

    Raises:
      HyperparamError: a number out of its range.
      MissingExtraError: `update` is called without `value=`.

    State: 0 bytes per parameter; six numbers for the whole tree: `scale`, `best_value`,
    `plateau_count`, `cooldown_count`, `count`, `avg_value`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.chain(gradtx.sgd(1.0), gradtx.reduce_on_plateau(factor=0.5, patience=2))
    >>> state, g, seen = tx.init(jnp.zeros(())), jnp.array(1.0), []
    >>> for loss in (3.0, 2.0, 2.0, 2.0, 1.0):  # the second 2 in a row that is no better halves the step
    ...     u, state = tx.update(g, state, value=loss)
    ...     seen.append(u.item())
    >>> seen
    [-1.0, -1.0, -1.0, -0.5, -0.5]
    >>> float(state.slots["reduce_on_plateau"].best_value)
    1.0
    """
    return leafwise(
        None,
        _scale,
        factor=factor,
        patience=patience,
        rtol=rtol,
        atol=atol,
        cooldown=cooldown,
        accumulation_size=accumulation_size,
        min_scale=min_scale,
        conclude=_conclude,
        init_tree_slots=_init,
        extra=("value",),
    )
