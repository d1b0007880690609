"""Elementwise rules: those that treat every entry alike, so that they may run on any tile."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from gradtx.definition.types import Slots
from gradtx.tree import jaxprs


def is_elementwise(
    function: Callable[..., Any], rules: Sequence[Any], shared: Any, row: Any
) -> bool:
    """Whether rules consist of such operations alone, without their storage."""
    pairs = zip(rules, row.slots, strict=True)
    slots = [None if stored is None else _decoded(rule, stored, row) for rule, stored in pairs]
    bare = tuple(_without_storage(rule) for rule in rules)
    closed = jax.make_jaxpr(functools.partial(function, bare))(
        shared, row._replace(slots=tuple(slots))
    )
    return jaxprs.is_elementwise(closed.jaxpr, row.grad.shape)


def _decoded(rule: Any, stored: Slots, row: Any) -> Any:
    """The shapes of the slots of a rule."""
    if rule.storage is None:
        return stored
    return jax.eval_shape(functools.partial(rule.storage.decode, shape=row.grad.shape), stored)


@functools.lru_cache(maxsize=1024)
def _without_storage(rule: Any) -> Any:
    return dataclasses.replace(rule, storage=None)
