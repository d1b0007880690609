r"""Anchor gradient: gradients beyond the weights, on the far side of their average.

y = w + g (w − e)                the parameters that the caller holds
w⁺ = w + u                       u: of the inner transformation at w, for the gradient at y
e⁺ = e + c (w⁺ − e)              c as in `tail_ema`: 1 until update s, so that e = w = y until then
y⁺ = w⁺ + g⁺ (w⁺ − e⁺)           g⁺: of the next step

The state holds e and g. With D = y − e the rule computes no difference of large numbers:

w − e = D / (1 + g),   e⁺ − e = c (D / (1 + g) + u)
y⁺ − y = u + g⁺ (1 − c) (D / (1 + g) + u) − g D / (1 + g)
"""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.transformation import GradientTransformation, TransformationLike, definition
from gradtx.compose.wrapwise import Member, wrapwise
from gradtx.definition.schedule import Schedule
from gradtx.definition.types import PRECISE, NonNegative, Period, Start
from gradtx.schedules.join import shift_schedule
from gradtx.tree.maps import map_leaves
from gradtx.wrappers.blending import Blend, By, Groups, blend_average, blend_groups, init_average
from gradtx.wrappers.guard import Steps
from gradtx.wrappers.tail_ema import check_horizon, move_average, tail_share


class Anchor(NamedTuple):
    """The average of the weights, and the distance of the caller's parameters from the weights."""

    ema: Annotated[Any, PRECISE]
    gain: jax.Array
    """g of the last update, in distances w − e."""


def _init(params, *, groups: Groups) -> Anchor:
    # At first e = w = y, whatever g is.
    return Anchor(init_average(params, groups), jnp.zeros((), jnp.result_type(float)))


def _weights(params: Any, own: Anchor) -> Any:
    """w for the arrays that have an average, the parameters themselves for the others."""
    return map_leaves(_weight, params, own.ema, gain=own.gain)


def _weight(param, average, *, gain):
    return param if average is None else average + (param - average) / (1 + gain)


def _ahead(update, param, average, gain):
    """w − e and w⁺ − e."""
    distance = (param - average) / (1 + gain)
    return distance, distance + update


def _move(update, param, average, *, gain, next_gain, share):
    """y⁺ − y."""
    if average is None:
        return update
    distance, ahead = _ahead(update, param, average, gain)
    return update + next_gain * (1 - share) * ahead - gain * distance


def _follow(average, update, param, *, gain, share):
    """e⁺."""
    return move_average(average, average + _ahead(update, param, average, gain)[1], share)


def _anchor_gradient(
    updates, own: Anchor, params, step, *, inner: Member, horizon, start, every, gain
):
    updates, inner = inner.update(updates, _weights(params, own))
    share = tail_share(step, horizon, start, every)
    next_gain = jnp.asarray(gain).astype(own.gain.dtype)
    ema = map_leaves(_follow, own.ema, updates, params, gain=own.gain, share=share)
    updates = map_leaves(
        _move, updates, params, own.ema, gain=own.gain, next_gain=next_gain, share=share
    )
    return updates, inner, Anchor(ema, next_gain)


def _evaluate(params, own: Anchor, *, inner: Member, groups: Groups, blend):
    weights = inner.evaluate(_weights(params, own))
    return blend_average(weights, own.ema, groups, blend)


@definition
def anchor_gradient(
    inner: TransformationLike,
    horizon: Steps,
    start: Start = 0,
    gain: NonNegative = 0.45,
    every: Period = 1,
    blend: Blend = 1.0,
    by: By = "path",
    total_steps: int | None = None,
) -> GradientTransformation:
    r"""Anchor gradient: gradients beyond the weights, seen from their moving average.

    For every array, all of one shape, with the parameters y: y = w + g (w − e), w⁺ = w + u, e⁺ = e
    + c (w⁺ − e), where u is the update of the inner transformation, unchanged, at the weights w and
    for the gradient at y. e is the tail average of `tail_ema`: until update s it is w itself, and
    y = w; then c = 1/τ.

    The caller holds y, where gradients are taken. For evaluation, `eval_params(tx, state, params)`
    is w + b (e − w): w = e + (y − e)/(1 + g) with b = 0, the average with b = 1. Arrays that no
    expression of `blend` matches have no average: there y = w.

    When: the last quarter of a run that is read out at a tail average, at a rate above 0, to need
    fewer steps. When not: parameters in 16 bits, which cannot hold y − e: put `master_weights`
    outside; or batch norm statistics, which belong to y, cannot be computed again.

    Steps that `inner` skips count as steps of size 0: put `guard` outside.

    Args:
      inner: gives u, learning rate and weight decay included. It sees the weights w.
      horizon: τ ≥ 1, updates that the average reaches back; 100.
      start: s ≥ 0, a whole number of updates; four fifths of the run.
      gain: g ≥ 0, in distances w − e; 0.45, after a ramp of 100 updates that begins with the
        average or a little later:

            gain = gradtx.linear_schedule(0.0, 0.45, 100, transition_begin=2100)

        The value of a schedule at count k belongs to the gradient of update k + 1.
      every: k ≥ 1, a whole number of updates from one change of e to the next; see `tail_ema`.
      blend: b in [0, 1], or a dict of regular expressions and numbers; see `tail_ema`.
      by: the text in which the expressions are searched, "path" or "role"; see `tail_ema`.
      total_steps: the updates of the run, where they are known: a horizon that is longer than its
        tail is then an error.

    Raises:
      HyperparamError: a number out of its range; `start` or `every` is not a whole number; a
        horizon longer than the tail of the run; a key of `blend` that is not a text, a schedule for
        one key.
      SelectionError: at `init`, an expression that matches no array.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter that has an average (e), and that of `inner`; one number for the
    whole tree, g of y.

    >>> import gradtx, jax.numpy as jnp
    >>> y = jnp.array(8.0)
    >>> tx = gradtx.anchor_gradient(gradtx.sgd(1.0), horizon=2, gain=0.5, blend=0.0)
    >>> state = tx.init(y)
    >>> # w = 7, e = 7.5, y = 7 − 0.25; w = 6, e = 6.75, y = 6 − 0.375
    >>> for _ in range(2):
    ...     updates, state = tx.update(jnp.array(1.0), state, y)
    ...     y = gradtx.apply_updates(y, updates)
    >>> float(y), float(gradtx.eval_params(tx, state, y))
    (5.625, 6.0)

    See also: `tail_ema`, `ema_nesterov`.

    The record of track 3 of KellerJordan/modded-nanogpt on GitHub, pull request 377.
    """
    check_horizon("anchor_gradient", horizon, start, total_steps)
    groups, shares = blend_groups("anchor_gradient", blend, by)
    # The update at count t moves the parameters to the point of the next gradient.
    gain = shift_schedule(gain, 1) if isinstance(gain, Schedule) else gain
    return wrapwise(
        inner,
        _init,
        _anchor_gradient,
        evaluate=_evaluate,
        own_evaluation=True,
        needs_params=True,
        gain=gain,
        groups=groups,
        blend=shares,
    )
