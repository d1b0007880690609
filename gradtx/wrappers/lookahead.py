"""Lookahead: k fast steps forward, one slow step back."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.compose.transformation import GradientTransformation, TransformationLike, definition
from gradtx.compose.treewise import treewise
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import PRECISE, Fraction, Params
from gradtx.engine.rules import Child
from gradtx.tree.casts import float_copy
from gradtx.tree.maps import choose, make_leaves, map_leaves


class LookaheadParams(NamedTuple):
    """Both sets of parameters as one tree, the form that Optax has; `lookahead` takes plain
    parameters too.
    """

    fast: Params
    """For the gradients."""
    slow: Params
    """For evaluation."""

    @classmethod
    def init_synced(cls, params: Params) -> "LookaheadParams":
        """Fast and slow parameters that start alike; the slow ones are copies, so that both may be
        donated.
        """
        return cls(params, jax.tree.map(jnp.array, params))


class Lookahead(NamedTuple):
    """The slow parameters, None where the caller holds them, and the slots of the fast optimizer."""

    slow: Annotated[Any, PRECISE]
    fast_optimizer: Any


def _init(params: Any, *, fast_optimizer: GradientTransformation) -> Lookahead:
    paired = isinstance(params, LookaheadParams)
    return Lookahead(
        None if paired else make_leaves(float_copy, params),
        fast_optimizer.init_slots(params.fast if paired else params),
    )


def _update(
    updates: Any,
    slots: Lookahead,
    params: Any,
    step: Any,
    *,
    fast_optimizer: GradientTransformation,
    sync_period: int,
    slow_step_size: Any,
    reset_state: bool,
    extra: Any,
) -> Any:
    paired = isinstance(params, LookaheadParams)
    fast, slow = params if paired else (params, slots.slow)
    since_reset = (step - 1) % sync_period + 1 if reset_state else step
    updates, kept = fast_optimizer.update_slots(
        updates, slots.fast_optimizer, fast, since_reset, extra
    )
    due = step % sync_period == 0
    if reset_state:
        kept = choose(due, fast_optimizer.init_slots(fast), kept)
    updates, move, slow = map_leaves(
        _synced, updates, fast, slow, like=(0, 2, 2), due=due, slow_step_size=slow_step_size
    )
    return (
        (LookaheadParams(updates, move), Lookahead(None, kept))
        if paired
        else (updates, Lookahead(slow, kept))
    )


def _inside(
    slots: Lookahead,
    count: Any,
    *,
    fast_optimizer: GradientTransformation,
    sync_period: int,
    reset_state: bool,
) -> list[Child]:
    return [
        Child(fast_optimizer, slots.fast_optimizer, count % sync_period if reset_state else count)
    ]


def _slow(params: Any, slots: Lookahead, count: Any) -> Any:
    return map_leaves(_as_slow, params, slots.slow) if slots.slow is not None else params.slow


def _as_slow(fast: jax.Array, slow: jax.Array) -> jax.Array:
    return slow


def _synced(
    update: jax.Array,
    fast: jax.Array,
    slow: jax.Array,
    *,
    due: jax.Array,
    slow_step_size: jax.Array,
) -> Any:
    """The update of the fast parameters, that of the slow ones, and the new slow ones."""
    move = jnp.where(due, slow_step_size * (fast + update - slow), jnp.zeros_like(slow))
    return jnp.where(due, slow - fast + move, update), move, slow + move


@definition
def lookahead(
    fast_optimizer: TransformationLike,
    sync_period: int,
    slow_step_size: Fraction,
    reset_state: bool = False,
) -> GradientTransformation:
    r"""Let an optimizer run ahead for k steps, then go a part of the way with slow parameters, and
    go on from there.

    For every array, fast φ, slow θ and u of one shape: φ ← φ + u at every step; at every k-th then
    θ ← θ + α (φ − θ), φ ← θ.

    Plain parameters are the fast ones; the slow ones stand in the state: evaluate at
    `eval_params(tx, state, params)`. Right after a k-th step both are the same. Optax's form works
    too: with `LookaheadParams(fast, slow)` in the place of the parameters, gradients are those of
    `fast`, and the updates are a pair as well; `lookahead` must then be the first of its chain.

    When: an optimizer that swings around its path, or whose numbers were not tuned. When not: the
    learning rate decays to 0, or another average is in use.

    Args:
      fast_optimizer: gives u.
      sync_period: k ≥ 1, fast steps to one slow step; 5 to 10.
      slow_step_size: α in [0, 1]; 0.5 to 0.8.
      reset_state: start the fast optimizer anew after each k-th step, its step count and so its
        schedules included.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter (θ), 0 with `LookaheadParams`, and that of the fast optimizer.

    >>> import gradtx, jax.numpy as jnp
    >>> w, seen = jnp.array(8.0), []
    >>> tx = gradtx.lookahead(gradtx.sgd(1.0), sync_period=2, slow_step_size=0.5)
    >>> state = tx.init(w)
    >>> for _ in range(4):  # 8 − 2, then halfway back to 8; 7 − 2, then halfway back to 7
    ...     updates, state = tx.update(jnp.array(1.0), state, w)
    ...     w = gradtx.apply_updates(w, updates)
    ...     seen.append(float(w))
    >>> seen
    [7.0, 7.0, 6.0, 6.0]

    See also: `params_ema`, `params_average`, `schedule_free`, `ema_nesterov`.

    Zhang, Lucas, Hinton and Ba 2019, arXiv 1907.08610, Algorithm 1.
    """
    check_period("lookahead", sync_period)
    return treewise(
        _init,
        _update,
        slow_step_size=slow_step_size,
        sync_period=sync_period,
        reset_state=reset_state,
        fast_optimizer=fast_optimizer,
        needs_params=True,
        changes_structure=True,
        children=_inside,
        evaluate=_slow,
    )


def check_period(name: str, sync_period: int) -> None:
    """Raise unless the period is a whole number of at least one step."""
    if isinstance(sync_period, bool) or not isinstance(sync_period, int) or sync_period < 1:
        raise HyperparamError(
            f"{name}: sync_period = {sync_period!r} is no number of steps; give a whole number from 1 on"
        )
