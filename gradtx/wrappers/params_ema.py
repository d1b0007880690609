r"""Exponential moving average (EMA) of the parameters: a ← β a + (1 − β) (θ + u)."""

from typing import NamedTuple

import jax.numpy as jnp

from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import DTypeLike, Fraction, Precise
from gradtx.transforms.moments import average
from gradtx.tree.casts import float_copy


class ParamsAverage(NamedTuple):
    """An exponential moving average of parameters."""

    ema: Precise


def _init(param, *, accumulator_dtype: DTypeLike | None) -> ParamsAverage:
    start = float_copy(param)
    return ParamsAverage(start if accumulator_dtype is None else start.astype(accumulator_dtype))


def _params_ema(grad, slots: ParamsAverage, param, step, *, decay, warmup: bool):
    decay = jnp.minimum(decay, (1 + step) / (10 + step)) if warmup else decay
    return grad, ParamsAverage(average(slots.ema, param + grad, decay))


def _evaluate(param, slots: ParamsAverage):
    return slots.ema


@definition
def params_ema(
    decay: Fraction, warmup: bool = False, accumulator_dtype: DTypeLike | None = None
) -> GradientTransformation:
    r"""Exponential moving average (EMA) of the parameters.

    a ← β a + (1 − β) (θ + u); updates pass through. a and θ have one shape; a starts at θ. Put it
    last in a chain, so that θ + u are the parameters of the next step. Read a by `eval_params(tx,
    state, params)`, or from the state by name, `state.slots["params_ema"].ema`.

    When: evaluation; while the learning rate is high, the average of the last steps is better than
    the last one. When not: the learning rate decays to 0 anyway; gradients are to be smoothed
    (`ema`); or inf and nan occur, which an average never forgets: put `guard` around the whole
    chain.

    Args:
      decay: β in [0, 1]; the average reaches back about 1/(1 − β) steps; 0.99 to 0.9999. Any other
        warmup is a schedule: `lambda k: 1 - 1 / (1 + k) ** 0.75` at count k = t − 1, or a schedule
        that is 0 at first, while a is to follow the parameters.
      warmup: β_t = min(β, (1 + t)/(10 + t)), t = 1, 2, 3, ...: a short reach at first, so that a
        soon forgets its start. Without it the first parameters have the weight β^t after t steps.
      accumulator_dtype: dtype of a; None: the parameter's, float32 at least. In bfloat16, a no
        longer changes with a decay above 0.99.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter (a).

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array(8.0)
    >>> tx = gradtx.chain(gradtx.sgd(1.0), gradtx.params_ema(0.5))
    >>> state = tx.init(w)
    >>> for g in (4.0, 2.0):  # w = 4, then 2; the average 6, then 4
    ...     updates, state = tx.update(jnp.array(g), state, w)
    ...     w = gradtx.apply_updates(w, updates)
    >>> float(w), float(gradtx.eval_params(tx, state, w))
    (2.0, 4.0)

    See also: `params_average`, `schedule_free`, `ema`.

    Polyak and Juditsky 1992, SIAM Journal on Control and Optimization 30, for averaging; the warmup
    is from TensorFlow's ExponentialMovingAverage.
    """
    return leafwise(_init, _params_ema, evaluate=_evaluate, needs_params=True)
