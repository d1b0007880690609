"""The text of a `Description`: a tree of members, the learning rates, a table of parameters."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gradtx.definition.description import Description, LeafLine, MemberLine, ValueLine
from gradtx.definition.show import show, show_table

ROWS = 24
"""The lines of one table: more of them are folded."""
LINE = 92
"""The columns of a line of a learning rate."""
WIDE = 60
"""The columns of a member, or of a path; the rest is cut off."""
REST = "…"


def description_text(description: Description) -> str:
    """The whole text; a screen at most, however many parameters there are."""
    values = [value_text(one, description.count) for one in description.values[:ROWS]]
    parts = [_members(description.members), "\n".join(values), _leaves(description)]
    return "\n\n".join(filter(None, parts))


def _members(members: Sequence[MemberLine]) -> str:
    shown = members[:ROWS]
    marks = tree_marks([one.depth for one in shown])
    rows = [
        (f"{mark}{cut(title(one), WIDE - len(mark))}", *map(number, one[-3:]))
        for mark, one in zip(marks, shown, strict=True)
    ]
    more = [(f"{REST} {len(members) - ROWS:,} more", "", "", "")] if len(members) > ROWS else []
    return show_table([("member", "arrays", "parameters", "state bytes"), *rows, *more], 1)


def title(member: MemberLine) -> str:
    """The call of a member, behind its label."""
    return f"{member.label}: {member.call}" if member.label else member.call


def tree_marks(depths: Sequence[int]) -> list[str]:
    """The lines of a tree in front of each of its entries.

    >>> tree_marks([0, 1, 2, 1])
    ['', '├─ ', '│  └─ ', '└─ ']
    """
    return [
        "".join("│  " if _continues(depths, n, level) else "   " for level in range(1, depth))
        + ("" if depth == 0 else "├─ " if _continues(depths, n, depth) else "└─ ")
        for n, depth in enumerate(depths)
    ]


def _continues(depths: Sequence[int], position: int, level: int) -> bool:
    """Whether a later entry of this level has the same parent."""
    after = next((depth for depth in depths[position + 1 :] if depth <= level), -1)
    return after == level


def value_text(line: ValueLine, count: Any) -> str:
    """A learning rate: `learning_rate = 0.1 at step 5, from linear_schedule(...)`."""
    text = f"{line.name} = {short_number(line.value)}"
    if not line.schedule:
        return text
    return cut(f"{text} at step {short_number(count)}, from {line.schedule}", LINE)


def short_number(value: Any) -> str:
    """A number with four digits; an array by its shape."""
    if np.ndim(value) or not hasattr(value, "__float__"):
        return show(value)
    try:
        return f"{float(value):.4g}" if not float(value).is_integer() else f"{int(value)}"
    except TypeError:  # traced: JAX refuses to make a number of it
        return show(value)


def _leaves(description: Description) -> str:
    lines = fold(description.leaves, ROWS)
    rows = [
        (cut(one.path, WIDE), array_text(one), one.training, number(one.bytes)) for one in lines
    ]
    shared = description.shared_bytes
    last = [("(shared)", "", "", number(shared))] if shared else []
    total = ("total", f"{description.arrays:,} arrays", "", number(description.bytes))
    header = ("parameters", "array", "trained by", "state bytes")
    return show_table([header, *rows, *last, total], 3)


def array_text(line: LeafLine) -> str:
    """The shape of an array, and how many there are."""
    return f"{line.array} × {line.arrays:,}" if line.arrays > 1 else line.array


def number(value: int) -> str:
    return f"{value:,}"


def cut(text: str, width: int) -> str:
    """The text, cut off where it is too long; always on one line."""
    text = " ".join(text.split())
    return text if len(text) <= width else f"{text[: max(width - 1, 1)]}{REST}"


def fold(lines: Sequence[LeafLine], rows: int) -> Sequence[LeafLine]:
    """At most some lines: of paths that begin alike, and train alike, one; of the last a count."""
    depth = max((line.path.count("/") for line in lines), default=0)
    folded = lines
    while len(folded) > rows and depth >= 0:
        folded = list(_folded(lines, depth))
        depth -= 1
    return folded if len(folded) <= rows else [*folded[: rows - 1], _rest(folded[rows - 1 :])]


def _folded(lines: Sequence[LeafLine], depth: int) -> Iterator[LeafLine]:
    """One line for all that share the first parts of their paths, and their training."""
    groups: dict[tuple[str, str], list[LeafLine]] = {}
    for line in lines:
        parts = line.path.split("/")
        head = "/".join([*parts[:depth], REST]) if len(parts) > depth else line.path
        groups.setdefault((head, line.training), []).append(line)
    for (head, _), group in groups.items():
        yield group[0] if len(group) == 1 else _joined(head, group)


def _joined(path: str, lines: Sequence[LeafLine]) -> LeafLine:
    shapes = {line.array for line in lines}
    return lines[0]._replace(
        path=path,
        array=lines[0].array if len(shapes) == 1 else f"{len(shapes):,} shapes",
        arrays=sum(line.arrays for line in lines),
        bytes=sum(line.bytes for line in lines),
    )


def _rest(lines: Sequence[LeafLine]) -> LeafLine:
    line = _joined(f"{REST} {len(lines):,} more lines", lines)
    kinds = {one.training for one in lines}
    return line if len(kinds) == 1 else line._replace(training=f"{len(kinds):,} ways")
