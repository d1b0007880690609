"""Which slots live in host memory between steps, and how `init` puts them there."""

import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax

from gradtx.definition.errors import GradtxError, SelectionError
from gradtx.engine.rules import Rule
from gradtx.engine.selector import Leaves, Selector, leaves_of
from gradtx.engine.slots import Path, put_slots, slots_at
from gradtx.tree.host_memory import PINNED_HOST, put_on_host

if TYPE_CHECKING:
    from gradtx.engine.program import BoundRule


ENCODED = re.compile(r"_(codes|scale)(?=/|$)")
"""The end of a slot's name in a state of few bits: `nu/` chooses `nu_codes/` and `nu_scale/`."""


@dataclass(frozen=True)
class Offload:
    """Where the slots of rules live between steps."""

    where: Any
    """Which slots, by their paths; None: `init` moves none, the rule around it does."""
    memory: str = PINNED_HOST


def offload_rule(rule: Rule, offload: Offload, member: Callable[[Any], Any]) -> Rule:
    """A rule whose slots may be in host memory; `member` does the same to a member."""
    if rule.offload is not None:
        raise GradtxError(
            f"offloaded: the slots of {rule.name} are offloaded by another offloaded inside; use "
            f"one offloaded around all members, whose where= chooses among their slots"
        )
    return rule.with_offload(offload, member)


def place_slots(rules: "Iterable[BoundRule]", slots: Any) -> Any:
    """The first slots of a program, those that an `Offload` chooses in host memory."""
    paths: dict[Offload, list[Path]] = {}
    for bound in rules:
        if bound.rule.offload is not None and bound.rule.keeps:
            paths.setdefault(bound.rule.offload, []).append(bound.path)
    for offload, members in paths.items():
        if offload.where is not None:
            slots = _place_members(offload, members, slots)
    return slots


def _place_members(offload: Offload, paths: Sequence[Path], slots: Any) -> Any:
    """The slots of all members, the chosen ones of some members in host memory."""
    own: Any = {}
    for path in paths:
        own = put_slots(own, path, slots_at(slots, path))
    leaves = leaves_of(own)
    chosen = _choose_slots(offload, leaves)
    if not chosen or not _has_memory(offload.memory):
        return slots
    values = list(leaves.values)
    for n in chosen:
        values[n] = put_on_host(values[n])
    placed = leaves._replace(values=values).tree
    for path in paths:
        slots = put_slots(slots, path, slots_at(placed, path))
    return slots


def _choose_slots(offload: Offload, leaves: Leaves) -> list[int]:
    """The numbers of the slots to move. Scalars stay: a copy costs more than they do."""
    arrays = [n for n, one in enumerate(leaves.values) if getattr(one, "ndim", 0)]
    if not arrays:
        return []
    cure = f"the slots with axes are {', '.join(repr(leaves.paths[n]) for n in arrays)}"
    plain = leaves._replace(paths=tuple(ENCODED.sub("", path) for path in leaves.paths))
    error: Exception | None = None
    for named in (plain, leaves):
        try:
            answers = Selector(offload.where, True, "offloaded: where", cure=cure)(named)
        except SelectionError as refused:
            error, answers = refused, [False] * len(leaves.paths)
        if chosen := [n for n in arrays if answers[n]]:
            return chosen
    if error is not None:
        raise error
    raise GradtxError(
        f"offloaded: where = {offload.where!r} chooses scalars alone, which stay on the device; "
        f"{cure}"
    )


def _has_memory(memory: str) -> bool:
    """Whether the backend has a memory; a warning where it lacks that of the host."""
    device = jax.devices()[0]
    kinds = [repr(one.kind) for one in device.addressable_memories()]
    names = ", ".join(sorted(set(kinds)))
    if memory != PINNED_HOST:
        raise GradtxError(
            f"offloaded: memory = {memory!r} is not a memory in which a compiled step can leave "
            f"slots, use {PINNED_HOST!r}; the backend {device.platform!r} has {names}"
        )
    if repr(memory) not in kinds:
        warnings.warn(
            f"offloaded: the backend {device.platform!r} has no memory {memory!r}, it has {names}: "
            f"the slots stay on the device",
            stacklevel=2,
        )
        return False
    return True
