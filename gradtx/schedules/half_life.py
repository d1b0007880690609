r"""Warmup of a decay rate, in a straight line of half-lives.

h = ln ½ / ln β               an average of decay β loses half of a value within h steps
h_t = (1 − p) h_0 + p h_K,   p = count/K held inside [0, 1]
β_t = ½^(1/h_t)
"""

import jax.numpy as jnp

from gradtx.definition.schedule import schedule
from gradtx.definition.types import Array, Decay, Positive
from gradtx.schedules.parts import phase, real


@schedule(length=lambda transition_steps, **_: transition_steps)
def half_life_schedule(
    count: Array, init_value: Decay, end_value: Decay, transition_steps: Positive
) -> Array:
    """A decay rate whose half-life changes linearly.

    ln β = 1 / ((1 − p)/ln β_0 + p/ln β_K), p = count/K in [0, 1].

    When: to warm up the decay of a long average, as β3 of `ademamix`; with a straight line in β the
    average would be short almost to the end. When not: learning rates.

    Args:
      init_value: β_0 in [0, 1), the decay rate at count 0; the β1 of `ademamix`.
      end_value: β_K in [0, 1), the decay rate from count K on.
      transition_steps: K > 0, updates; the whole run in AdEMAMix's paper.

    Raises:
      HyperparamError: a number out of its range.

    State: 0 bytes.

    >>> import gradtx, jax.numpy as jnp
    >>> # half-lives of 1 and of 5 steps
    >>> rate = gradtx.half_life_schedule(0.5, 0.5**0.2, transition_steps=4)
    >>> [round(float(jnp.log(0.5) / jnp.log(rate(count))), 3) for count in (0, 1, 2, 4, 9)]
    [1.0, 2.0, 3.0, 5.0, 5.0]

    See also: `linear_schedule`, for the weight α of that average.

    Pagliardini, Ablin and Grangier 2024, arXiv 2409.03137, section 3 and appendix A.1.
    """
    weights, first, last = phase(count, 0, transition_steps), real(init_value), real(end_value)
    # At both ends the exact decay rates: 0/ln 0 would be nan there, and logarithms round.
    inside = (weights.old > 0) & (weights.new > 0)
    old, new = jnp.where(inside, weights.old, 0.5), jnp.where(inside, weights.new, 0.5)
    between = jnp.exp(1 / (old / jnp.log(first) + new / jnp.log(last)))
    return jnp.where(inside, between, jnp.where(weights.new > 0, last, first))
