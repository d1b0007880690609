"""`wrapwise`: a wrapper, a transformation around another one."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gradtx.compose.arguments import sort_arguments
from gradtx.compose.transformation import (
    GradientTransformation,
    TransformationLike,
    as_transformation,
    definition,
)
from gradtx.definition.types import ArrayHyperparam
from gradtx.engine.program import BoundRule
from gradtx.engine.wrap_rule import Member, WrapRule

__all__ = ["Member", "wrapwise"]

Function = Callable[..., Any]


def wrapwise(
    inner: TransformationLike,
    init: Function | None,
    update: Function,
    *,
    member_params: Function | None = None,
    member_slots: Function | None = None,
    evaluate: Function | None = None,
    own_evaluation: bool = False,
    report: Function | None = None,
    overrides: Function | None = None,
    clock: str | None = None,
    leads: bool | None = None,
    slot: str | None = None,
    slot_fields: tuple[str, ...] | None = None,
    extra: Sequence[str] = (),
    needs_params: bool = False,
    is_transparent: bool = False,
    **arguments: Any,
) -> GradientTransformation:
    """A transformation from a wrapping rule: one that runs another transformation.

    - `init(params, *, ...) -> Own`: what the wrapper itself keeps, a NamedTuple or a dict. It is
      stored beside the slots of `inner`, under the wrapper's name.
    - `update(updates, own, params, step, *, inner, ...) -> (updates, inner, own)`: one step. It
      runs the member by `updates, inner = inner.update(updates, params, gate=...)`, at most once,
      and returns the member that this gives.

    The engine does the rest: where a wrapper further out leaves a step out, the wrapper's own slots
    stay as they were; a rule that asks for `gate` does this itself.

    Args:
      inner: the transformation inside; the rule receives it as `inner`, a `Member`.
      init: makes the wrapper's own slots; None: it keeps nothing.
      update: one step.
      member_params: `member_params(params, *, ...)`: the parameters as the member sees them at
        `init`; None: as they are.
      member_slots: `member_slots(slots, params, *, ...)`: the slots that the member made, as the
        state holds them; None: as they are. The rule restores them before it runs the member.
      evaluate: `evaluate(params, own, *, inner, ...)`: the parameters to evaluate, by
        `inner.evaluate(params)`; None: those of the member.
      own_evaluation: whether `evaluate` returns an average that the own slots hold.
      report: `report(own)`: a dict of scalars that `metrics` shows.
      overrides: `overrides(own)`: the hyperparameters of the member that the own slots hold, by
        name.
      clock: the field of the own slots that counts the updates of the member, where that does not
        act at every step. The rule adds to it.
      leads: whether that count is the state's own where the wrapper is the whole definition. None:
        as the member says where the wrapper has no clock; False: the state counts every call.
      slot: the name that the own slots are stored under; None: that of the builder.
      slot_fields: the fields of the own slots, a dict, where wrappers of one kind share the name.
      extra: what the caller must pass to `update` besides, such as "value".
      needs_params: whether a call without parameters is an error.
      is_transparent: whether the rule returns the updates of the member unchanged, so that a last
        rule that adds them to the parameters may run within the member.
      **arguments: what the functions ask for by name: numbers, arrays and schedules where the
        annotation is an array, static options otherwise.

    Raises:
      GradtxError: a function asks for a name that it is not given, or the reverse.

    >>> import gradtx, jax.numpy as jnp
    >>> def halved(updates, own, params, step, *, inner, factor):
    ...     updates, inner = inner.update(updates, params)
    ...     return factor * updates, inner, own
    >>> tx = gradtx.wrapwise(gradtx.trace(0.9), None, halved, factor=0.5)
    >>> tx.update(jnp.array(4.0), tx.init(jnp.array(0.0)))[0].item()
    2.0

    See also: `treewise`, `leafwise`.
    """
    functions = {"init": init, "update": update, "member_params": member_params}
    functions |= {"member_slots": member_slots}
    functions |= {"evaluate": evaluate, "report": report, "overrides": overrides}
    found = sort_arguments("wrapwise", functions, arguments, ("inner", "extra", "gate", *extra))
    settings = {
        "name": found.name,
        "update_tree": update,
        "init_tree": init,
        "evaluate_tree": evaluate,
        "report_tree": report,
        "member_params": member_params,
        "member_slots": member_slots,
        "is_transparent": is_transparent,
        "own_evaluation": own_evaluation,
        "find_overrides": overrides,
        "extra": tuple(extra),
        "needs_params": needs_params,
        "clock": clock,
        "own_clock": leads,
        "slot": slot or found.name,
        "slot_fields": slot_fields,
    }
    return _wrapwise(as_transformation(inner), settings, found.hyperparams, found.options)


@functools.partial(definition, name="wrapwise")
def _wrapwise(
    inner: TransformationLike,
    settings: Mapping[str, Any],
    hyperparams: Mapping[str, ArrayHyperparam],
    options: Mapping[str, Any],
) -> BoundRule:
    """The definition that `wrapwise` makes: the member and the hyperparameters are data."""
    member = as_transformation(inner)
    leads = settings["own_clock"]
    if leads is None:  # without a clock of its own, a wrapper follows the clock of its member
        leads = settings["clock"] is None and member.own_clock
    values = {**settings, "own_clock": leads, "members": {"inner": member}}
    return BoundRule((), WrapRule(options=options, **values), hyperparams)
