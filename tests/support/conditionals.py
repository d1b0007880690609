"""The parts of a compiled program that a conditional runs, and the rest of it."""

import re
from typing import NamedTuple

HEAD = re.compile(r"^(?:ENTRY )?%?(?P<name>[\w.\-]+) .*\{$")
BRANCHES = re.compile(
    r"branch_computations=\{(?P<all>[^}]*)\}|(?:true|false)_computation=(?P<one>%?[\w.\-]+)"
)
CALLED = re.compile(r"(?:calls|to_apply|body|condition)=%?([\w.\-]+)")


class Parts(NamedTuple):
    """The text of a program in two parts."""

    always: str
    """The lines that every run executes."""
    branches: str
    """The lines of branches of conditionals, and of the computations that these call."""


def split_conditionals(text: str) -> Parts:
    """Read the text of a compiled program."""
    bodies: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        if (head := HEAD.match(line)) is not None:
            name = head["name"]
        bodies.setdefault(name, []).append(line)
    inside = {one for lines in bodies.values() for line in lines for one in _branches(line)}
    todo = list(inside)
    while todo:
        called = CALLED.findall("\n".join(bodies.get(todo.pop(), [])))
        todo += [one for one in called if one not in inside]
        inside.update(called)
    groups = ([], [])
    for name, lines in bodies.items():
        groups[name in inside].extend(lines)
    return Parts(*("\n".join(lines) for lines in groups))


def _branches(line: str) -> list[str]:
    if " conditional(" not in line:
        return []
    found = [one["all"] or one["one"] for one in BRANCHES.finditer(line)]
    return [name.strip().lstrip("%") for names in found for name in names.split(",")]
