r"""Norms and clip rate, kept in the state while a transformation runs.

‖g‖, ‖u‖ and ‖θ‖ over all arrays and over groups of them, in float32 at least; the clip rate is c ←
c + (1 − β)/(1 − β^t) (1[clipped] − c)."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.compose.choosing import attach, detach
from gradtx.compose.transformation import (
    GradientTransformation,
    TransformationLike,
    as_transformation,
    definition,
)
from gradtx.compose.treewise import treewise
from gradtx.definition.errors import SelectionError
from gradtx.definition.types import Decay
from gradtx.engine.program import leaves_of
from gradtx.engine.rules import Child
from gradtx.engine.selector import labels
from gradtx.transforms.clipping import shrink_by_factor
from gradtx.transforms.moments import debias
from gradtx.tree.arithmetic import sum_of_squares, sum_promoted
from gradtx.tree.casts import as_array, is_inexact
from gradtx.tree.kernels import map_arrays
from gradtx.tree.maps import choose, map_leaves

Groups = Sequence[tuple[Any, str]] | None
NORMS = ("grad_norm", "param_norm", "update_norm")


def _clips(inner: GradientTransformation) -> list[str]:
    """The members that shrink all updates together, by name."""
    return [
        item.name
        for item in inner.rules
        if getattr(item.rule, "update_array", None) is shrink_by_factor
    ]


def _group_names(groups: Groups) -> list[str]:
    return list(dict.fromkeys(name for _, name in groups or ()))


def _init(
    params: Any, *, inner: GradientTransformation, groups: Groups, update_norm: bool
) -> dict[str, Any]:
    kinds = NORMS if update_norm else NORMS[:2]
    names = [
        name if group is None else f"{name}/{group}"
        for name in kinds
        for group in (None, *_group_names(groups))
    ]
    names += ["clip_rate"] if _clips(inner) else []
    return attach(
        inner.init_slots(params),
        "metrics",
        {name: jnp.zeros((), jnp.result_type(float)) for name in names},
    )


def _norms(name: str, tree: Any, groups: Groups) -> dict[str, jax.Array]:
    """The norm of a tree, and of each group of its arrays."""
    leaves = leaves_of(tree)
    chosen = [index for index, value in enumerate(leaves.values) if is_inexact(value)]
    squares = (
        map_arrays(sum_of_squares, [as_array(leaves.values[index]) for index in chosen])
        if chosen
        else []
    )
    found = {name: jnp.sqrt(sum_promoted(squares))}
    if not groups:
        return found
    group_of = labels(groups, leaves, _group_names(groups), "with_metrics")
    for group in _group_names(groups):
        members = [
            square
            for index, square in zip(chosen, squares, strict=True)
            if group_of[index] == group
        ]
        found[f"{name}/{group}"] = jnp.sqrt(sum_promoted(members))
    return found


def _clip_rate(rate: jax.Array, factors: Sequence[jax.Array], decay: Any, step: Any) -> jax.Array:
    """The share of steps at which a clip shrank the updates, as an average that forgets."""
    clipped = jnp.stack([factor < 1 for factor in factors]).any()
    decay = jnp.asarray(decay, rate.dtype)
    return rate + debias(1 - decay, decay, jnp.asarray(step, rate.dtype)) * (clipped - rate)


def _after(update: jax.Array, *, known: jax.Array) -> jax.Array:
    """The update, once a norm is known, which is never below 0: XLA would else copy parameters that
    are summed while they are written.
    """
    return jnp.where(known < 0, jnp.zeros_like(update), update)


def _update(
    updates: Any,
    slots: Any,
    params: Any,
    step: Any,
    *,
    inner: GradientTransformation,
    groups: Groups,
    update_norm: bool,
    decay: Any,
    extra: Mapping[str, Any],
    gate: Any,
) -> Any:
    old, kept = detach(slots, "metrics")
    made, new, seen = inner.update_slots(updates, old, params, step, extra, gate, with_stats=True)
    found = {**_norms("grad_norm", updates, groups), **_norms("param_norm", params, groups)}
    made = map_leaves(_after, made, known=found["param_norm"])
    if update_norm:
        found |= _norms("update_norm", made, groups)
    factors = [seen[name]["factor"] for name in _clips(inner) if name in seen]
    if factors:
        found["clip_rate"] = _clip_rate(kept["clip_rate"], factors, decay, step)
    now = {
        name: found[name].astype(was.dtype) if name in found else was for name, was in kept.items()
    }
    return made, attach(new, "metrics", choose(gate, now, kept))


def _inside(slots: Any, count: Any, *, inner: GradientTransformation) -> list[Child]:
    return [Child(inner, detach(slots, "metrics")[0], count)]


def _report(slots: Any) -> dict[str, Any]:
    return slots["metrics"]


@definition
def with_metrics(
    inner: TransformationLike,
    groups: Groups = None,
    decay: Decay = 0.99,
    *,
    update_norm: bool = True,
) -> GradientTransformation:
    r"""`inner`, with the norms of gradients, updates and parameters, and the clip rate, kept in the
    state for `metrics` to show.

    Norms are 2-norms over all arrays, ‖g‖ as it comes in (before a clip inside), ‖u‖ as it goes
    out, ‖θ‖ before the step; and over each group. The clip rate is the share of steps at which
    `clip_by_global_norm` or `zclip` shrank the updates, averaged over about 1/(1 − β) steps. A norm
    that a clip or a guard needs as well is computed once.

    When: always, in a training that is watched: beside the gradients of a batch its sums do not
    show. When not: on a CPU, where an update is most of a step; ‖u‖ then needs all updates in
    memory, which otherwise never are (`update_norm=False` leaves it out).

    Put it directly around the chain that has the clip, and `guard` and `accumulate` around it: then
    the gradients are those of whole batches, and what was skipped does not show.

    Args:
      inner: the transformation.
      groups: rules `[(pattern, group), ...]` as for `partition`: norms of each group as well, under
        `grad_norm/group`; None: none.
      decay: β in [0, 1), of the clip rate; 0.99.
      update_norm: whether to take ‖u‖.

    Raises:
      MissingParamsError: `update` is called without parameters.
      SelectionError: a rule of `groups` matches no leaf, or a leaf is claimed by none.

    State: that of `inner`, and beside it under "metrics" the numbers `grad_norm`, `param_norm`,
    `update_norm`, as many for each group, and with a clip inside `clip_rate`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.with_metrics(gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(0.1)))
    >>> w = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    >>> _, state = tx.update(w, tx.init(w), w)
    >>> {name: round(float(value), 3) for name, value in gradtx.metrics(tx, state).items()}
    {'grad_norm': 5.0, 'param_norm': 5.0, 'update_norm': 0.1, 'clip_rate': 1.0}

    See also: `metrics`, `monitor`.
    """
    if groups is not None and not all(
        isinstance(rule, list | tuple) and len(rule) == 2 and isinstance(rule[1], str)
        for rule in groups
    ):
        raise SelectionError(
            f"with_metrics: groups = {groups!r} are no rules; give [(pattern, group), ...], such as [('bias$', 'biases'), ('.*', 'rest')]"
        )
    return treewise(
        _init,
        _update,
        decay=decay,
        groups=groups,
        update_norm=update_norm,
        inner=inner,
        needs_params=True,
        children=_inside,
        report=_report,
        own_clock=as_transformation(inner).own_clock,
    )
