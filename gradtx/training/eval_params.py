"""`eval_params`: the parameters to evaluate and to save, where others are trained."""

from typing import Any

from gradtx.compose.states import checked_state
from gradtx.compose.transformation import (
    TransformationLike,
    as_transformation,
    check_foreign,
)
from gradtx.definition.types import Params
from gradtx.tree.variables import with_variables, without_variables


def eval_params(tx: TransformationLike, state: Any, params: Params) -> Params:
    """The parameters to evaluate, and to save for use: the average or the slow copy that a method
    keeps beside those it trains.

    One read-out for `schedule_free`, `params_ema`, `params_average`, `ema_nesterov`, `lookahead`,
    `sam` and whatever holds them: chains, masks, partitions and wrappers. Where several members of
    a chain have such parameters, the last one counts. A definition that has none gives `params`
    back. Each array has the dtype of its parameter.

    Args:
      tx: the definition. What a transformation of Optax's keeps is not seen; Optax has functions of
        its own for that.
      state: its state.
      params: the parameters as trained; from Flax's nnx `nnx.state(model, nnx.Param)`. Where they
        are `LookaheadParams`, those of `lookahead` are its slow ones.

    Raises:
      StateError: the state belongs to another definition or to other parameters; or one of gradtx's
        members stands inside a chain of Optax's, where its definition cannot be seen.

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.array(8.0)
    >>> tx = gradtx.chain(gradtx.sgd(1.0), gradtx.params_ema(0.5))
    >>> updates, state = tx.update(jnp.array(4.0), tx.init(w), w)
    >>> w = gradtx.apply_updates(w, updates)
    >>> float(w), float(gradtx.eval_params(tx, state, w))
    (4.0, 6.0)
    """
    tx = as_transformation(tx)
    if tx.is_plain:
        check_foreign(tx.name, state)
        return params
    state = checked_state(tx.name, state)
    plain = without_variables(params)
    result = tx.evaluate_slots(without_variables(state.slots), plain, state.count)
    return params if result is plain else with_variables(result, params)
