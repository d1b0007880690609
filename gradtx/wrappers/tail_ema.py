r"""Tail averaging: an exponential moving average (EMA) of the last parameters of a run.

e ← θ                            until update s, and then after every k-th update
e ← e + c (θ − e)                c = 1 − (1 − 1/τ)^k
θ + b (e − θ)                    the parameters to evaluate, b per path or role
"""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.compose.treewise import treewise
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import PRECISE, Period, Start
from gradtx.engine.clock import whole
from gradtx.tree.maps import map_leaves
from gradtx.wrappers.blending import Blend, By, Groups, blend_average, blend_groups, init_average
from gradtx.wrappers.guard import Steps


class Tail(NamedTuple):
    """The average of the last parameters; None where there is none."""

    ema: Annotated[Any, PRECISE]


def _init(params, *, groups: Groups) -> Tail:
    return Tail(init_average(params, groups))


def tail_share(step: jax.Array, horizon: Any, start: Any, every: Any) -> jax.Array:
    """The weight of the new parameters in the average after update number `step`.

    It is 1 up to `start`, and then 0 between averaged steps.
    """
    number = jnp.asarray(step).astype(jnp.result_type(float))
    start, every = whole(start), whole(every)
    begun = number > start
    # `start` may be infinite, and inf % every would be nan.
    due = jnp.where(begun, number - start, 0.0) % every == 0
    # 1 − (1 − 1/τ)^k, which keeps all digits of a small 1/τ.
    share = -jnp.expm1(every * jnp.log1p(-1 / jnp.asarray(horizon, number.dtype)))
    return jnp.where(begun, jnp.where(due, share, 0.0), 1.0)


def move_average(average: jax.Array, value: jax.Array, share: jax.Array) -> jax.Array:
    """e + c (θ − e); shares of 0 and 1 select exactly, where 0 times inf would be nan."""
    moved = jnp.where(share == 1, value, average + share * (value - average))
    return jnp.where(share == 0, average, moved)


def _move(average, param, update, *, share):
    return move_average(average, param + update, share)


def _tail_ema(updates, slots: Tail, params, step, *, horizon, start, every):
    share = tail_share(step, horizon, start, every)
    return updates, Tail(map_leaves(_move, slots.ema, params, updates, share=share))


def _evaluate(params, slots: Tail, count, *, groups: Groups, blend):
    return blend_average(params, slots.ema, groups, blend)


@definition
def tail_ema(
    horizon: Steps,
    start: Start = 0,
    every: Period = 1,
    blend: Blend = 1.0,
    by: By = "path",
    total_steps: int | None = None,
) -> GradientTransformation:
    r"""Tail averaging: an exponential moving average (EMA) of the last parameters.

    Updates pass through. Until update s the average e is θ itself. From then on e ← e + (θ − e)/τ,
    with θ the parameters after the update; e and θ have one shape. Training does not see e. The
    parameters to evaluate are θ + b (e − θ): `eval_params(tx, state, params)` returns them. Put it
    last in a chain, so that θ + u are the parameters of the next step.

    One blend b serves all arrays, or each its own, by a regular expression on its path:
    `blend={"^block_0/": 0.9, "kernel$": 0.65}`. The first expression that matches wins. An array
    that none matches has no average, no slot, and is evaluated as it is trained.

    When: the end of a run at a rate above 0: the average takes over a part of the cooldown, so that
    the schedule may end higher; tune both together. When not: the rate decays to 0 anyway; or the
    mean of all steps with equal weights is wanted (`params_average`). Averaged parameters with inf
    or nan stay in e: put `guard` around the whole chain.

    Args:
      horizon: τ ≥ 1, updates that the average reaches back; 100 to 180 of 2600.
      start: s ≥ 0, a whole number of updates; three quarters of the run.
      every: k ≥ 1, a whole number of updates from one change of e to the next, which then counts
        for k; 1 to 16 give the same average, and 16 costs less where XLA runs a branch.
      blend: b in [0, 1]; 1: e itself, 0: θ; 0.3 to 1. Or a dict of regular expressions and numbers.
      by: the text in which the expressions are searched: "path", or "role", the name of the role of
        an array: "a hidden matrix", "an embedding", "a head", "a norm or bias", "a vector", "a
        router", "a convolution"; so `blend={"matrix": 0.65, "head": 0.6, "norm|vector": 1.0}`.
      total_steps: the updates of the run, where they are known: a horizon that is longer than its
        tail is then an error.

    Raises:
      HyperparamError: a number out of its range; `start` or `every` is not a whole number; a
        horizon longer than the tail of the run; a key that is not a text, a schedule for one key.
      SelectionError: at `init`, an expression that matches no array.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter that has an average (e).

    >>> import gradtx, jax.numpy as jnp
    >>> w = {"head": jnp.array(8.0), "norm": jnp.array(8.0)}
    >>> tail = gradtx.tail_ema(horizon=2, start=2, blend={"head": 0.5})
    >>> tx = gradtx.chain(gradtx.sgd(1.0), tail)
    >>> state = tx.init(w)
    >>> for _ in range(3):  # 7, 6, 5; e = 6 after two updates, then 5.5
    ...     updates, state = tx.update({"head": jnp.array(1.0), "norm": jnp.array(1.0)}, state, w)
    ...     w = gradtx.apply_updates(w, updates)
    >>> {name: float(one) for name, one in gradtx.eval_params(tx, state, w).items()}
    {'head': 5.25, 'norm': 5.0}

    See also: `params_average`, `params_ema`, `anchor_gradient`.

    The records of track 3 of KellerJordan/modded-nanogpt on GitHub, pull requests 325 to 341.
    """
    check_horizon("tail_ema", horizon, start, total_steps)
    groups, shares = blend_groups("tail_ema", blend, by)
    return treewise(
        _init, _tail_ema, evaluate=_evaluate, needs_params=True, groups=groups, blend=shares
    )


def check_horizon(name: str, horizon: Any, start: Any, total_steps: int | None) -> None:
    """Raise where a horizon is longer than the tail of a run, as far as numbers are known."""
    known = all(isinstance(one, int | float) for one in (horizon, start))
    if total_steps is None or not known or horizon <= total_steps - start:
        return
    raise HyperparamError(
        f"{name}: horizon = {horizon!r} is longer than the tail of the run, total_steps − start = "
        f"{total_steps - start!r} updates, so the average would not leave its start: give a "
        f"horizon of at most a third of the tail"
    )
