"""Checkpoints of earlier versions: their paths, brought to those of today.

Before 0.3 a builder's own `chain` or `descend` showed in the paths of a state. With
`adamw(1e-3, cautious=True)`, `slots/chain/scale_by_adam/mu` was the path of a slot that is now at
`slots/scale_by_adam/mu`. No slot has another name.
"""

import itertools
import re
from collections.abc import Collection, Iterator, Mapping
from typing import TypeVar

V = TypeVar("V")
SCAFFOLDING = re.compile(r"(chain|descend)(_\d+)?")
"""The segments of a path that a builder's own combinators added, numbered from the second on."""


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


def _shortened(name: str, missing: Collection[str]) -> str | None:
    """The only missing path that this one becomes with the fewest segments dropped."""
    for shorter in _without_scaffolding(name):
        if found := shorter & set(missing):
            return found.pop() if len(found) == 1 else None
    return None


def _without_scaffolding(name: str) -> Iterator[set[str]]:
    """The path without one segment of scaffolding, then without two, and so on."""
    segments = name.split("/")
    # A parameter may be called `chain` as well: fewest drops first, so that its segment remains.
    places = [n for n, one in enumerate(segments) if SCAFFOLDING.fullmatch(one)]
    for number in range(1, len(places) + 1):
        yield {
            "/".join(one for n, one in enumerate(segments) if n not in dropped)
            for dropped in itertools.combinations(places, number)
        }
