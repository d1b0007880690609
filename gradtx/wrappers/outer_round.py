"""One synchronisation of an outer optimizer: exchange, outer step, and the way back of replicas."""

import contextlib
import functools
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from gradtx.compose.choosing import run_in_place_if
from gradtx.compose.transformation import GradientTransformation
from gradtx.definition.types import Params, Updates
from gradtx.engine.layouts import vary
from gradtx.tree.known_shardings import without_shardings
from gradtx.tree.manual_axes import is_checked, varying
from gradtx.tree.maps import map_leaves
from gradtx.wrappers.outer_exchange import Exchange, mean_over_replicas


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


def hidden_shardings(exchange: Exchange) -> Any:
    # P lacks the first axis of the parameters, whose shardings are known by path.
    return contextlib.nullcontext() if exchange.replicas is None else without_shardings()


def run_fragment(one: Fragment, updates: Updates, own: Synced) -> tuple[Any, Synced]:
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
    count = count_rounds(one.step, one.every, one.offset)
    with hidden_shardings(one.exchange):
        moves, slots = one.outer_optimizer.update_slots(mean, own.slots, own.params, count, {})[:2]
    return (Synced(map_leaves(operator.add, own.params, moves), error, slots),)


def _delta(synced, param, update):
    # Replicas along a first axis have one P.
    return jnp.broadcast_to(synced, param.shape) - (param + update)


def count_rounds(count: Any, every: int, offset: int) -> Any:
    """The number of synchronisations of a fragment up to a step."""
    return (count - offset) // every + int(offset > 0)


def _arrive(one: Fragment, synced: Params, updates: Updates) -> tuple[Any]:
    """The updates that lead each replica to the synchronised parameters."""
    return (map_leaves(_to_synced, updates, one.params, synced, merge=one.merge),)


def _to_synced(update, param, synced, *, merge):
    return merge * update + (1 - merge) * (jnp.broadcast_to(synced, param.shape) - param)


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
