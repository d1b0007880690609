"""Patterns for the paths of repeated blocks: `blocks/*/kernel` for `blocks/0/kernel` and so on."""

import re
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)

SHORTEST_SPAN = 3
"""The number of neighbours from which on a range is shorter than a list."""
LONGEST_SPANS = 24
"""The most characters of the ranges in one place of a path; stars replace longer ones."""


class Group(NamedTuple):
    """Arrays that share one line: their pattern, and their positions in the list of paths."""

    path: str
    indices: tuple[int, ...]


def stars(path: str) -> str:
    """Put a star in the place of every number.

    >>> stars("blocks/10/mlp_2/kernel")
    'blocks/*/mlp_*/kernel'
    """
    return re.sub(r"\d+", "*", path)


def common_pattern(paths: Sequence[str]) -> str:
    """The pattern of several paths, with stars only in the places that differ.

    >>> common_pattern(["conv2d/layers_1", "conv2d/layers_2"])
    'conv2d/layers_*'
    """
    columns = _number_columns(paths)
    return _fill(paths[0], ["*" if len(set(one)) > 1 else one[0] for one in columns])


def group_paths(paths: Sequence[str], keys: Sequence[K]) -> list[Group]:
    """Group the paths that differ in numbers only and have equal keys.

    Where one pattern would stand for two groups, ranges take the place of its stars.

    >>> paths = ["b/0/w", "b/1/w", "b/2/w", "b/3/w"]
    >>> [group.path for group in group_paths(paths, ["x"] * 4)]
    ['b/*/w']
    >>> [group.path for group in group_paths(paths, ["x", "y", "y", "y"])]
    ['b/0/w', 'b/1..3/w']
    """
    groups: dict[tuple[str, K], list[int]] = {}
    for index, (path, key) in enumerate(zip(paths, keys, strict=True)):
        groups.setdefault((stars(path), key), []).append(index)
    members: dict[str, int] = {}
    for pattern, _ in groups:
        members[pattern] = members.get(pattern, 0) + 1
    return [
        Group(_pattern_of([paths[n] for n in indices], members[pattern] == 1), tuple(indices))
        for (pattern, _), indices in groups.items()
    ]


def _pattern_of(paths: Sequence[str], is_alone: bool) -> str:
    columns = _number_columns(paths)
    texts = [spans(one) if len(set(one)) > 1 else one[0] for one in columns]
    is_long = any(len(text) > LONGEST_SPANS for text in texts)
    return common_pattern(paths) if is_alone or is_long else _fill(paths[0], texts)


def _fill(path: str, numbers: Sequence[str]) -> str:
    """A path with other texts in the places of its numbers."""
    rest = iter(numbers)
    return re.sub(r"\d+", lambda _: next(rest), path)


def _number_columns(paths: Sequence[str]) -> list[tuple[str, ...]]:
    """The numbers of each place, one column a place."""
    return list(zip(*(re.findall(r"\d+", path) for path in paths), strict=True))


def spans(numbers: Iterable[str]) -> str:
    """The ranges of several numbers as one text.

    >>> spans(["0", "1", "2", "5", "7"])
    '0..2,5,7'
    """
    runs: list[list[int]] = []
    for number in sorted(set(map(int, numbers))):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(
        f"{run[0]}..{run[-1]}" if len(run) >= SHORTEST_SPAN else ",".join(map(str, run))
        for run in runs
    )
