"""Checkpoints of earlier versions: their paths, brought to those of today.

Before 0.3 a builder's own `chain` or `descend` showed in the paths of a state. With
`adamw(1e-3, cautious=True)`, `slots/chain/scale_by_adam/mu` was the path of a slot that is now at
`slots/scale_by_adam/mu`.

Before 0.3 the arrays of an encoded slot were below the path of its parameter too: what was
`mu/dense/kernel/codes` is now `mu_codes/dense/kernel`. The `value` of bf16+8 had no name of its
own: `mu/dense/kernel` is now `mu_value/dense/kernel`.

Before 0.3 `zclip` and `reduce_on_plateau` had a `count` of their own beside that of the state: it
is now `norm_count` or `value_count`.
"""

import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Set
from typing import TypeVar

V = TypeVar("V")
SCAFFOLDING = re.compile(r"(chain|descend)(_\d+)?")
"""The segments of a path that a builder's own combinators added, numbered from the second on."""
PARTS = ("codes", "scale", "correction")
"""The arrays of an encoded slot that had a name at the end of a path."""

COUNTS = ("norm_count", "value_count")
"""The counters that were called `count`, as the state's is."""


def migrate(flat: Mapping[str, V], expected: Collection[str]) -> Mapping[str, V]:
    """Rename the entries of an earlier version to the expected paths.

    Each expected path needs exactly one entry, and each entry exactly one path. Otherwise the
    result is `flat` itself, and the names of its entries remain for the error message.

    >>> migrate({"slots/chain/trace/w": 1.0, "count": 3}, ["count", "slots/trace/w"])
    {'slots/trace/w': 1.0, 'count': 3}
    """
    missing = set(expected) - set(flat)
    if not missing:
        return flat
    renames = {name: name if name in expected else _shortened(name, missing) for name in flat}
    if len(set(renames.values())) < len(flat) or set(renames.values()) != set(expected):
        return flat
    return {new: flat[old] for old, new in renames.items() if new is not None}


def _shortened(name: str, missing: Set[str]) -> str | None:
    """The only missing path that this one becomes with the fewest segments dropped."""
    for shorter in _without_scaffolding(name):
        spread = {new for one in shorter for new in (*_spread(one), *_counted(one))}
        if found := (shorter | spread) & missing:
            return found.pop() if len(found) == 1 else None
    return None


def _spread(name: str) -> Iterator[str]:
    """The paths at which an array of an encoded slot may be now: its name is beside the slot's."""
    *slots, last = name.split("/")
    part, segments = (last, slots) if last in PARTS else ("value", [*slots, last])
    for place, segment in enumerate(segments[:-1]):
        yield "/".join((*segments[:place], f"{segment}_{part}", *segments[place + 1 :]))


def _counted(name: str) -> Iterator[str]:
    """The paths at which a member's own counter may be now."""
    member, _, last = name.rpartition("/")
    if member and last == "count":
        yield from (f"{member}/{one}" for one in COUNTS)


def _without_scaffolding(name: str) -> Iterator[set[str]]:
    """The path itself, then without one segment of scaffolding, then without two, and so on."""
    segments = name.split("/")
    # A parameter may be called `chain` as well: fewest drops first, so that its segment remains.
    places = [n for n, one in enumerate(segments) if SCAFFOLDING.fullmatch(one)]
    for number in range(len(places) + 1):
        yield {
            "/".join(one for n, one in enumerate(segments) if n not in dropped)
            for dropped in itertools.combinations(places, number)
        }
