"""The collectives of a compiled program: kinds, operands and bytes."""

import collections
import math
import re
from typing import NamedTuple

LINE = re.compile(
    r"^\s*(?:ROOT )?%?\S+ = (?P<results>.*?) (?P<kind>all-to-all|all-gather|all-reduce"
    r"|reduce-scatter|collective-permute)(?:-start)?\((?P<operands>[^)]*)\)"
)
ARRAY = re.compile(r"(pred|[a-z]+?(\d+))\[([\d,]*)\]")


class Collectives(NamedTuple):
    """The collectives of a program; one of several arrays counts as several."""

    operands: dict[str, int]
    bytes: dict[str, int]
    """The bytes of the whole arrays: what goes into a reduce, and what comes out of a gather."""


def collectives(text: str) -> Collectives:
    """Read the text of a compiled program."""
    operands, sizes = collections.Counter[str](), collections.Counter[str]()
    for line in text.splitlines():
        if (match := LINE.match(line)) is None:
            continue
        kind, count = match["kind"], match["operands"].count("%")
        operands[kind] += count
        arrays = [_bytes(*one) for one in ARRAY.findall(match["results"])]
        # An asynchronous one lists its operands before its results.
        is_pair = len(arrays) == 2 * count
        halves = (arrays[:count], arrays[count:]) if is_pair else (arrays, arrays)
        sizes[kind] += max(sum(halves[0]), sum(halves[1]))
    return Collectives(dict(operands), dict(sizes))


def _bytes(name: str, bits: str, shape: str) -> int:
    width = 1 if name == "pred" else int(bits) // 8
    return width * math.prod(int(size) for size in shape.split(",") if size)
