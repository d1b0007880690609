"""Where the slots of members are in a state: dicts by member name, one below the other."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gradtx.definition.errors import StateError


def slots_at(slots: Any, path: tuple[str, ...]) -> Any:
    for depth, name in enumerate(path):
        if not isinstance(slots, Mapping) or name not in slots:
            holds = (
                ", ".join(map(repr, slots)) if isinstance(slots, Mapping) else type(slots).__name__
            )
            where = f"under {'/'.join(path[:depth])!r} " if depth else ""
            raise StateError(
                f"the state has nothing for member {'/'.join(path)!r}; {where}it holds {holds or 'nothing'}: it is another definition's"
            )
        slots = slots[name]
    return slots


def put_slots(slots: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    if not path:
        return value
    return {**slots, path[0]: put_slots(slots.get(path[0], {}), path[1:], value)}


def check_members(items: Iterable[Any], slots: Any) -> None:
    """Raise when a state holds members that the program does not have."""
    known = [item.path for item in items if item.rule.keeps]
    if () in known or not isinstance(slots, Mapping):
        return
    for path in _member_paths(slots, known):
        raise StateError(
            f"the state holds slots for {'/'.join(path)!r}, which is no member of this definition; "
            f"its members with slots are {', '.join(repr('/'.join(one)) for one in known) or 'none'}"
        )


def _member_paths(
    slots: Mapping[str, Any], known: Sequence[tuple[str, ...]], prefix: tuple[str, ...] = ()
) -> Iterable[tuple[str, ...]]:
    """The paths in `slots` that lead to no member."""
    for name, below in slots.items():
        path = (*prefix, name)
        if path in known:
            continue
        if isinstance(below, Mapping) and any(one[: len(path)] == path for one in known):
            yield from _member_paths(below, known, path)
        else:
            yield path
