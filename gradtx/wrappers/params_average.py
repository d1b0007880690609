r"""Parameter averaging: the mean of the parameters of many steps.

a ← a + (θ + u − a) / min(n, H)          n = 1, 2, 3, ...: the number of averaged parameters
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import DTypeLike, Period, Precise, Start
from gradtx.engine.clock import next_count, whole
from gradtx.tree.casts import float_copy
from gradtx.wrappers.guard import Steps


class Mean(NamedTuple):
    """A mean of parameters."""

    mean: Precise


class Averaged(NamedTuple):
    """The counter of a mean."""

    n: jax.Array
    """The number of steps in the mean; 0 before the first."""


def _init(param, *, accumulator_dtype: DTypeLike | None) -> Mean:
    start = float_copy(param)
    return Mean(start if accumulator_dtype is None else start.astype(accumulator_dtype))


def _init_tree_slots() -> Averaged:
    return Averaged(jnp.zeros((), jnp.int32))


def _conclude(
    measures, tree_slots: Averaged, step, *, start, every, horizon=math.inf
) -> tuple[dict[str, jax.Array], Averaged]:
    """The weight of the new parameters in the mean: 1 before `start`, 0 between averaged steps."""
    start, every = whole(start), whole(every)
    begun = step >= start
    # `start` may be infinite, and inf % every would be nan.
    due = begun & (jnp.where(begun, step - start, 0.0) % every == 0)
    n = jnp.where(begun, next_count(tree_slots.n, due), 0)
    share = 1 / jnp.minimum(jnp.maximum(n, 1).astype(step.dtype), horizon)
    weight = jnp.where(n == 0, 1.0, jnp.where(due, share, 0.0))
    return {"weight": weight}, Averaged(n)


def _params_average(grad, slots: Mean, param, step, *, weight):
    value = param + grad
    # Weights of 1 and 0 select exactly: a weight of 0 times inf would be nan.
    moved = jnp.where(weight == 1, value, slots.mean + weight * (value - slots.mean))
    return grad, Mean(jnp.where(weight == 0, slots.mean, moved))


def _evaluate(param, slots: Mean):
    return slots.mean


@definition
def params_average(
    start: Start = 0,
    every: Period = 1,
    horizon: Steps | None = None,
    accumulator_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    r"""Stochastic weight averaging (SWA): the mean of the parameters of many steps.

    Updates pass through. a ← a + (θ + u − a) / min(n, H), with n = 1, 2, 3, ... the number of
    averaged parameters, this one included; a and θ have one shape. The mean includes the parameters
    after the updates s, s + k, s + 2 k, ... (from the first update on, where s = 0). Until the
    first of them a is θ + u itself, so that evaluation at a is always valid; between them a is
    constant. Without a horizon H all weigh the same; with it, about the last H weigh most.

    Put it last in a chain, so that θ + u are the parameters of the next step. Read a by
    `eval_params(tx, state, params)`, or from the state by name,
    `state.slots["params_average"]["mean"]`. The mean is computed in float32 at least. For bfloat16
    parameters it has more digits than they have, because θ + u enters before it is rounded.

    When: the end of a run, at a learning rate that is constant, high or cyclic (SWA: one step of
    each cycle); or the whole of a run with H. When not: the learning rate decays to 0 anyway; or
    batch norm statistics, which belong to θ, cannot be computed again at a. Averaged parameters
    with inf or nan stay in a: put `guard` around the whole chain.

    Args:
      start: s ≥ 0, a whole number of updates; half to three quarters of the run. Before it, a
        follows the parameters. A start that moves ahead of the count begins a new mean.
      every: k ≥ 1, a whole number of updates; for a cyclic learning rate the length of a cycle.
        Steps are distinct up to 2²⁴ in float32.
      horizon: H ≥ 1, in averaged steps; 100 to 1000; None: all of them.
      accumulator_dtype: dtype of a; None: the parameter's, float32 at least. In bfloat16, which has
        three digits, a no longer changes once (θ − a)/n is below a 500th of a.

    Raises:
      HyperparamError: a number out of its range; `start` or `every` is not a whole number.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter (a), and n for the whole tree.

    >>> import gradtx, jax.numpy as jnp
    >>> w, outputs = jnp.array(8.0), []
    >>> tx = gradtx.chain(gradtx.sgd(1.0), gradtx.params_average(start=2))
    >>> state = tx.init(w)
    >>> for _ in range(4):  # w = 7, 6, 5, 4; from the second on their mean
    ...     updates, state = tx.update(jnp.array(1.0), state, w)
    ...     w = gradtx.apply_updates(w, updates)
    ...     outputs.append(float(gradtx.eval_params(tx, state, w)))
    >>> outputs
    [7.0, 6.0, 5.5, 5.0]

    See also: `params_ema`, `schedule_free`.

    Izmailov et al. 2018, arXiv 1803.05407, Algorithm 1, with ŵ the parameters after update s;
    Polyak and Juditsky 1992, SIAM Journal on Control and Optimization 30, for the mean of a whole
    run.
    """
    return leafwise(
        _init,
        _params_average,
        conclude=_conclude,
        init_tree_slots=_init_tree_slots,
        evaluate=_evaluate,
        needs_params=True,
    )
