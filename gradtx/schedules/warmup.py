r"""Warmup schedules: a rise over W updates, and then a decay.

warmup       η = (1 − p) η_init + p η_peak,  p = count/W held inside [0, 1]
afterwards   constant · cosine to the count K · exponential · inverse square root · stable, then a
             short decay
"""

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from gradtx.definition.errors import HyperparamError
from gradtx.definition.schedule import schedule
from gradtx.definition.types import Array, Hyperparam, NonNegative, Positive
from gradtx.schedules.decay import exponential_decay, power_law_schedule
from gradtx.schedules.parts import (
    SHAPES,
    add_steps,
    are_numbers,
    at_least_zero,
    blend,
    check_exponential,
    check_shape,
    join,
    number,
    phase,
    raise_weights,
    route,
    travel,
)
from gradtx.schedules.polynomial import linear_schedule


@schedule(length=lambda warmup_steps, **_: at_least_zero(warmup_steps))
def warmup_constant_schedule(
    count: Array, init_value: Hyperparam, peak_value: Hyperparam, warmup_steps: Hyperparam
) -> Array:
    """Linear warmup, then constant.

    It is `linear_schedule(init_value, peak_value, warmup_steps)`.

    When: runs of open length, with averaging or decay elsewhere. When not: `warmup_steps` may be 0;
    the schedule is then constant at `init_value`, as in Optax, while `with_warmup(peak_value, 0)`
    is constant at the peak.

    Args:
      init_value: η_init, the value at count 0; 0.
      peak_value: η_peak, the value from count W on.
      warmup_steps: W, updates; 0 or less: constant at η_init.

    State: 0 bytes.

    >>> import gradtx, jax.numpy as jnp
    >>> gradtx.warmup_constant_schedule(0.0, 1.0, warmup_steps=2)(jnp.arange(4)).tolist()
    [0.0, 0.5, 1.0, 1.0]

    Goyal et al. 2017, arXiv 1706.02677, section 2.2.
    """
    return linear_schedule(init_value, peak_value, warmup_steps)(count)


def _check_cosine(init_value, peak_value, warmup_steps, decay_steps, end_value, exponent) -> None:
    if are_numbers(warmup_steps, decay_steps) and warmup_steps >= decay_steps:
        raise HyperparamError(
            f"warmup_cosine_decay_schedule: warmup_steps = {warmup_steps} leave nothing of "
            f"decay_steps = {decay_steps}, which counts the warmup too; "
            "give decay_steps > warmup_steps"
        )


@schedule(check=_check_cosine, length=lambda decay_steps, **_: decay_steps)
def warmup_cosine_decay_schedule(
    count: Array,
    init_value: Hyperparam,
    peak_value: Hyperparam,
    warmup_steps: NonNegative,
    decay_steps: Positive,
    end_value: Hyperparam = 0.0,
    exponent: NonNegative = 1.0,
) -> Array:
    """Linear warmup, then cosine decay.

    From count W on η = η_end + (η_peak − η_end) w^c, w = ½ (1 + cos(π (count − W)/(K − W))), and
    η_end after K.

    When: the common choice for transformers and vision models with a fixed number of updates. When
    not: the run may become longer; take `warmup_stable_decay_schedule`.

    Args:
      init_value: η_init, the value at count 0; 0.
      peak_value: η_peak, the value at count W.
      warmup_steps: W ≥ 0, updates; 1 to 10 % of K.
      decay_steps: K > W, the count at which the decay ends, the warmup included.
      end_value: η_end; 0 to 0.1 η_peak.
      exponent: c ≥ 0, on the cosine; 1.

    Raises:
      HyperparamError: W < 0, K ≤ W, or a negative exponent.

    State: 0 bytes.

    >>> import gradtx
    >>> rate = gradtx.warmup_cosine_decay_schedule(0.0, 1.0, 10, decay_steps=110, end_value=0.1)
    >>> [round(float(rate(count)), 4) for count in (0, 5, 10, 60, 110)]
    [0.0, 0.5, 1.0, 0.55, 0.1]

    See also: `cosine_decay_schedule`, `sgdr_schedule`.

    Loshchilov and Hutter 2017, arXiv 1608.03983, equation 5; the warmup: Goyal et al. 2017, arXiv
    1706.02677, section 2.2."""
    warm = route(count, [warmup_steps], [init_value, peak_value])
    weights = raise_weights(SHAPES["cosine"](phase(count, warmup_steps, decay_steps)), exponent)
    return blend(weights, warm, end_value)


def _check_sgdr(cosine_kwargs) -> None:
    if not cosine_kwargs:
        raise HyperparamError(
            "sgdr_schedule: cosine_kwargs is empty; "
            "give the arguments of one warmup_cosine_decay_schedule per cycle"
        )
    for kwargs in cosine_kwargs:
        warmup_cosine_decay_schedule(**kwargs)


def _sgdr_length(cosine_kwargs: Sequence[Mapping[str, Any]]) -> Any:
    return sum(kwargs["decay_steps"] for kwargs in cosine_kwargs)


@schedule(check=_check_sgdr, length=_sgdr_length)
def sgdr_schedule(count: Array, cosine_kwargs: Sequence[Mapping[str, Hyperparam]]) -> Array:
    """SGDR: cosine decay with warm restarts, each cycle as long as its `decay_steps`.

    When: each of several cycles is to end with a usable model. When not: one budget, one model; a
    single cycle is simpler.

    Args:
      cosine_kwargs: per cycle the arguments of `warmup_cosine_decay_schedule`, by name.

    Raises:
      HyperparamError: no cycle, or a cycle with invalid arguments.
      TypeError: an argument that is missing or unknown.

    State: 0 bytes.

    >>> import gradtx, jax.numpy as jnp
    >>> cycle = {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 1, "decay_steps": 3}
    >>> rate = gradtx.sgdr_schedule([cycle, {**cycle, "peak_value": 0.5}])
    >>> [round(x, 6) for x in rate(jnp.arange(7)).tolist()]
    [0.0, 1.0, 0.5, 0.0, 0.5, 0.25, 0.0]

    See also: `restarts`, for cycles of one shape.

    Loshchilov and Hutter 2017, arXiv 1608.03983, section 3.
    """
    cycles = [warmup_cosine_decay_schedule(**kwargs) for kwargs in cosine_kwargs]
    ends = itertools.accumulate((kwargs["decay_steps"] for kwargs in cosine_kwargs[:-1]), add_steps)
    return join(count, cycles, ends)


@schedule
def warmup_exponential_decay_schedule(
    count: Array,
    init_value: Hyperparam,
    peak_value: Hyperparam,
    warmup_steps: NonNegative,
    transition_steps: Hyperparam,
    decay_rate: NonNegative,
    transition_begin: Hyperparam = 0,
    staircase: bool = False,
    end_value: Hyperparam | None = None,
) -> Array:
    """Linear warmup, then exponential decay.

    From count W on η = η_peak c^(t/s), t = max(count − W − begin, 0).

    When: an open end, and a decay over orders of magnitude. When not: the length of the run is
    known; take `warmup_cosine_decay_schedule`.

    Args:
      init_value: η_init, the value at count 0; 0.
      peak_value: η_peak, the value at count W.
      warmup_steps: W ≥ 0, updates.
      transition_steps: s, updates per factor of c; 0 or less: constant at η_peak.
      decay_rate: c ≥ 0; 0.5 to 0.99; 0: constant at η_peak.
      transition_begin: updates at the peak after the warmup.
      staircase: decay only at whole multiples of s.
      end_value: the bound of the decay; None for none.

    Raises:
      HyperparamError: W < 0, or a negative decay rate.

    State: 0 bytes.

    >>> import gradtx, jax.numpy as jnp
    >>> rate = gradtx.warmup_exponential_decay_schedule(0.0, 1.0, 2, 1, decay_rate=0.5)
    >>> rate(jnp.arange(6)).tolist()
    [0.0, 0.5, 1.0, 0.5, 0.25, 0.125]

    See also: `exponential_decay`.
    """
    warmup = linear_schedule(init_value, peak_value, warmup_steps)
    decay = exponential_decay(
        peak_value, transition_steps, decay_rate, transition_begin, staircase, end_value
    )
    return join(count, [warmup, decay], [warmup_steps])


def _check_inverse_sqrt(init_value, peak_value, warmup_steps, timescale) -> None:
    if timescale is None and are_numbers(warmup_steps) and warmup_steps == 0:
        raise HyperparamError(
            "inverse_sqrt_schedule: warmup_steps = 0 without a timescale would divide by zero at "
            "count 0; give timescale, the updates until the decay sets in"
        )


@schedule(check=_check_inverse_sqrt)
def inverse_sqrt_schedule(
    count: Array,
    init_value: Hyperparam,
    peak_value: Hyperparam,
    warmup_steps: NonNegative,
    timescale: Positive | None = None,
) -> Array:
    """Linear warmup, then inverse square root decay, as for the first transformer.

    From count W on η = η_peak √(s/(s + count − W)). With s = W, the default, it is η_peak
    √(W/count). The schedule of the first transformer, d^(−1/2) min(τ^(−1/2), τ W^(−3/2)), is η_init
    = 0, η_peak = (d W)^(−1/2), shifted by one (`shift_schedule`).

    When: runs of open length. When not: the length is known; a decay to zero ends lower.

    Args:
      init_value: η_init, the value at count 0; 0.
      peak_value: η_peak, the value at count W.
      warmup_steps: W ≥ 0, updates; 4000 in the paper.
      timescale: s > 0, updates; after 3 s of decay the value is η_peak/2. None: W.

    Raises:
      HyperparamError: W < 0, s ≤ 0, or W = 0 without s.

    State: 0 bytes.

    >>> import gradtx, jax.numpy as jnp
    >>> rate = gradtx.inverse_sqrt_schedule(0.0, 1.0, warmup_steps=4)
    >>> rate(jnp.array([0, 2, 4, 16, 64])).tolist()
    [0.0, 0.5, 1.0, 0.5, 0.25]

    See also: `power_law_schedule`, of which this is the power −1/2.

    Vaswani et al. 2017, arXiv 1706.03762, equation 3.
    """
    warmup = functools.partial(route, stops=[warmup_steps], values=[init_value, peak_value])
    decay = power_law_schedule(peak_value, warmup_steps if timescale is None else timescale, -0.5)
    return join(count, [warmup, decay], [warmup_steps])


def _check_stable(
    init_value, peak_value, warmup_steps, stable_steps, decay_steps, end_value, shape: str
) -> None:
    check_shape("warmup_stable_decay_schedule: shape", shape)
    check_exponential("warmup_stable_decay_schedule", shape, peak_value, end_value)


def _stable_length(warmup_steps: Any, stable_steps: Any, decay_steps: Any, **_: Any) -> Any:
    return warmup_steps + stable_steps + decay_steps


@schedule(check=_check_stable, length=_stable_length)
def warmup_stable_decay_schedule(
    count: Array,
    init_value: Hyperparam,
    peak_value: Hyperparam,
    warmup_steps: NonNegative,
    stable_steps: NonNegative,
    decay_steps: NonNegative,
    end_value: Hyperparam = 0.0,
    shape: str = "linear",
) -> Array:
    """Warmup-stable-decay (WSD): linear warmup, a long constant phase, a short cooldown.

    With p the share of the cooldown that is done: η = (1 − f) η_peak + f η_end, where f = p
    ("linear"), ½ (1 − cos πp) ("cosine"), √p ("1-sqrt") or 1 − √(1 − p) ("sqrt"); "exponential" is
    η = η_peak^(1 − p) η_end^p.

    When: the length of the run may change: extend the constant phase, or start a decay from any
    checkpoint in it. When not: a fixed budget, and a recipe tuned for the cosine.

    Args:
      init_value: η_init, the value at count 0; 0.
      peak_value: η_peak, the value of the constant phase.
      warmup_steps: updates of the rise, ≥ 0.
      stable_steps: updates at the peak, ≥ 0.
      decay_steps: updates of the decay alone, ≥ 0; 10 to 20 % of the run. The run has the sum of
        the three.
      end_value: η_end, the value afterwards; 0 to 0.1 η_peak.
      shape: "linear", "cosine", "1-sqrt", "sqrt" or "exponential".

    Raises:
      HyperparamError: a negative number of steps, an unknown shape, or an exponential to 0.

    State: 0 bytes.

    >>> import gradtx, jax.numpy as jnp
    >>> rate = gradtx.warmup_stable_decay_schedule(0.0, 1.0, 2, 3, decay_steps=4, shape="1-sqrt")
    >>> [round(x, 3) for x in rate(jnp.arange(10)).tolist()]
    [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 0.5, 0.293, 0.134, 0.0]

    See also: `phases`, for any other sequence of phases.

    Hu et al. 2024, arXiv 2404.06395; "1-sqrt": Hägele et al. 2024, arXiv 2405.18392.
    """
    start = add_steps(number(warmup_steps), stable_steps)
    weights = phase(count, start, add_steps(start, decay_steps))
    warm = route(count, [warmup_steps], [init_value, peak_value])
    return travel(shape, weights, warm, end_value)
