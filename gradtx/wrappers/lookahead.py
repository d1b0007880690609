"""Lookahead: k fast steps forward, one slow step back.

With fast parameters φ, slow parameters θ, and u from the fast optimizer at φ:

    φ ← φ + u                                 at every step
    θ ← θ + α (φ − θ),   φ ← θ                at every k-th step, after that
"""

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
    """Fast and slow parameters as one tree, as in Optax; plain parameters work too."""

    fast: Params
    """For the gradients."""
    slow: Params
    """For evaluation."""

    @classmethod
    def init_synced(cls, params: Params) -> "LookaheadParams":
        """Equal fast and slow parameters; the slow ones are copies, so that both may be donated."""
        return cls(params, jax.tree.map(jnp.array, params))


class Lookahead(NamedTuple):
    """The slow parameters, None where the caller holds them, and the slots of the optimizer."""

    slow: Annotated[Any, PRECISE]
    fast_optimizer: Any


def _init(params, *, fast_optimizer: GradientTransformation) -> Lookahead:
    if isinstance(params, LookaheadParams):
        return Lookahead(None, fast_optimizer.init_slots(params.fast))
    return Lookahead(make_leaves(float_copy, params), fast_optimizer.init_slots(params))


def _lookahead(
    updates,
    slots: Lookahead,
    params,
    step,
    *,
    fast_optimizer: GradientTransformation,
    sync_period: int,
    slow_step_size,
    reset_state: bool,
    extra,
):
    is_pair = isinstance(params, LookaheadParams)
    fast, slow = params if is_pair else (params, slots.slow)
    # With `reset_state` the fast optimizer counts 1, …, k again and again.
    count = (step - 1) % sync_period + 1 if reset_state else step
    updates, fast_slots = fast_optimizer.update_slots(
        updates, slots.fast_optimizer, fast, count, extra
    )
    due = step % sync_period == 0
    if reset_state:
        fast_slots = choose(due, fast_optimizer.init_slots(fast), fast_slots)
    updates, slow_updates, slow = map_leaves(
        _sync, updates, fast, slow, like=(0, 2, 2), due=due, slow_step_size=slow_step_size
    )
    if is_pair:
        return LookaheadParams(updates, slow_updates), Lookahead(None, fast_slots)
    return updates, Lookahead(slow, fast_slots)


def _sync(update, fast, slow, *, due, slow_step_size):
    """The updates of the fast and of the slow parameters, and the new slow parameters."""
    move = jnp.where(due, slow_step_size * (fast + update - slow), jnp.zeros_like(slow))
    # At a k-th step the fast parameters move to the new slow ones, slow + move.
    return jnp.where(due, slow - fast + move, update), move, slow + move


def _children(
    slots: Lookahead,
    count,
    *,
    fast_optimizer: GradientTransformation,
    sync_period: int,
    reset_state: bool,
) -> list[Child]:
    count = count % sync_period if reset_state else count
    return [Child(fast_optimizer, slots.fast_optimizer, count)]


def _evaluate(params, slots: Lookahead, count):
    return params.slow if slots.slow is None else map_leaves(_second, params, slots.slow)


def _second(fast, slow):
    return slow


@definition
def lookahead(
    fast_optimizer: TransformationLike,
    sync_period: int,
    slow_step_size: Fraction,
    reset_state: bool = False,
) -> GradientTransformation:
    r"""Lookahead: k fast steps, then one slow step towards their end.

    The fast optimizer then continues from the slow parameters. For every array, fast φ, slow θ and
    u of one shape: φ ← φ + u at every step; at every k-th then θ ← θ + α (φ − θ), φ ← θ.

    Plain parameters are the fast ones, and the state holds the slow ones; evaluate at
    `eval_params(tx, state, params)`. Right after a k-th step both are equal. The form of Optax
    works too: pass `LookaheadParams(fast, slow)` as the parameters, and the gradients of `fast`.
    The updates are then a pair as well, and `lookahead` must be the first member of its chain.

    When: an optimizer that oscillates around its path, or whose hyperparameters are not tuned. When
    not: the learning rate decays to 0, or another average is in use.

    Args:
      fast_optimizer: gives u.
      sync_period: k ≥ 1, fast steps to one slow step; 5 to 10.
      slow_step_size: α in [0, 1]; 0.5 to 0.8.
      reset_state: restart the fast optimizer after each k-th step, its step count and schedules
        included.

    Raises:
      HyperparamError: a number out of its range.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter (θ), 0 with `LookaheadParams`, and that of the fast optimizer.

    >>> import gradtx, jax.numpy as jnp
    >>> w, outputs = jnp.array(8.0), []
    >>> tx = gradtx.lookahead(gradtx.sgd(1.0), sync_period=2, slow_step_size=0.5)
    >>> state = tx.init(w)
    >>> for _ in range(4):  # 8 − 2, then halfway back to 8; 7 − 2, then halfway back to 7
    ...     updates, state = tx.update(jnp.array(1.0), state, w)
    ...     w = gradtx.apply_updates(w, updates)
    ...     outputs.append(float(w))
    >>> outputs
    [7.0, 7.0, 6.0, 6.0]

    See also: `params_ema`, `params_average`, `schedule_free`, `ema_nesterov`.

    Zhang, Lucas, Hinton and Ba 2019, arXiv 1907.08610, Algorithm 1.
    """
    check_period("lookahead", sync_period)
    return treewise(
        _init,
        _lookahead,
        children=_children,
        evaluate=_evaluate,
        needs_params=True,
        changes_structure=True,
    )


def check_period(name: str, sync_period: int) -> None:
    """Raise unless the period is a whole number of at least one step."""
    if sync_period < 1:
        raise HyperparamError(
            f"{name}: sync_period = {sync_period!r} is not a number of steps; give a whole number "
            "from 1 on"
        )
