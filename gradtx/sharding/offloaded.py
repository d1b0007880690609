"""`offloaded`: the same optimizer, its state in the memory of the host between steps."""

import functools
from collections.abc import Callable
from typing import Any

from gradtx.compose.binding import MapRules
from gradtx.compose.transformation import (
    GradientTransformation,
    TransformationLike,
    as_transformation,
    definition,
)
from gradtx.engine.rules import Rule
from gradtx.engine.slot_memory import Offload, offload_rule
from gradtx.tree.host_memory import PINNED_HOST


@definition
def offloaded(
    inner: TransformationLike,
    where: str | Callable[[str, Any], bool] = r".*",
    *,
    memory: str = PINNED_HOST,
) -> Any:
    offload = Offload(where, memory)
    return MapRules(_checked(inner, offload), functools.partial(_offload, offload))


def _checked(inner: TransformationLike, offload: Offload) -> GradientTransformation:
    """The transformation, once every rule of it can be offloaded."""
    tx = as_transformation(inner)
    for bound in tx.rules:
        _offload(offload, bound.rule)
    return tx


def _offload(offload: Offload, rule: Rule) -> Rule:
    return offload_rule(rule, offload, _offloaded_member)


@definition
def _offloaded_member(inner: TransformationLike) -> MapRules:
    """A member of a wrapper, whose slots the outer `offloaded` places."""
    offload = Offload(None)
    return MapRules(_checked(inner, offload), functools.partial(_offload, offload))
