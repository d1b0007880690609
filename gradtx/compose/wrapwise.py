"""`wrapwise`: a wrapper, a transformation around another one."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from gradtx.compose.arguments import sort_arguments
from gradtx.compose.choosing import attach, detach
from gradtx.compose.transformation import (
    GradientTransformation,
    TransformationLike,
    as_transformation,
    definition,
)
from gradtx.definition.types import Hyperparam
from gradtx.engine.rules import Child, TreeRule, select_kwargs
from gradtx.tree.maps import choose

Function = Callable[..., Any]


class Member(NamedTuple):
    """The transformation inside a wrapper, at this step: `update` runs it."""

    tx: GradientTransformation
    slots: Any
    count: Any
    """The updates that it has made: what its clock says."""
    extra: Mapping[str, Any] = {}
    """The extra arguments of `update`, by name."""
    gate: jax.Array | None = None
    """Whether this step changes anything, as a wrapper further out decided; None: it does."""
    stats: Mapping[str, Any] = {}
    """After `update`: what its leaf rules concluded of the whole tree, by member and name."""

    def update(
        self,
        updates: Any,
        params: Any,
        *,
        gate: Any = None,
        extra: Mapping[str, Any] | None = None,
    ) -> "tuple[Any, Member]":
        """Run one step of the member: its updates, and the member after the step.

        Where `gate` is False the member keeps its slots, and its updates mean nothing.
        """
        updates, slots, stats = self.tx.watch_slots(
            updates,
            self.slots,
            params,
            self.count + 1,
            self.extra if extra is None else extra,
            self.both(gate),
        )
        return updates, self._replace(slots=slots, stats=stats)

    def both(self, gate: Any) -> Any:
        """This gate and the one of wrappers further out; None where neither is set."""
        if gate is None or self.gate is None:
            return self.gate if gate is None else gate
        return gate & self.gate

    def evaluate(self, params: Any) -> Any:
        """The parameters to evaluate, as `eval_params` gives them for the member."""
        from gradtx.training.eval_params import evaluate_slots

        return evaluate_slots(self.tx, self.slots, params, self.count)


def wrapwise(
    inner: TransformationLike,
    init: Function | None,
    update: Function,
    *,
    member_params: Function | None = None,
    evaluate: Function | None = None,
    report: Function | None = None,
    clock: str | None = None,
    leads: bool = False,
    slot: str | None = None,
    extra: Sequence[str] = (),
    needs_params: bool = False,
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
      evaluate: `evaluate(params, own, *, inner, ...)`: the parameters to evaluate, by
        `inner.evaluate(params)`; None: those of the member.
      report: `report(own)`: a dict of scalars that `metrics` shows.
      clock: the field of the own slots that counts the updates of the member, where that does not
        act at every step. The rule adds to it.
      leads: whether that count is the state's own where the wrapper is the whole definition.
      slot: the name that the own slots are stored under; None: that of the builder.
      extra: what the caller must pass to `update` besides, such as "value".
      needs_params: whether a call without parameters is an error.
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
    functions |= {"evaluate": evaluate, "report": report}
    found = sort_arguments("wrapwise", functions, arguments, ("inner", "extra", "gate", *extra))
    settings = {**functions, "clock": clock, "leads": leads, "slot": slot}
    settings |= {"extra": tuple(extra), "needs_params": needs_params, "wrapper": found.name}
    return _wrapwise(as_transformation(inner), settings, found.hyperparams, found.options)


@functools.partial(definition, name="wrapwise")
def _wrapwise(
    inner: TransformationLike,
    settings: Mapping[str, Any],
    hyperparams: Mapping[str, Hyperparam],
    options: Mapping[str, Any],
) -> TreeRule:
    """The definition that `wrapwise` makes: the member and the hyperparameters are data."""
    from gradtx.training.eval_params import reads_out

    member = as_transformation(inner)
    reads = reads_out(member) if settings["evaluate"] is not None else False
    return TreeRule(
        settings["wrapper"],
        _init,
        _update,
        hyperparams,
        {"inner": member, "settings": settings, "arguments": options},
        settings["needs_params"],
        settings["extra"],
        children=_children,
        evaluate=_evaluate if reads else None,
        report=None if settings["report"] is None else _report,
        own_clock=settings["leads"] or (settings["clock"] is None and member.own_clock),
    )


def _slot(settings: Mapping[str, Any]) -> str:
    return settings["slot"] or settings["wrapper"]


def _init(
    params: Any, *, inner: Any, settings: Any, arguments: Any, **hyperparams: Any
) -> dict[str, Any]:
    given = {**arguments, **hyperparams}
    seen = settings["member_params"]
    slots = inner.init_slots(params if seen is None else seen(params, **select_kwargs(seen, given)))
    if settings["init"] is None:
        return slots
    own = settings["init"](params, **select_kwargs(settings["init"], given))
    return attach(slots, _slot(settings), own)


def _detached(slots: Any, settings: Mapping[str, Any]) -> tuple[Any, Any]:
    if settings["init"] is None:
        return slots, None
    return detach(slots, _slot(settings))


def _count(own: Any, settings: Mapping[str, Any], count: Any) -> Any:
    return count if settings["clock"] is None else getattr(own, settings["clock"])


def _update(
    updates: Any,
    slots: Any,
    params: Any,
    step: Any,
    *,
    inner: Any,
    settings: Any,
    arguments: Any,
    extra: Any,
    gate: Any,
    **hyperparams: Any,
) -> Any:
    held, own = _detached(slots, settings)
    member = Member(inner, held, _count(own, settings, step - 1), extra, gate)
    rule = settings["update"]
    given = {**arguments, **hyperparams, **extra, "inner": member, "extra": extra, "gate": gate}
    asked = select_kwargs(rule, given)
    updates, member, new = rule(updates, own, params, step, **asked)
    if settings["init"] is None:
        return updates, member.slots
    new = new if "gate" in asked else choose(gate, new, own)
    return updates, attach(member.slots, _slot(settings), new)


def _children(slots: Any, count: Any, *, inner: Any, settings: Any) -> list[Child]:
    held, own = _detached(slots, settings)
    return [Child(inner, held, _count(own, settings, count))]


def _evaluate(
    params: Any,
    slots: Any,
    count: Any,
    *,
    inner: Any,
    settings: Any,
    arguments: Any,
    **hyperparams: Any,
) -> Any:
    held, own = _detached(slots, settings)
    member = Member(inner, held, _count(own, settings, count))
    asked = select_kwargs(settings["evaluate"], {**arguments, **hyperparams, "inner": member})
    return settings["evaluate"](params, own, **asked)


def _report(slots: Any, *, settings: Any) -> Any:
    return settings["report"](slots[_slot(settings)])
