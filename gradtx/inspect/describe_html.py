"""The HTML of a `Description`, and of a definition alone, for notebooks.

It is self-contained, and takes its colors from the page, so that it reads on light and dark ones.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

from gradtx.compose.transformation import GradientTransformation
from gradtx.definition.description import Description, LeafLine, MemberLine
from gradtx.definition.schedule import Schedule
from gradtx.definition.show import show
from gradtx.inspect.describe_text import (
    ROWS,
    array_text,
    cut,
    fold,
    number,
    short_number,
    title,
    value_text,
)
from gradtx.inspect.members import MemberNode, call_text, member_tree
from gradtx.training.hyperparams import leaves_by_address

MEMBERS = 200
"""The entries of a tree that a page shows."""
LONGEST = 300
"""The characters of one call or value that a page shows."""
STYLE = """<style>
.gradtx {font-size: 13px; line-height: 1.5; color: inherit; overflow-x: auto}
.gradtx code {background: none; color: inherit; padding: 0; font-size: 12px;
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: break-word}
.gradtx td:first-child code, .gradtx th {white-space: nowrap}
.gradtx details, .gradtx .gradtx-leaf {padding-left: 1.3em}
.gradtx summary {cursor: pointer; margin-left: -1.3em}
.gradtx .gradtx-note {opacity: 0.7; margin-left: 0.6em; white-space: nowrap}
.gradtx table {border-collapse: collapse; margin: 0.4em 0; color: inherit; background: none;
  font-size: 13px}
.gradtx th, .gradtx td {padding: 2px 12px 2px 0; text-align: left; vertical-align: baseline;
  border: 0; border-bottom: 1px solid rgba(128, 128, 128, 0.35); background: none; color: inherit}
.gradtx .gradtx-number {text-align: right; white-space: nowrap; padding-right: 12px;
  font-variant-numeric: tabular-nums}
.gradtx tr.gradtx-total td {font-weight: 600}
</style>"""


def description_html(description: Description) -> str:
    """A tree of members with their sizes, the learning rates, and the table of parameters."""
    members = description.members[:MEMBERS]
    tree = _tree([Entry(one.depth, _member(one)) for one in members], len(description.members))
    values = "".join(
        f"<div><code>{escape(value_text(one, description.count))}</code></div>"
        for one in description.values[:ROWS]
    )
    return _page(f"{tree}{values}{_table(description)}")


def definition_html(tx: GradientTransformation) -> str:
    """A tree of the members of a definition, each with its hyperparameters."""
    nodes = list(member_tree(tx).walk())
    entries = [Entry(one.depth, _call(one), _hyperparams(one)) for one in nodes[:MEMBERS]]
    return _page(_tree(entries, len(nodes)))


def _page(body: str) -> str:
    return f'<div class="gradtx">{STYLE}{body}</div>'


class Entry(NamedTuple):
    """One member in a tree: its HTML."""

    depth: int
    head: str
    body: str = ""
    """Below the head."""


def _tree(entries: Sequence[Entry], count: int) -> str:
    """Nested parts that open and close."""
    parts: list[str] = []
    still_open = 0
    following = [*(entry.depth for entry in entries[1:]), 0]
    for (depth, head, body), after in zip(entries, following, strict=True):
        parts += ["</details>"] * (still_open - depth)
        still_open = depth
        if after > depth:
            parts.append(f"<details open><summary>{head}</summary>{body}")
            still_open += 1
        else:
            parts.append(f'<div class="gradtx-leaf">{head}{body}</div>')
    parts += ["</details>"] * still_open
    more = count - len(entries)
    return "".join(parts) + (f"<div>and {more:,} more members</div>" if more else "")


def _member(member: MemberLine) -> str:
    kind = "array" if member.arrays == 1 else "arrays"
    arrays = f"{number(member.arrays)} {kind}, {number(member.parameters)} parameters"
    note = f"{arrays}, {number(member.bytes)} bytes of state"
    return f'{_code(title(member))}<span class="gradtx-note">{note}</span>'


def _call(node: MemberNode) -> str:
    name = call_text(node.tx).split("(")[0]
    return _code(f"{node.label}: {name}" if node.label else name)


def _code(text: str) -> str:
    return f"<code>{escape(cut(text, LONGEST))}</code>"


def _hyperparams(node: MemberNode) -> str:
    """The numbers and schedules of one transformation, without those of its members."""
    inside = {child.address[len(node.address)] for child in node.children}
    values = {
        ".".join(address): value
        for address, value in leaves_by_address(node.tx, Schedule).items()
        if address[0] not in inside
    }
    options = {
        name: value
        for name, value in node.tx.arguments.items()
        if name not in node.tx.factory.dynamic and _is_set(node.tx, name)
    }
    if node.tx.is_plain or not values | options:
        return ""
    rows = [(_code(name), _code(_value(one))) for name, one in (values | options).items()]
    return _rows(rows, 2)


def _is_set(tx: GradientTransformation, name: str) -> bool:
    """Whether an option differs from its default, and is not empty."""
    value, default = tx.arguments[name], tx.factory.signature.parameters[name].default
    is_empty = isinstance(value, Mapping | tuple) and not value
    return not is_empty and value is not default and show(value) != show(default)


def _value(value: object) -> str:
    return short_number(value) if isinstance(value, int | float) else show(value)


def _table(description: Description) -> str:
    lines = fold(description.leaves, ROWS)
    html = _leaves(description, lines)
    if len(lines) == len(description.leaves):
        return html
    every = _leaves(description, description.leaves[:LONGEST])
    count = f"all {len(description.leaves):,} lines"
    if len(description.leaves) > LONGEST:
        count = f"the first {LONGEST:,} of {len(description.leaves):,} lines"
    return f"{html}<details><summary>{count}</summary>{every}</details>"


def _leaves(description: Description, lines: Iterable[LeafLine]) -> str:
    rows = [
        (_code(one.path), _code(array_text(one)), escape(one.training), number(one.bytes))
        for one in lines
    ]
    shared = description.shared_bytes
    rows += [("shared", "", "", number(shared))] if shared else []
    total = ("total", f"{description.arrays:,} arrays", "", number(description.bytes))
    return _rows(rows, 3, ("parameters", "array", "trained by", "bytes of state"), total)


def _rows(
    rows: Sequence[Sequence[str]],
    text_columns: int,
    header: Sequence[str] = (),
    total: Sequence[str] = (),
) -> str:
    """A table of cells that are HTML already: text first, then numbers."""
    head = f"<thead><tr>{_cells(header, text_columns, 'th')}</tr></thead>" if header else ""
    body = "".join(f"<tr>{_cells(row, text_columns)}</tr>" for row in rows)
    last = f'<tr class="gradtx-total">{_cells(total, text_columns)}</tr>' if total else ""
    return f"<table>{head}<tbody>{body}{last}</tbody></table>"


def _cells(cells: Sequence[str], text_columns: int, tag: str = "td") -> str:
    marks = ["" if n < text_columns else ' class="gradtx-number"' for n in range(len(cells))]
    return "".join(f"<{tag}{mark}>{cell}</{tag}>" for mark, cell in zip(marks, cells, strict=True))
