r"""Cosine decay: half a cosine, from one value down to another.

w = ½ (1 + cos(π p)),   p = count/K held inside [0, 1]
η = w^c η_0 + (1 − w^c) η_K
"""

from gradtx.definition.schedule import schedule
from gradtx.definition.types import Array, Hyperparam, NonNegative, Positive
from gradtx.schedules.parts import SHAPES, blend, phase, raise_weights, real


@schedule(length=lambda decay_steps, **_: decay_steps)
def cosine_decay_schedule(
    count: Array,
    init_value: Hyperparam,
    decay_steps: Positive,
    alpha: Hyperparam = 0.0,
    exponent: NonNegative = 1.0,
) -> Array:
    """Cosine decay, then constant: η = η_0 ((1 − α) w^c + α), w = ½ (1 + cos(π count/K)).

    When: runs of known length; a common choice for vision models and transformers, after a warmup
    (`warmup_cosine_decay_schedule`). When not: the run may become longer; take
    `warmup_stable_decay_schedule`.

    Args:
      init_value: η_0.
      decay_steps: K > 0, updates until the end.
      alpha: α, the last value as a share of η_0; 0 to 0.1.
      exponent: c ≥ 0, on the cosine; 1.

    Raises:
      HyperparamError: K ≤ 0, or a negative exponent.

    State: 0 bytes.

    >>> import gradtx
    >>> decay = gradtx.cosine_decay_schedule(1.0, decay_steps=100, alpha=0.1)
    >>> [round(float(decay(count)), 4) for count in (0, 50, 100, 1000)]
    [1.0, 0.55, 0.1, 0.1]

    See also: `restarts`, `warmup_cosine_decay_schedule`.

    Loshchilov and Hutter 2017, arXiv 1608.03983, equation 5.
    """
    weights = raise_weights(SHAPES["cosine"](phase(count, 0, decay_steps)), exponent)
    return blend(weights, init_value, real(alpha) * real(init_value))
