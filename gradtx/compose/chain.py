"""`chain`: a sequence of transformations."""

import warnings
from collections.abc import Sequence
from typing import Any

from gradtx.compose.binding import Branch, member_names
from gradtx.compose.transformation import (
    GradientTransformation,
    TransformationLike,
    as_transformation,
    definition,
)
from gradtx.definition.errors import GradtxError
from gradtx.definition.leaves import known_number
from gradtx.engine.program import BoundRule
from gradtx.engine.roles import depth_of_caller

LANDINGS = frozenset({"decay_after", "hyperball", "retract"})
"""The builders whose updates lead to a norm of their choice, which a later rate would undo."""


@definition
def chain(*members: TransformationLike, **named: TransformationLike) -> list[Branch]:
    """Chain transformations: each one receives the updates of the one before.

    A positional member has the name of its builder (`scale_by_adam`, then `scale_by_adam_2`). A
    keyword member has its keyword as name. The state stores the slots of a member under its name.
    Any object with `init` and `update` may be a member, an Optax transformation too. Neighbouring
    leaf rules run as one kernel per leaf, also where they come from different authors.

    Args:
      *members: transformations, in the order in which they act.
      **named: more transformations, after those, under names of your choice.

    Raises:
      GradtxError: a member is not a transformation, or a keyword repeats the name of a member.

    Warns: where the order is a probable mistake: an average of parameters (`params_ema`) or a step
    to a norm (`hyperball`, `retract`) in front of a learning rate, or `freeze` in front of a weight
    decay of all leaves. All of them belong last.

    State: that of its members, 0 bytes of its own.

    >>> import gradtx, jax.numpy as jnp
    >>> clip, scale = gradtx.clip_by_global_norm(1.0), gradtx.scale(-0.1)
    >>> tx = gradtx.chain(clip, gradtx.trace(0.9), rate=scale)
    >>> tx
    chain(clip_by_global_norm(max_norm=1.0), trace(decay=0.9), rate=scale(step_size=-0.1))
    >>> sorted(tx.init({"w": jnp.zeros(2)}).slots)
    ['trace']
    """
    positional = [as_transformation(member) for member in members]
    names = member_names(positional)
    for name in named:
        if name in names:
            raise GradtxError(
                f"chain: the keyword {name!r} is already the name of a positional member; choose "
                f"another"
            )
    every = [*positional, *map(as_transformation, named.values())]
    _warn_of_order(every)
    return [Branch(name, member) for name, member in zip([*names, *named], every, strict=True)]


def _warn_of_order(members: Sequence[GradientTransformation]) -> None:
    """Warn of members that act on the final updates, and are not behind those that make them."""
    for index, member in enumerate(members[:-1]):
        if member.factory.__name__ in LANDINGS:
            _warn_of_rate(member, members[index + 1 :])
            continue
        rule = _only_rule(member)
        later = [(one.name, bound) for one in members[index + 1 :] for bound in _rules(rule, one)]
        if getattr(rule, "evaluate_array", None) is not None:
            name = next((one for one, bound in later if "learning_rate" in bound.hyperparams), "")
            fault = "averages parameters plus the updates in front of it, not those of"
        else:
            name = next((one for one, bound in later if _decays_all(bound)), "")
            fault = "zeroes gradients alone, and frozen parameters still move by the decay of"
        if name:
            warnings.warn(
                f"chain: {member.name} {fault} {name}: put {member.name} last",
                stacklevel=depth_of_caller(),
            )


def _warn_of_rate(member: GradientTransformation, later: Sequence[GradientTransformation]) -> None:
    """Warn where a learning rate would scale a step that leads to a norm."""
    name = member.factory.__name__
    for one in later:
        if any("learning_rate" in bound.hyperparams for bound in one.rules):
            warnings.warn(
                f"chain: {name} takes each matrix to a norm, and {one.name} scales that step: put "
                f"{name} last",
                stacklevel=depth_of_caller(),
            )


def _rules(first: Any, later: GradientTransformation) -> Sequence[BoundRule]:
    """The rules behind a member that belongs last; none behind any other, which saves time."""
    is_last = getattr(first, "evaluate_array", None) is not None or (
        first is not None and first.ignores_input and not getattr(first, "is_random", False)
    )
    return () if later.is_plain or not is_last else later.rules


def _only_rule(tx: GradientTransformation) -> Any:
    """The rule that a transformation comes down to, where it is one on arrays; else None."""
    if tx.is_plain:
        return None
    expansion = tx.expansion
    if isinstance(expansion, list) and len(expansion) == 1:
        expansion = expansion[0].member
    if isinstance(expansion, GradientTransformation):
        return _only_rule(expansion)
    return expansion.rule if isinstance(expansion, BoundRule) else None


def _decays_all(bound: BoundRule) -> bool:
    """Whether a rule decays every leaf, so that frozen ones cannot be masked out of it."""
    names = [name for name in bound.hyperparams if name.startswith("weight_decay")]
    numbers = [known_number(bound.hyperparams[name]) for name in names]
    return not bound.selectors and any(isinstance(one, int | float) and one != 0 for one in numbers)
