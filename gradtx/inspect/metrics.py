"""`metrics`: training metrics from the state, for logging."""

from typing import Any

from gradtx.compose.states import checked_state
from gradtx.compose.transformation import (
    TransformationLike,
    as_transformation,
)
from gradtx.definition.types import Array
from gradtx.training.hyperparams import moving_values, short_names
from gradtx.training.reports import reports


def metrics(tx: TransformationLike, state: Any) -> dict[str, Array]:
    """Training metrics from the state, by name (for logging, TensorBoard, W&B).

    They are the norms and the clip rate of `with_metrics`; the counters of `guard`, `accumulate`
    and `dynamic_loss_scale`; every hyperparameter that is a schedule or belongs to `tunable`, with
    the value for the next update of its member; and the scalars that methods store for the whole
    tree, for example the scale of `reduce_on_plateau` or the estimate of `prodigy`. Each name is
    the shortest unambiguous one.

    The values are arrays on the device from the last update. Only schedules are computed, and
    nothing waits for the device until you read a value. You may call it inside jit.

    Args:
      tx: the definition; a transformation of Optax's reports nothing.
      state: its state.

    Raises:
      StateError: the state belongs to another definition.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.guard(gradtx.with_metrics(gradtx.sgd(gradtx.linear_schedule(1.0, 0.0, 10))))
    >>> w = jnp.array([3.0, 4.0])
    >>> _, state = tx.update(w, tx.init(w), w)
    >>> for name, value in gradtx.metrics(tx, state).items():
    ...     if "steps" not in name:
    ...         print(name, round(float(value), 2))
    guarded_norm 5.0
    grad_norm 5.0
    param_norm 5.0
    update_norm 5.0
    learning_rate 0.9

    See also: `with_metrics`, `hyperparams`, `summary`.
    """
    tx = as_transformation(tx)
    if tx.is_plain:
        return {}
    state = checked_state(tx.name, state)
    values = {**reports(tx, state.slots, state.count), **moving_values(tx, state)}
    return {name: values[address] for name, address in short_names(values).items()}
