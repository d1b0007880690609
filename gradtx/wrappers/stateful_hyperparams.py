"""Hyperparameters that follow a stateful schedule, whose states are kept beside them."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from gradtx.compose.pairs import accepted
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.compose.wrapwise import Member, wrapwise
from gradtx.definition.errors import HyperparamError
from gradtx.definition.show import show
from gradtx.definition.types import Params, Updates
from gradtx.schedules.stateful import StatefulSchedule
from gradtx.tree.maps import choose

Schedules = Mapping[str, StatefulSchedule]


def is_stateful(value: Any) -> bool:
    """Whether a value is a `StatefulSchedule`; a class of them is not, and a transformation."""
    is_other = isinstance(value, type | GradientTransformation)
    return not is_other and isinstance(value, StatefulSchedule)


def value_of(name: str, schedule: StatefulSchedule, state: Any, extra: Mapping[str, Any]) -> Any:
    """The value of a stateful schedule at one state; an error where it is not one number."""
    value = schedule(state, **accepted(schedule.__call__, extra))
    if not isinstance(value, int | float) and getattr(value, "shape", None) != ():
        raise HyperparamError(
            f"the stateful schedule of {name!r} returned {show(value)}, and must return one number"
        )
    return value


def _init(params: Params, *, schedules: Schedules) -> dict[str, Any]:
    return {name: schedule.init() for name, schedule in schedules.items()}


def _follow(
    updates: Updates,
    own: Mapping[str, Any],
    params: Params,
    step: Any,
    *,
    inner: Member,
    extra: Mapping[str, Any],
    schedules: Schedules,
) -> tuple[Any, Member, dict[str, Any]]:
    """Write the values of this step where the member reads its hyperparameters."""
    held, states = inner.slots["hyperparams"], {}
    values = dict(held)
    for name, schedule in schedules.items():
        value = value_of(name, schedule, own[name], extra)
        values[name] = choose(inner.gate, jnp.asarray(value, held[name].dtype), held[name])
        states[name] = schedule.update(own[name], **accepted(schedule.update, extra))
    inner = inner._replace(slots={**inner.slots, "hyperparams": values})
    updates, inner = inner.update(updates, params)
    return updates, inner, states


@definition
def follow_states(inner: GradientTransformation, schedules: Schedules) -> GradientTransformation:
    """`inner`, a `tunable`, whose named hyperparameters follow schedules with states."""
    return wrapwise(
        inner,
        _init,
        _follow,
        slot="hyperparams_states",
        slot_fields=tuple(schedules),
        leads=False,
        schedules=schedules,
    )
