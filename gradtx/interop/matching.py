"""Which entry of a checkpoint each leaf receives: that of its path, or of its member elsewhere.

A member that stores nothing, a clip in front of `adamw` for example, still adds the name of its
neighbour to paths: `slots/scale_by_adam/mu` becomes `slots/adamw/scale_by_adam/mu`. An entry that
is missing is therefore looked up by the last name of its member, its slot and its parameter. It is
taken where exactly one entry fits best.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from gradtx.definition.errors import GradtxError, StateError
from gradtx.definition.spelling import suggest
from gradtx.definition.state import State, slot_entries
from gradtx.interop.migrations import migrate
from gradtx.tree.paths import path_text

Names = Mapping[str, str]


class StateMatch(NamedTuple):
    """The entries of a checkpoint that a changed definition or model still has, and the others."""

    restored: dict[str, str]
    """By the path in `like`: the path in the checkpoint."""
    initialized: dict[str, str]
    """By the path in `like`, whose own array remains: the reason."""
    dropped: tuple[str, ...]
    """The entries of the checkpoint that nothing in `like` receives."""

    def __str__(self) -> str:
        moved = [(old, new) for new, old in self.restored.items() if old != new]
        lines = [f"restored {len(self.restored)}, {len(moved)} of them from another path:"]
        lines += [f"  {new} <- {old}" for old, new in moved]
        lines += [f"initialized {len(self.initialized)}:"]
        lines += [f"  {path}: {reason}" for path, reason in self.initialized.items()]
        lines += [f"dropped {len(self.dropped)}:", *(f"  {path}" for path in self.dropped)]
        return "\n".join(lines)


class Member(NamedTuple):
    """The member of a state that a path belongs to."""

    root: str
    """The path of the state's slots in the tree."""
    path: str
    """The path of the member."""


def match_paths(like: Any, expected: Collection[str], names: Iterable[str], rename: Names) -> Names:
    """The name of the entry for every expected path that has one.

    Raises:
      GradtxError: `rename` has an empty key.
      StateError: `rename` matches no entry, or brings two entries to one path.
    """
    entries = _rename(list(names), rename)
    entries = dict(migrate(entries, expected))
    moved = {path: path for path in entries} | dict(_moved(like, expected, entries))
    return {path: entries[moved[path]] for path in expected if path in moved}


def _rename(names: Sequence[str], rename: Names) -> dict[str, str]:
    """Every name of an entry by its new name."""
    if "" in rename:
        raise GradtxError("rename: the key '' is empty: write the old segments of a path")
    # The longest first, so that a rule for a part of a folder wins over that for the folder.
    ordered = sorted(rename.items(), key=lambda rule: -rule[0].count("/"))
    rules = {tuple(old.split("/")): tuple(filter(None, new.split("/"))) for old, new in ordered}
    used = set[tuple[str, ...]]()
    renamed: dict[str, str] = {}
    for name in names:
        new = "/".join(_rename_segments(name.split("/"), rules, used))
        if new in renamed:
            raise StateError(
                f"rename: the entries {renamed[new]!r} and {name!r} would both be {new!r}: name "
                f"more of their paths"
            )
        renamed[new] = name
    for rule in rules.keys() - used:
        old = "/".join(rule)
        near = suggest(old, _folders(names)) or f"; its first entry is {next(iter(names), '')!r}"
        raise StateError(f"rename: no entry of the checkpoint has {old!r} in its path{near}")
    return renamed


def _rename_segments(
    segments: Sequence[str],
    rules: Mapping[tuple[str, ...], tuple[str, ...]],
    used: set[tuple[str, ...]],
) -> Iterator[str]:
    """The segments of a path after every rule was applied once, from left to right."""
    place, done = 0, set[tuple[str, ...]]()
    while place < len(segments):
        rest = tuple(segments[place:])
        rule = next((old for old in rules if old not in done and rest[: len(old)] == old), None)
        yield from (rest[0],) if rule is None else rules[rule]
        place += 1 if rule is None else len(rule)
        if rule is not None:
            done.add(rule)
            used.add(rule)


def _folders(names: Iterable[str]) -> set[str]:
    """The paths of all folders of the entries, from the root on, and their single segments."""
    folders = set[str]()
    for name in names:
        segments = name.split("/")
        folders |= {"/".join(segments[: n + 1]) for n in range(len(segments))} | {*segments}
    return folders


def _moved(like: Any, expected: Collection[str], entries: Collection[str]) -> Names:
    """The entry for every missing path whose member has another path in the checkpoint."""
    known, here = set(entries), set(expected)
    missing = [path for path in expected if path not in known]
    unused = [name for name in entries if name not in here]
    if not missing or not unused:
        return {}
    members, places = set(_members(like)), _places(unused)
    best = {path: _best(path, members, places) for path in missing}
    # One old member for two new ones says nothing about which of them it is.
    often = Counter(best.values())
    return {path: name for path, name in best.items() if name is not None and often[name] == 1}


def states_of(tree: Any) -> Iterator[tuple[str, State]]:
    """Every state in a tree, with its path and a slash; "" where the tree is a state."""
    leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda n: isinstance(n, State))[0]
    for path, node in leaves:
        if isinstance(node, State):
            yield f"{path_text(path)}/" if path else "", node


def _members(tree: Any) -> Iterator[Member]:
    """Every member of every state in a tree."""
    for prefix, state in states_of(tree):
        root = f"{prefix}slots"
        for slot, _ in slot_entries(state):
            member = slot if _is_bare(state.slots, slot) else slot[:-1]
            yield Member(root, "/".join((root, *member)))


def _is_bare(slots: Any, path: Sequence[str]) -> bool:
    """Whether a slot is all of its member: an array beside members that have named slots."""
    for name in path[:-1]:
        slots = slots[name] if isinstance(slots, Mapping) else getattr(slots, name, None)
    return isinstance(slots, Mapping) and any(hasattr(one, "_fields") for one in slots.values())


def _places(names: Iterable[str]) -> Mapping[tuple[str, str], Sequence[str]]:
    """The folders by their last segment, and by each path that is below them."""
    places: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in names:
        segments = name.split("/")
        for n in range(1, len(segments) + 1):
            places[segments[n - 1], "/".join(segments[n:])].append("/".join(segments[:n]))
    return places


def _best(
    path: str, members: Collection[Member], places: Mapping[tuple[str, str], Sequence[str]]
) -> str | None:
    """The entry whose member shares the most trailing names with that of the path, if it is one."""
    member = _member_of(path, members)
    if member is None:
        return None
    rest = path[len(member.path) + 1 :]
    folders = [
        (_shared_end(member.path, folder), folder)
        for folder in places.get((member.path.rpartition("/")[2], rest), ())
        if folder.startswith(f"{member.root}/")
    ]
    most = max((shared for shared, _ in folders), default=0)
    nearest = [folder for shared, folder in folders if shared == most]
    return "/".join(filter(None, (nearest[0], rest))) if len(nearest) == 1 else None


def _member_of(path: str, members: Collection[Member]) -> Member | None:
    """The innermost member that has a slot at this path."""
    around = [one for one in members if f"{path}/".startswith(f"{one.path}/")]
    around = [one for one in around if one.path != one.root]
    return max(around, key=lambda one: len(one.path), default=None)


def _shared_end(first: str, second: str) -> int:
    """The number of trailing names that two paths share."""
    pairs = zip(reversed(first.split("/")), reversed(second.split("/")), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
