"""A mean of the parameters of many steps, beside their training."""

import math
import numbers
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.leafwise import leafwise
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import DTypeLike, Interval, NonNegative, Numeric, Precise
from gradtx.tree.casts import float_copy

Steps = Annotated[Numeric, Interval(1.0)]
"""A number of steps, at least one."""


class Mean(NamedTuple):
    """A mean of parameters."""

    mean: Precise


class Averaged(NamedTuple):
    """What the mean is of."""

    n: jax.Array
    """How many steps' parameters it holds; 0 before the first."""


def _init(param: jax.Array, *, accumulator_dtype: DTypeLike | None) -> Mean:
    start = float_copy(param)
    return Mean(start if accumulator_dtype is None else start.astype(accumulator_dtype))


def _init_shared() -> Averaged:
    return Averaged(jnp.zeros((), jnp.int32))


def _weigh(
    found: None,
    shared: Averaged,
    step: jax.Array,
    *,
    start: jax.Array,
    every: jax.Array,
    horizon: Any = math.inf,
) -> Any:
    """The weight of this step's parameters in the mean: 1 before its start, 0 between the steps
    that count.
    """
    begun = step >= start
    due = begun & (jnp.where(begun, step - start, 0.0) % every == 0)
    n = jnp.where(begun, shared.n + due, 0)
    weight = jnp.where(
        n == 0, 1.0, jnp.where(due, 1 / jnp.minimum(jnp.maximum(n, 1), horizon), 0.0)
    )
    return {"weight": weight}, Averaged(n)


def _update(
    grad: jax.Array, slots: Mean, param: jax.Array, step: jax.Array, *, weight: jax.Array
) -> Any:
    value = param + grad
    moved = jnp.where(weight == 1, value, slots.mean + weight * (value - slots.mean))
    return grad, Mean(jnp.where(weight == 0, slots.mean, moved))


def _mean_of(param: jax.Array, slots: Mean) -> jax.Array:
    return slots.mean


@definition
def params_average(
    start: NonNegative = 0,
    every: Steps = 1,
    horizon: Steps | None = None,
    accumulator_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    r"""Keep the mean of the parameters of many steps, and leave the updates alone: stochastic
    weight averaging, tail averaging.

    a ← a + (θ + u − a) / min(n, H), with n = 1, 2, 3, ... how many were averaged, this one
    included; a and θ have one shape. Averaged are the parameters after the updates s, s + k, s + 2
    k, ... (from the first update on, where s = 0). Until the first of them a is θ + u itself, so
    that evaluating there is always right; between them a stands still. Without a horizon H all
    weigh the same; with it, those of about the last H weigh most.

    Put it last in a chain, so that θ + u are the parameters of the next step; read it by
    `eval_params(tx, state, params)`, or from the state by name,
    `state.slots["params_average"]["mean"]`. The mean is taken in float32 at least; of bfloat16
    parameters it holds digits that they do not, for θ + u goes in before it is rounded.

    When: the end of a run, at a learning rate that is constant, high or cyclic (SWA: one step of
    each cycle); or the whole of a run with H.
    When not: the learning rate decays to 0 anyway; or batch norm statistics, which belong to θ,
    cannot be taken again at a. Parameters with
    inf or nan that are averaged stay in a: put `guard` around the whole chain.

    Args:
      start: s ≥ 0, a whole number of updates; half to three quarters of the run. Before it, a
        follows the parameters, and a start that is moved ahead of the count begins a new mean.
      every: k ≥ 1, a whole number of updates; for a cyclic learning rate the length of a cycle.
        Steps are told apart up to 2²⁴ in float32.
      horizon: H ≥ 1, in averaged steps; 100 to 1000; None: all of them.
      accumulator_dtype: dtype of a; None: the parameter's, float32 at least. In bfloat16, which has
        three digits, a stands still once (θ − a)/n is below a 500th of a.

    Raises:
      HyperparamError: a number out of its range; `start` or `every` is no whole number.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter (a), and n for the whole tree.

    >>> import gradtx, jax.numpy as jnp
    >>> w, seen = jnp.array(8.0), []
    >>> tx = gradtx.chain(gradtx.sgd(1.0), gradtx.params_average(start=2))
    >>> state = tx.init(w)
    >>> for _ in range(4):  # w = 7, 6, 5, 4; from the second on their mean
    ...     updates, state = tx.update(jnp.array(1.0), state, w)
    ...     w = gradtx.apply_updates(w, updates)
    ...     seen.append(float(gradtx.eval_params(tx, state, w)))
    >>> seen
    [7.0, 6.0, 5.5, 5.0]

    See also: `params_ema`, `schedule_free`.

    Izmailov et al. 2018, arXiv 1803.05407, Algorithm 1, with ŵ the parameters after update s;
    Polyak and Juditsky 1992, SIAM Journal on Control and Optimization 30, for the mean of a whole
    run."""
    _check_whole("start", start)
    _check_whole("every", every)
    return leafwise(
        _init,
        _update,
        start=start,
        every=every,
        **{} if horizon is None else {"horizon": horizon},
        accumulator_dtype=accumulator_dtype,
        conclude=_weigh,
        init_tree_slots=_init_shared,
        evaluate=_mean_of,
        needs_params=True,
    )


def _check_whole(name: str, value: Any) -> None:
    """Raise where a number that is known now counts no updates; `start` may be infinite: not yet."""
    if isinstance(value, bool) or (
        isinstance(value, numbers.Real) and math.isfinite(value) and value % 1 != 0
    ):
        raise HyperparamError(
            f"params_average: {name} = {value!r} is no number of updates; give a whole number"
        )
