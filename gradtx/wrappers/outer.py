"""Outer optimizers (DiLoCo, MuLoCo, Snoo): a step from where H inner steps of R replicas led.

P are the last synchronised parameters, θ_r those of replica r, u its inner update:

    θ_r ← θ_r + u                                            at every step
    Δ = mean over r of P − θ_r                               at every H-th step, in float32
    P ← P + outer optimizer(Δ),   θ_r ← α θ_r + (1 − α) P    after that, α = 0 or `merge`

With `delay` the last assignment happens so many steps later. With fragments each of them has its
own step modulo H. The slots of the inner optimizer stay with their replica.
"""

import functools
from typing import Annotated, Any, NamedTuple

import jax

from gradtx.compose.transformation import (
    GradientTransformation,
    TransformationLike,
    as_transformation,
    definition,
)
from gradtx.compose.treewise import treewise
from gradtx.definition.errors import HyperparamError
from gradtx.definition.types import PRECISE, Fraction
from gradtx.engine.axis_names import is_bound
from gradtx.engine.layouts import vary
from gradtx.engine.rules import Child
from gradtx.engine.selector import leaves_of
from gradtx.storage.codec import CodecName
from gradtx.tree.casts import float_copy, zeros
from gradtx.tree.manual_axes import is_checked
from gradtx.tree.maps import make_leaves, map_leaves
from gradtx.wrappers.outer_exchange import (
    AxisNames,
    Exchange,
    check_bound,
    make_exchange,
)
from gradtx.wrappers.outer_fragments import (
    Fragments,
    check_fragments,
    choose_fragments,
    fragment_count,
    fragment_offsets,
    lay_over,
)
from gradtx.wrappers.outer_replicas import (
    check_replicas,
    first_replica,
    init_inner,
    update_inner,
)
from gradtx.wrappers.outer_round import (
    Fragment,
    Synced,
    count_rounds,
    hidden_shardings,
    run_fragment,
)


class Outer(NamedTuple):
    """The synchronised parameters and the slots of both optimizers."""

    params: Annotated[Any, PRECISE]
    """P, in float32 at least."""
    error: Any
    """What the codes of earlier outer gradients left out; None without error feedback."""
    inner_optimizer: Any
    outer_optimizer: Any
    """Its slots; with fragments those of each fragment, `fragment_0`, `fragment_1`, ..."""


def _init(
    params,
    *,
    inner_optimizer: GradientTransformation,
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
    with hidden_shardings(exchange):
        slots = [
            outer_optimizer.init_slots(leaves.narrow(synced, chosen))
            for chosen in choose_fragments(fragments, leaves_of(params))
        ]
    inner_slots = init_inner(inner_optimizer, params, exchange.replicas)
    if is_checked() and all(map(is_bound, exchange.axis_names)):
        # A counter may soon differ over replicas, and a loop expects the type with which it began.
        inner_slots = jax.tree.map(functools.partial(vary, names=exchange.axis_names), inner_slots)
    return Outer(synced, error, inner_slots, _held(slots, fragments))


def _outer(
    updates,
    slots: Outer,
    params,
    step,
    *,
    inner_optimizer: GradientTransformation,
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
        inner_optimizer, updates, slots.inner_optimizer, params, step, extra, exchange.replicas
    )
    leaves, states = leaves_of(params), _states(slots.outer_optimizer, fragments)
    synced, error = slots.params, slots.error
    offsets = fragment_offsets(fragments, every)
    for number, chosen in enumerate(choose_fragments(fragments, leaves)):
        if not any(chosen):  # more fragments than layers
            continue
        narrow = functools.partial(leaves.narrow, chosen=chosen)
        one = Fragment(
            outer_optimizer, exchange, narrow(params), step, every, offsets[number], delay, merge
        )
        own = Synced(narrow(synced), narrow(error), states[number])
        own_updates, new = run_fragment(one, narrow(updates), own)
        updates = lay_over(updates, own_updates, chosen)
        synced = lay_over(synced, new.params, chosen)
        error = None if error is None else lay_over(error, new.error, chosen)
        states[number] = new.slots
    return updates, Outer(synced, error, inner_slots, _held(states, fragments))


def _states(slots: Any, fragments: Fragments | None) -> list[Any]:
    """The slots of the outer optimizer, those of each fragment."""
    # By name: a dict that went through jit has its keys in the order of texts.
    return [slots] if fragments is None else [slots[name] for name in _names(fragments)]


def _names(fragments: Fragments) -> list[str]:
    return [f"fragment_{number}" for number in range(fragment_count(fragments))]


def _held(states: list[Any], fragments: Fragments | None) -> Any:
    """These slots as the state holds them."""
    if fragments is None:
        return states[0]
    return dict(zip(_names(fragments), states, strict=True))


def _children(
    slots: Outer,
    count,
    *,
    inner_optimizer: GradientTransformation,
    outer_optimizer: GradientTransformation,
    every: int,
    fragments: Fragments | None,
) -> list[Child]:
    each = zip(
        _states(slots.outer_optimizer, fragments), fragment_offsets(fragments, every), strict=True
    )
    return [
        Child(inner_optimizer, slots.inner_optimizer, count),
        *(Child(outer_optimizer, one, count_rounds(count, every, offset)) for one, offset in each),
    ]


def _evaluate(params, slots: Outer, count, *, exchange: Exchange):
    """P, in the dtypes of the parameters."""
    like = params if exchange.replicas is None else first_replica(params)
    return map_leaves(_second, like, slots.params)


def _second(param, synced):
    return synced


@definition
def outer(
    inner_optimizer: TransformationLike,
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
    r"""Outer optimizers: DiLoCo, MuLoCo, Snoo, and Lookahead as a case.

    R replicas take H inner steps each from the last synchronised parameters P. A step of the outer
    optimizer along Δ then moves P, and all replicas restart there. For arrays of one shape: Δ =
    mean over r of (P − θ_r) at every H-th step, P ← P + outer(Δ), θ_r ← α θ_r + (1 − α) P. Δ is the
    gradient of the outer optimizer, which is any transformation written as a descent. `sgd(γ,
    momentum=μ, nesterov=True)` makes m ← μ m + Δ, P ← P − γ (μ m + Δ). The slots of the inner
    optimizer stay with their replica, and are not averaged.

    =========  =====  =========================================  =====================
    method     inner  outer                                      H
    =========  =====  =========================================  =====================
    DiLoCo     adamw  sgd(0.7, momentum=0.9, nesterov=True)      30 to 100
    MuLoCo     muon   sgd(0.7, momentum=0.6, nesterov=True)      30
    Snoo       any    sgd(0.68, momentum=0.37, nesterov=True)    28, one replica
    Lookahead  any    sgd(0.5)                                   5 to 10, one replica
    =========  =====  =========================================  =====================

    Replicas have two forms. With `replicas=R` they are the first axis of every parameter and
    gradient; P has no such axis. Under `jax.jit`, cut that axis over the mesh. With `axis_name` the
    program runs once for each replica: inside `shard_map`, `pmap` or `vmap`. Other mesh axes may
    divide a replica. Either way the inner steps send nothing between replicas; a synchronisation
    sends one mean for each array, inside of a conditional. All replicas must start from equal
    parameters. With neither argument there is one replica.

    Evaluate and save P: `eval_params(tx, state, params)`.

    Streaming DiLoCo: a fragment p synchronises at the steps that are p round(H/n) modulo H, so that
    less is sent at a time. Its result arrives `delay` steps later, merged with α. Each fragment has
    slots of the outer optimizer of its own, under `fragment_0`, `fragment_1`, ...

    When: groups of devices with slow links between them; or one group, to gain from an outer
    momentum. When not: a few steps only, or a rate that decays to 0 within fewer than H steps. Put
    `guard` inside, since replicas that skip a step alone would no longer meet; put `accumulate`
    outside. Inside of a conditional XLA finishes an exchange before the next step, so `delay` has
    the numbers of streaming, and hides the time of an exchange only where a runtime allows it.

    Args:
      inner_optimizer: gives the steps of each replica, its learning rate and decay included.
      outer_optimizer: gives the step of P; it receives Δ alone. Its schedules count
        synchronisations.
      every: H ≥ 1, inner steps to one outer step; 30. Above the length of the run, P stays.
      fragments: None: all parameters at once. A number n: layer i, by the first number that ends a
        key of its path, is in fragment i mod n, and parameters of no layer are in fragment 0; where
        no path has a number, leaf i is in i mod n. A list of patterns or predicates, one for each
        fragment: each parameter must be in exactly one.
      delay: τ in [0, H), steps between a synchronisation and the arrival of its result; 1 to 5.
      merge: α in [0, 1], the share of its own parameters that a replica keeps; 0, or 0.5 with
        `delay`.
      compress: the codec of Δ while it is sent: "int8" (1.06 bytes per parameter), "int4" (0.56),
        "bf16", or any other of `stored`; None: float32. Replicas gather the codes, and take the
        mean in float32. With `replicas` the codes cross the mesh that `jax.set_mesh` has set;
        without a mesh XLA sends float32.
      error_feedback: add what the codes left out to the next Δ of the replica.
      replicas: R ≥ 1, the size of the first axis of every parameter; None: no such axis.
      axis_name: a mapped axis, or several, over which each device has parameters of its own.

    Raises:
      HyperparamError: `every`, `delay`, `merge` or `replicas` out of its range; `error_feedback`
        without `compress`; `replicas` with `axis_name`; an outer optimizer that needs the loss.
      SelectionError: a pattern matches nothing; a parameter is in no fragment, or in two.
      StructureError: a parameter without an axis of R replicas; a complex one with `compress`; a
        wrapper around it that skips the steps of one replica, as `guard` does.
      GradtxError: an unknown codec; `axis_name` is not an axis of the program.
      MissingParamsError: `update` is called without parameters.

    State: 4 bytes per parameter (P), that of the outer optimizer, and that of the inner one for
    each replica; 4 bytes per parameter and replica with `error_feedback`.

    >>> import gradtx, jax.numpy as jnp
    >>> w, outputs = jnp.array(8.0), []
    >>> tx = gradtx.outer(gradtx.sgd(1.0), gradtx.sgd(0.5, momentum=0.5, nesterov=True), every=2)
    >>> state = tx.init(w)
    >>> for _ in range(4):  # Δ = 2, m = 2, P = 8 − 0.5 (1 + 2); then m = 3, P = 6.5 − 0.5 (1.5 + 2)
    ...     updates, state = tx.update(jnp.array(1.0), state, w)
    ...     w = gradtx.apply_updates(w, updates)
    ...     outputs.append(float(w))
    >>> outputs
    [7.0, 6.5, 5.5, 4.75]

    See also: `lookahead`, `ema_nesterov`, `schedule_free`, `accumulate`.

    DiLoCo: Douillard et al. 2023, arXiv 2311.08105, Algorithm 1. Streaming: Douillard et al. 2025,
    arXiv 2501.18512. MuLoCo: Thérien et al. 2025, arXiv 2505.23725. Snoo: Kallusky et al. 2025,
    arXiv 2510.15830.
    """
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
        replica_axes=exchange.axis_names,
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
