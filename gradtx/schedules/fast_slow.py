r"""Fast-slow decay: a power law from the peak to a knee, and a line from there to the end.

η = η_peak (count + 1)/W              to count W − 1, the warmup
η = η_peak                            for H more updates
η = η_peak + (η_knee − η_peak) p^c    p the share of F updates that is done
η = η_knee (1 − q) + η_end q          q the share of S updates that is done
"""

from typing import Any

import jax.numpy as jnp

from gradtx.definition.schedule import schedule
from gradtx.definition.types import Array, Hyperparam, NonNegative
from gradtx.schedules.parts import (
    add_steps,
    blend,
    fill,
    number,
    phase,
    raise_done,
    real,
)


def _length(
    warmup_steps: Any, stable_steps: Any, fast_steps: Any, slow_steps: Any, **_: Any
) -> Any:
    return warmup_steps + stable_steps + fast_steps + slow_steps


@schedule(length=_length)
def fast_slow_decay_schedule(
    count: Array,
    peak_value: Hyperparam,
    knee_value: Hyperparam,
    warmup_steps: NonNegative,
    stable_steps: NonNegative,
    fast_steps: NonNegative,
    slow_steps: NonNegative,
    power: NonNegative = 0.6,
    end_value: Hyperparam = 0.0,
) -> Array:
    """Fast-slow decay: a power cooldown to a knee, then a line to the end.

    After a warmup over W updates and H more at the peak, η = η_peak + (η_knee − η_peak) p^c over F
    updates, p the share that is done; then a line from η_knee to η_end over S updates. The warmup
    begins with a step, η_peak/W at count 0, and reaches the peak at count W − 1.

    When: methods that turn matrices by a fixed angle, such as `muonh`, whose rate falls fast at
    first: 3125 steps of modded-nanogpt take W, H, F, S = 100, 100, 1550, 1375. When not: the length
    of the run is open; take `warmup_stable_decay_schedule`.

    Args:
      peak_value: η_peak; 0.03 radians with `muonh`.
      knee_value: η_knee; a fifth of the peak.
      warmup_steps: W ≥ 0, updates; 3 % of the run; 0: no warmup.
      stable_steps: H ≥ 0, updates at the peak; 3 % of the run.
      fast_steps: F ≥ 0, updates of the power cooldown; half of the run.
      slow_steps: S ≥ 0, updates of the line; the rest.
      power: c ≥ 0; below 1 falls fast at first; 0.6.
      end_value: η_end; 0.

    Raises:
      HyperparamError: a negative number of updates, or a negative power.

    State: 0 bytes.

    >>> import gradtx, jax.numpy as jnp
    >>> rate = gradtx.fast_slow_decay_schedule(1.0, 0.2, 2, 1, 4, 2, power=0.5)
    >>> [round(x, 3) for x in rate(jnp.arange(10)).tolist()]
    [0.5, 1.0, 1.0, 1.0, 0.6, 0.434, 0.307, 0.2, 0.1, 0.0]
    >>> rate.length
    9

    See also: `phases`, whose `cooldown(shape="power")` is the first part; `muonh`.

    KellerJordan/modded-nanogpt, track 3, pull request 351.
    """
    knee_begin = add_steps(number(warmup_steps), stable_steps)
    slow_begin = add_steps(knee_begin, fast_steps)
    warmup = jnp.maximum(real(number(warmup_steps)), 1)
    value = fill(count, peak_value) * jnp.minimum((real(count) + 1) / warmup, 1)
    fast = raise_done(phase(count, knee_begin, slow_begin), power)
    value = blend(fast, value, knee_value)
    return blend(phase(count, slow_begin, add_steps(slow_begin, slow_steps)), value, end_value)
