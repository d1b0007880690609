"""Outer optimizers (DiLoCo, MuLoCo, Snoo): a step from where H inner steps of R replicas led.

P are the last synchronised parameters, θ_r those of replica r, u its inner update:

    θ_r ← θ_r + u                                            at every step
    Δ = mean over r of P − θ_r                               at every H-th step, in float32
    P ← P + outer optimizer(Δ),   θ_r ← α θ_r + (1 − α) P    after that, α = 0 or `merge`

With `delay` the last assignment happens so many steps later. With fragments each of them has its
own step modulo H. The slots of the inner optimizer stay with their replica.
"""

import contextlib
import functools
import operator
from typing import Annotated, Any, NamedTuple

import jax
from jax.core import Tracer

from gradtx.compose.choosing import run_in_place_if
from gradtx.compose.transformation import (
    GradientTransformation,
    TransformationLike,
    as_transformation,
    definition,
)
from gradtx.compose.treewise import treewise
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import PRECISE, Fraction, Params, Updates
from gradtx.engine.layouts import vary
from gradtx.engine.rules import Child
from gradtx.engine.selector import leaves_of
from gradtx.storage.codec import CodecName
from gradtx.tree.casts import float_copy, zeros
from gradtx.tree.known_shardings import without_shardings
from gradtx.tree.manual_axes import is_checked, varying
from gradtx.tree.maps import make_leaves, map_leaves
from gradtx.wrappers.outer_exchange import (
    AxisNames,
    Exchange,
    check_bound,
    make_exchange,
    mean_over_replicas,
)
from gradtx.wrappers.outer_fragments import (
    Fragments,
    check_fragments,
    choose_fragments,
    fragment_offsets,
    lay_over,
)
from gradtx.wrappers.outer_replicas import (
    check_replicas,
    first_replica,
    init_inner,
    update_inner,
)


class Outer(NamedTuple):
    """The synchronised parameters and the slots of both optimizers."""

    params: Annotated[Any, PRECISE]
    """P, in float32 at least."""
    error: Any
    """What the codes of earlier outer gradients left out; None without error feedback."""
    inner: Any
    outer_optimizer: Any
    """Its slots; with fragments those of each fragment, `fragment_0`, `fragment_1`, ..."""


class Synced(NamedTuple):
    """The slots that a synchronisation changes, of one fragment."""

    params: Any
    error: Any
    slots: Any


class Fragment(NamedTuple):
    """The facts of one fragment at one step."""

    outer_optimizer: GradientTransformation
    exchange: Exchange
    params: Any
    """The parameters before the step."""
    step: Any
    every: int
    offset: int
    """The step, modulo `every`, of its synchronisation."""
    delay: int
    merge: Any


def _init(
    params,
    *,
    inner: GradientTransformation,
    outer_optimizer: GradientTransformation,
    fragments: Fragments | None,
    error_feedback: bool,
    exchange: Exchange,
) -> Outer:
    start = params
    if exchange.replicas is not None:
        check_replicas(params, exchange.replicas)
        start = first_replica(params)
    synced = make_leaves(float_copy, start)
    error = make_leaves(zeros, params) if error_feedback else None
    leaves = leaves_of(synced)
    with _hidden_shardings(exchange):
        slots = [
            outer_optimizer.init_slots(leaves.narrow(synced, chosen))
            for chosen in choose_fragments(fragments, leaves_of(params))
        ]
    inner_slots = init_inner(inner, params, exchange.replicas)
    return Outer(synced, error, inner_slots, _held(slots, fragments))


def _hidden_shardings(exchange: Exchange) -> Any:
    # P lacks the first axis of the parameters, whose shardings are known by path.
    return contextlib.nullcontext() if exchange.replicas is None else without_shardings()


def _outer(
    updates,
    slots: Outer,
    params,
    step,
    *,
    inner: GradientTransformation,
    outer_optimizer: GradientTransformation,
    every: int,
    fragments: Fragments | None,
    delay: int,
    merge,
    exchange: Exchange,
    extra,
):
    check_bound(exchange.axis_names)
    updates, inner_slots = update_inner(
        inner, updates, slots.inner, params, step, extra, exchange.replicas
    )
    leaves, states = leaves_of(params), _states(slots.outer_optimizer, fragments)
    synced, error = slots.params, slots.error
    offsets = fragment_offsets(fragments, every)
    for number, chosen in enumerate(choose_fragments(fragments, leaves)):
        if not any(chosen):  # more fragments than layers
            continue
        args = (params, updates, synced, error)
        own_params, own_updates, *own = (leaves.narrow(one, chosen) for one in args)
        one = Fragment(
            outer_optimizer, exchange, own_params, step, every, offsets[number], delay, merge
        )
        own_updates, new = _run_fragment(one, own_updates, Synced(*own, states[number]))
        updates = lay_over(updates, own_updates, chosen)
        synced = lay_over(synced, new.params, chosen)
        error = None if error is None else lay_over(error, new.error, chosen)
        states[number] = new.slots
    return updates, Outer(synced, error, inner_slots, _held(states, fragments))


def _states(slots: Any, fragments: Fragments | None) -> list[Any]:
    """The slots of the outer optimizer, those of each fragment."""
    return [slots] if fragments is None else list(slots.values())


def _held(states: list[Any], fragments: Fragments | None) -> Any:
    """These slots as the state holds them."""
    if fragments is None:
        return states[0]
    return {f"fragment_{number}": one for number, one in enumerate(states)}


def _run_fragment(one: Fragment, updates: Updates, own: Synced) -> tuple[Any, Synced]:
    """Synchronise a fragment where it is due; let the result arrive where that is due."""
    due = one.step % one.every == one.offset
    if one.delay == 0:
        updates, own = _run_if(due, functools.partial(_synchronise_now, one), updates, own)
        return updates, own
    (own,) = _run_if(due, functools.partial(_synchronise, one, updates), own)
    sent = one.step - one.delay
    arrives = (sent % one.every == one.offset) & (sent > 0)
    (updates,) = _run_if(arrives, functools.partial(_arrive, one, own.params), updates)
    return updates, own


def _synchronise_now(one: Fragment, updates: Updates, own: Synced) -> tuple[Any, Synced]:
    (own,) = _synchronise(one, updates, own)
    return (*_arrive(one, own.params, updates), own)


def _synchronise(one: Fragment, updates: Updates, own: Synced) -> tuple[Synced]:
    """Exchange the outer gradients, and move the synchronised parameters by their mean."""
    deltas = map_leaves(_delta, own.params, one.params, updates)
    mean, error = mean_over_replicas(one.exchange, deltas, own.error)
    count = _rounds(one.step, one.every, one.offset)
    with _hidden_shardings(one.exchange):
        moves, slots = one.outer_optimizer.update_slots(mean, own.slots, own.params, count, {})[:2]
    return (Synced(map_leaves(operator.add, own.params, moves), error, slots),)


def _delta(synced, param, update):
    return synced - (param + update)


def _rounds(count: Any, every: int, offset: int) -> Any:
    """The number of synchronisations of a fragment up to a step."""
    return (count - offset) // every + int(offset > 0)


def _arrive(one: Fragment, synced: Params, updates: Updates) -> tuple[Any]:
    """The updates that lead each replica to the synchronised parameters."""
    return (map_leaves(_to_synced, updates, one.params, synced, merge=one.merge),)


def _to_synced(update, param, synced, *, merge):
    return merge * update + (1 - merge) * (synced - param)


def _run_if(condition: Any, then: Any, *args: Any) -> tuple[Any, ...]:
    """`then(*args)` where a condition holds, else the arguments."""
    if isinstance(condition, Tracer) and is_checked():
        # The branches of a conditional have one type: that over which either result differs.
        args = _vary_as(args, jax.eval_shape(then, *args))
        then = functools.partial(_varied, then, args)
    return run_in_place_if(condition, then, _unchanged, *args)


def _unchanged(*args):
    return args


def _varied(then: Any, like: Any, *args: Any) -> Any:
    return _vary_as(then(*args), like)


def _vary_as(tree: Any, like: Any) -> Any:
    """Arrays with types that differ over at least the mesh axes of others."""
    return jax.tree.map(lambda one, other: vary(one, varying(other)), tree, like)


def _children(
    slots: Outer,
    count,
    *,
    inner: GradientTransformation,
    outer_optimizer: GradientTransformation,
    every: int,
    fragments: Fragments | None,
) -> list[Child]:
    each = zip(
        _states(slots.outer_optimizer, fragments), fragment_offsets(fragments, every), strict=True
    )
    return [
        Child(inner, slots.inner, count),
        *(Child(outer_optimizer, one, _rounds(count, every, offset)) for one, offset in each),
    ]


def _evaluate(params, slots: Outer, count, *, exchange: Exchange):
    """P, in the dtypes of the parameters."""
    like = params if exchange.replicas is None else first_replica(params)
    return map_leaves(_second, like, slots.params)


def _second(param, synced):
    return synced


@definition
def outer(
    inner: TransformationLike,
    outer_optimizer: TransformationLike,
    every: int,
    *,
    fragments: Fragments | None = None,
    delay: int = 0,
    merge: Fraction = 0.0,
    compress: CodecName | None = None,
    error_feedback: bool = False,
    replicas: int | None = None,
    axis_name: AxisNames = None,
) -> GradientTransformation:
    r"""DOC"""
    tx = as_transformation(outer_optimizer)
    _check_steps(every, delay)
    check_fragments(fragments)
    _check_outer_optimizer(tx)
    exchange = make_exchange(axis_name, replicas, compress)
    if error_feedback and exchange.codec is None:
        raise HyperparamError(
            "outer: error_feedback=True needs codes that leave something out: set compress='int8', "
            "or leave error_feedback out"
        )
    return treewise(
        _init,
        _outer,
        children=_children,
        evaluate=_evaluate,
        needs_params=True,
        exchange=exchange,
    )


def _check_steps(every: int, delay: int) -> None:
    if every < 1:
        raise HyperparamError(
            f"outer: every = {every!r} is not a number of inner steps; give a whole number from 1 "
            "on, 30 for example"
        )
    if not 0 <= delay < every:
        raise HyperparamError(
            f"outer: delay = {delay!r} must be from 0 to every - 1 = {every - 1}: a result arrives "
            "before the next one is sent"
        )


def _check_outer_optimizer(tx: GradientTransformation) -> None:
    """Raise where the outer optimizer needs what a synchronisation does not have."""
    lacking = sorted(tx.needs - {"params"})
    if lacking:
        raise HyperparamError(
            f"outer: outer_optimizer = {tx.name} needs {', '.join(f'{one}=' for one in lacking)}, "
            "and an outer gradient comes alone, without a loss: take sgd(0.7, momentum=0.5, "
            "nesterov=True), or another method that needs gradients only"
        )
