"""`metrics`: the numbers of a training that its state holds, by name."""

from typing import Any

from gradtx.compose.transformation import (
    TransformationLike,
    as_transformation,
    checked_state,
)
from gradtx.definition.types import Array
from gradtx.training.hyperparams import moving_values, short_names
from gradtx.training.reports import reports


def metrics(tx: TransformationLike, state: Any) -> dict[str, Array]:
    """The numbers of a training that its state holds, by name: norms, clip rate, skipped steps,
    learning rate, whatever members report.

    Shown are the norms of `with_metrics`, the counters of `guard`, `accumulate` and
    `dynamic_loss_scale`, every hyperparameter that is a schedule or is kept by `tunable`, as the
    next update of its member will find it, and the scalars that methods keep for the whole tree,
    such as the scale of `reduce_on_plateau` or the estimate of `prodigy`. Names are as short as is
    unambiguous.

    The values are arrays on the device, as the last update left them: nothing is computed but
    schedules, and nothing waits for the device until a value is read. It may be called inside jit.

    Args:
      tx: the definition; a transformation of Optax's reports nothing.
      state: its state.

    Raises:
      StateError: the state belongs to another definition.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.guard(gradtx.with_metrics(gradtx.sgd(gradtx.linear_schedule(1.0, 0.0, 10))))
    >>> w = jnp.array([3.0, 4.0])
    >>> _, state = tx.update(w, tx.init(w), w)
    >>> {name: round(float(value), 2) for name, value in gradtx.metrics(tx, state).items() if "steps" not in name}
    {'guarded_norm': 5.0, 'grad_norm': 5.0, 'param_norm': 5.0, 'update_norm': 5.0, 'learning_rate':
    0.9}

    See also: `with_metrics`, `hyperparams`, `summary`.
    """
    tx = as_transformation(tx)
    if tx.is_plain:
        return {}
    state = checked_state(tx, state)
    values = {**reports(tx, state.slots, state.count), **moving_values(tx, state)}
    return {name: values[address] for name, address in short_names(values).items()}
