"""`metrics`: training metrics from the state, for logging."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import DictKey

from gradtx._lazy import upper
from gradtx.compose.states import checked_state
from gradtx.compose.transformation import (
    GradientTransformation,
    TransformationLike,
    as_transformation,
)
from gradtx.definition.schedule import Schedule, value_at
from gradtx.definition.spelling import suggest
from gradtx.definition.types import Array, State
from gradtx.training.hyperparams import Address, leaves_by_address, moving_values, short_names
from gradtx.training.reports import reports


class _Message(str):
    """The text of a `KeyError`, which prints its text as `repr` does: in quotes."""

    __slots__ = ()
    __repr__ = str.__str__


class Metrics(dict[str, Array]):
    """A dict of scalars by name, and a pytree; the error of a missing name says how to add it."""

    def __missing__(self, name: str) -> Array:
        raise KeyError(_Message(f"metrics: {_missing(name, self)}"))


def _flatten(logs: Metrics) -> tuple[list[tuple[Any, Any]], tuple[str, ...]]:
    names = tuple(sorted(logs))
    return [(DictKey(name), logs[name]) for name in names], names


def _unflatten(names: tuple[str, ...], values: Any) -> Metrics:
    return Metrics(zip(names, values, strict=True))


jax.tree_util.register_pytree_with_keys(Metrics, _flatten, _unflatten)


def _missing(name: str, logs: Metrics) -> str:
    """Why a metric is missing, and the cure."""
    several = [one for one in logs if one.endswith(f".{name}")]
    if several:
        return f"several members report {name!r}: read {' or '.join(map(repr, several))}"
    holds = f"it has {', '.join(map(repr, logs)) or 'none'}"
    if str(name).split("/")[0] in (*upper("gradtx.wrappers.with_metrics").NORMS, "clip_rate"):
        return (
            f"{name!r} is not in this state: wrap the optimizer in gradtx.with_metrics(...), which "
            f"stores norms and the clip rate; {holds}"
        )
    hint = suggest(str(name), logs)
    return f"there is no {name!r}{hint} I{holds[1:]}" if hint else f"no {name!r}; {holds}"


def metrics(tx: TransformationLike, state: Any) -> dict[str, Array]:
    """Training metrics from the state, by name (for logging, TensorBoard, W&B).

    They are the learning rates, also constant ones; every other hyperparameter that is a schedule
    or belongs to `tunable`, with the value for the next update of its member; the norms and the
    clip rate of `with_metrics`; the counters of `guard`, `accumulate` and `dynamic_loss_scale`; and
    the scalars that methods store for the whole tree, for example the scale of `reduce_on_plateau`
    or the estimate of `prodigy`. Each name is the shortest unambiguous one.

    The values are arrays on the device from the last update. Only schedules are computed, and
    nothing waits for the device until you read a value. You may call it inside jit, and return the
    result. It is a dict and a pytree of a class of its own: to mix it with a plain dict in one
    `jax.tree.map`, or to carry it in a `scan` that starts from one, write `dict(metrics(...))`.

    Args:
      tx: the definition; a transformation of Optax's reports nothing.
      state: its state.

    Raises:
      StateError: the state belongs to another definition.
      KeyError: where you read a name that it does not have; the text names the cure, for
        `grad_norm` the wrapper `with_metrics`.

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
        return Metrics()
    state = checked_state(tx.name, state)
    shown = {address: _as_array(one) for address, one in shown_hyperparams(tx, state).items()}
    values = {**reports(tx, state.slots, state.count), **shown}
    return Metrics({name: values[address] for name, address in short_names(values).items()})


def _as_array(value: Any) -> Array:
    """A number of Python's in the default dtype, as schedules return it; arrays as they are."""
    return jnp.asarray(value, None if hasattr(value, "dtype") else jnp.result_type(float))


def shown_hyperparams(tx: GradientTransformation, state: State | None) -> dict[Address, Any]:
    """The learning rates, and every other hyperparameter that moves, with their values now.

    Without a state, with those at the first update.
    """
    everything = leaves_by_address(tx, Schedule)
    shown = {
        address: value_at(value, 0)
        for address, value in everything.items()
        if isinstance(value, Schedule) or address[-1].endswith("learning_rate")
        if state is None or not isinstance(value, Schedule)
    }
    moving = {} if state is None else moving_values(tx, state)
    order = [address for address in everything if address in shown or address in moving]
    return {address: (shown | moving)[address] for address in order}
