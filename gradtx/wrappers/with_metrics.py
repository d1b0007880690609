r"""Norms and clip rate in the state, for logging.

‖g‖, ‖u‖ and ‖θ‖ over all arrays and over groups of them, in float32 at least; the clip rate is c ←
c + (1 − β)/(1 − β^t) (1[clipped] − c).
"""

from collections.abc import Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp

from gradtx.compose.over_axes import AxisFlags, apply_axis_flags
from gradtx.compose.transformation import (
    GradientTransformation,
    TransformationLike,
    as_transformation,
    definition,
)
from gradtx.compose.wrapwise import Member, wrapwise
from gradtx.definition.errors import SelectionError
from gradtx.definition.types import Decay, PyTree
from gradtx.engine.axes_rule import AxesRule
from gradtx.engine.selector import labels, leaves_of
from gradtx.transforms.clipping import shrink_by_factor
from gradtx.transforms.moments import debias
from gradtx.tree.arithmetic import sqrt, sum_of_squares, sum_promoted
from gradtx.tree.casts import as_array, is_inexact
from gradtx.tree.kernels import map_arrays
from gradtx.tree.maps import map_leaves

Groups = Sequence[tuple[Any, str]] | None
NORMS = ("grad_norm", "param_norm", "update_norm")


def _clips(inner: GradientTransformation) -> tuple[str, ...]:
    """The names of the members that shrink all updates together."""
    names: list[str] = []
    for bound in inner.rules:
        if getattr(bound.rule, "update_array", None) is shrink_by_factor:
            names.append(bound.name)
        if isinstance(bound.rule, AxesRule):
            names.extend(_clips(bound.rule.tx))
    return tuple(names)


def _group_names(groups: Groups) -> list[str]:
    return list(dict.fromkeys(name for _, name in groups or ()))


def _init(params, *, clips: Sequence[str], groups: Groups, update_norm: bool) -> dict[str, Any]:
    if groups:
        labels(groups, leaves_of(params), _group_names(groups), "with_metrics")
    kinds, suffixes = NORMS if update_norm else NORMS[:2], [None, *_group_names(groups)]
    names = [kind if group is None else f"{kind}/{group}" for kind in kinds for group in suffixes]
    names += ["clip_rate"] if clips else []
    return {name: jnp.zeros((), jnp.result_type(float)) for name in names}


def _norms(name: str, tree: PyTree, groups: Groups) -> dict[str, jax.Array]:
    """The norm of a tree, and of each group of its arrays."""
    leaves = leaves_of(tree)
    indices = [index for index, value in enumerate(leaves.values) if is_inexact(value)]
    arrays = [as_array(leaves.values[index]) for index in indices]
    squares = map_arrays(sum_of_squares, arrays) if arrays else []
    norms = {name: sqrt(sum_promoted(squares))}
    group_of = labels(groups, leaves, _group_names(groups), "with_metrics") if groups else []
    for group in _group_names(groups):
        pairs = zip(indices, squares, strict=True)
        part = [square for index, square in pairs if group_of[index] == group]
        norms[f"{name}/{group}"] = sqrt(sum_promoted(part))
    return norms


def _clip_rate(rate: jax.Array, factors: Sequence[jax.Array], decay, step) -> jax.Array:
    """The average share of steps at which a clip shrank the updates."""
    clipped = jnp.stack([factor < 1 for factor in factors]).any().astype(rate.dtype)
    decay = jnp.asarray(decay, rate.dtype)
    return rate + debias(1 - decay, decay, jnp.asarray(step, rate.dtype)) * (clipped - rate)


def _order_after(update, *, norm):
    # A norm is never below 0, so the update does not change. XLA would otherwise copy parameters
    # that one kernel sums while another writes them.
    return jnp.where(norm < 0, jnp.zeros_like(update), update)


def _with_metrics(
    updates,
    own,
    params,
    step,
    *,
    inner: Member,
    clips: Sequence[str],
    groups: Groups,
    update_norm: bool,
    decay,
):
    new, inner = inner.update(updates, params)
    norms = {**_norms("grad_norm", updates, groups), **_norms("param_norm", params, groups)}
    new = map_leaves(_order_after, new, norm=norms["param_norm"])
    if update_norm:
        norms |= _norms("update_norm", new, groups)
    factors = [inner.stats[name]["factor"] for name in clips if name in inner.stats]
    if factors:
        norms["clip_rate"] = _clip_rate(own["clip_rate"], factors, decay, step)
    # The state keeps its dtypes, and a value without a successor stays: a clip may be masked out.
    norms = {**own, **norms}
    own = {name: norms[name].astype(old.dtype) for name, old in own.items()}
    return new, inner, own


def _report(own):
    return own


@definition
def with_metrics(
    inner: TransformationLike,
    groups: Groups = None,
    decay: Decay = 0.99,
    *,
    update_norm: bool = True,
    **flags: Unpack[AxisFlags],
) -> GradientTransformation:
    r"""Log norms of gradients, updates and parameters, and the clip rate.

    The wrapper stores them in the state, and `metrics` returns them by name. Norms are 2-norms over
    all arrays, and over each group: ‖g‖ of the incoming gradients (before a clip inside), ‖u‖ of
    the outgoing updates, ‖θ‖ before the step. The clip rate is the share of steps at which
    `clip_by_global_norm` or `zclip` shrank the updates, averaged over about 1/(1 − β) steps. Where
    a clip or a guard needs the same norm, it is computed once.

    When: any training with logging; its sums cost little beside the gradients of a batch. When not:
    on a CPU, where the update is most of a step. ‖u‖ then needs all updates in memory at once,
    which the step otherwise avoids; `update_norm=False` omits it.

    Put it directly around the chain with the clip, and put `guard` and `accumulate` around it. The
    gradients are then those of whole batches, and skipped steps do not appear.

    Args:
      inner: the transformation.
      groups: rules `[(pattern, group), ...]` as for `partition`: norms of each group as well, under
        `grad_norm/group`; None: none.
      decay: β in [0, 1), of the clip rate; 0.99.
      update_norm: whether to compute ‖u‖.
      **flags: `axis_names`: the mesh axes that cut the arrays; see `over_axes`.

    Raises:
      MissingParamsError: `update` is called without parameters.
      SelectionError: a rule of `groups` matches no leaf, or no rule matches a leaf.

    State: that of `inner`, and under "metrics" the numbers `grad_norm`, `param_norm`,
    `update_norm`, as many for each group, and with a clip inside `clip_rate`.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.with_metrics(gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(0.1)))
    >>> w = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    >>> _, state = tx.update(w, tx.init(w), w)
    >>> logs = gradtx.metrics(tx, state)
    >>> {name: round(float(logs[name]), 3) for name in logs if name != "learning_rate"}
    {'grad_norm': 5.0, 'param_norm': 5.0, 'update_norm': 0.1, 'clip_rate': 1.0}

    See also: `metrics`, `monitor`.
    """
    if groups is not None and not all(
        isinstance(rule, list | tuple) and len(rule) == 2 and isinstance(rule[1], str)
        for rule in groups
    ):
        raise SelectionError(
            f"with_metrics: groups = {groups!r} must be rules [(pattern, group), ...]: "
            "[('bias$', 'biases'), ('.*', 'rest')]"
        )
    return apply_axis_flags(
        wrapwise(
            inner,
            _init,
            _with_metrics,
            report=_report,
            slot="metrics",
            needs_params=True,
            clips=_clips(as_transformation(inner)),
        ),
        flags,
    )
