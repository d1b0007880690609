"""Typeset docstrings and tables: their statements become math, and lists of updates are displayed.

Text that does not parse as a statement stays text.
"""

import re
from typing import NamedTuple

from _equations import Fail, Node, Parser, Token, acts, glued, tokens
from _latex import latex
from _tables import cell

CONTINUES = re.compile(
    r"\s*(?:$|[.,;:]|(?:with|where|as|then|and|before|from|in|for|after|at|by|so|until)\b)"
)
OF = " of "
BETWEEN = re.compile(r"(?:,|;|,? and|,? then|, and (?:only )?then|; then) ")
FIELD = re.compile(r"(?::\w+[^:]*:|[-*]|\d+\.) ")
LITERAL = (">>>", "..", "==", "|")
"""Blocks that stay as they are begin with one of these: examples, directives, tables."""
CELL = re.compile(r"(?<!\\)\|")
MARKUP = re.compile(r"(`[^`]*`|\[[^\]]*\]\([^)]*\)|<br>)")
ESCAPE = re.compile(r"\\([*<>\[\]\\|_])")


class Math(NamedTuple):
    """A statement in a text: its tree and its place."""

    node: Node
    start: int
    end: int

    @property
    def is_equation(self) -> bool:
        return len(self.node.parts) > 1 and self.node.parts[1] in ("=", r"\leftarrow")

    @property
    def is_update(self) -> bool:
        return r"\leftarrow" in self.node.parts


def statements(text: str, known: frozenset[str] = frozenset()) -> list[Math]:
    """The statements of a text. Letters that are `known` are math where they stand alone, too."""
    stream, place, result = tokens(text), 0, list[Math]()
    while place < len(stream) - 1:
        parser = Parser(stream, place)
        try:
            is_word = parser.is_article() and not acts(stream[place + 1])
            node = None if is_word else parser.statement()
        except Fail:
            node = None
        run = stream[place : parser.place]
        behind = stream[parser.place]
        if node is None or not is_math(run, known) or glued(behind) or acts(behind):
            place += 1
            continue
        result.append(Math(node, run[0].start, run[-1].start + len(run[-1].text)))
        place = parser.place
    return result


def is_math(run: list[Token], known: frozenset[str]) -> bool:
    """Whether a run has a symbol, and a sign that prose does not have."""
    letters = [token.text for token in run if token.kind == "letter"]
    if not letters and not {"√", "fan_in", "fan_out"} & {token.text for token in run}:
        return False
    marked = any(
        token.kind in ("sub", "sup", "prime")
        or not token.text.isascii()
        or token.text in ("+", "=", "<", ">", "^", ",")
        or (token.kind == "number" and not token.spaced and before.kind == "letter")
        for before, token in zip([run[0], *run], run, strict=False)
    )
    return marked or {*letters} <= known


def known_letters(text: str) -> frozenset[str]:
    """The letters of the statements of a text."""
    letters = {
        token.text
        for math in statements(text)
        for token in tokens(text[math.start : math.end])
        if token.kind == "letter"
    }
    return frozenset(letters - {"a", "A", "I"})


def displays(text: str, found: list[Math]) -> list[list[Math]]:
    """The groups of statements that are displayed: updates with nothing but commas between them,
    behind which the sentence ends or goes on in words. One update alone stands behind a colon.
    """
    groups = list[list[Math]]()
    for math in found:
        between = text[groups[-1][-1].end : math.start] if groups else ""
        goes_on = math.is_equation and BETWEEN.fullmatch(between)
        if groups and groups[-1][0].is_equation and (between == OF or goes_on):
            groups[-1].append(math)
        else:
            groups.append([math])
    return [
        group
        for group in groups
        if group[0].is_equation and any(math.is_update for math in group)
        if len(group) > 1 or text[: group[0].start].endswith((": ", "; "))
        if CONTINUES.match(text[group[-1].end :])
    ]


def inline(text: str, known: frozenset[str], role: str) -> str:
    """A text with its statements in a role: `:math:` (reStructuredText), `{math}` (Markdown)."""
    parts, place = list[str](), 0
    gap = "\\ " if role.startswith(":") else ""
    for math in statements(text, known):
        formula = tidy(latex(math.node, display=False))
        parts += [text[place : math.start], f"{gap}{role}`{formula}`{gap}"]
        place = math.end
    return "".join([*parts, text[place:]])


def paragraph(text: str, known: frozenset[str]) -> list[str]:
    """A paragraph in reStructuredText, its lists of updates displayed."""
    lines, place = list[str](), 0
    for group in displays(text, statements(text)):
        lines += prose(text[place : group[0].start], known)
        end = group[-1].end
        mark = text[end : end + 1] if text[end : end + 1] in (".", ",", ";") else ""
        lines += [*display(text, group, mark), ""]
        place = end + len(mark)
    return [*lines, *prose(text[place:], known)]


def prose(text: str, known: frozenset[str]) -> list[str]:
    return [inline(text.strip(), known, ":math:"), ""] if text.strip() else []


def display(text: str, group: list[Math], mark: str) -> list[str]:
    """A displayed list of statements, aligned at their first relations."""
    rows = list[str]()
    for before, math in zip([None, *group], group, strict=False):
        if before is not None and text[before.end : math.start] == OF:
            rows[-1] += rf" \text{{ of }} {latex(math.node, display=True)}"
        else:
            rows.append(aligned(math.node))
    body = " \\\\ ".join(rows)
    return [".. math::", "", tidy(rf"   \begin{{aligned}} {body}{mark} \end{{aligned}}")]


def tidy(formula: str) -> str:
    """A formula without double spaces, and without one at its end, which a role may not have."""
    return re.sub(r"(?<=\S) +", " ", formula).rstrip()


def aligned(node: Node) -> str:
    left, relation, *right = [latex(part, display=True) for part in node.parts]
    return f"{left} &{relation} {' '.join(right)}"


def docstring(lines: list[str]) -> list[str]:
    """The lines of a docstring in reStructuredText, with its equations as math."""
    texts = [FIELD.sub("", line.strip()) for line in lines if not line.lstrip().startswith(">>>")]
    known = known_letters(" ".join(texts))
    result = list[str]()
    for block in blocks(lines):
        if len(block) > 2 and set(block[1].strip()) == set("|-"):
            result += list_table(block)
        elif not block[0].strip() or block[0].lstrip().startswith(LITERAL):
            result += block
        elif FIELD.match(block[0]) or any(line[:1].isspace() for line in block):
            result += [item(line, known) for line in joined_items(block)]
        else:
            result += paragraph(" ".join(block), known)
    return result


def list_table(block: list[str]) -> list[str]:
    """A table of Markdown as a directive of reStructuredText."""
    depth, rows = " " * indent(block[0]), [block[0], *block[2:]]
    known = known_letters(" ".join(block))
    lines = [f"{depth}.. list-table::", f"{depth}   :header-rows: 1", ""]
    for row in rows:
        cells = [
            inline(text.strip(), known, ":math:") for text in row.strip().strip("|").split("|")
        ]
        lines += [f"{depth}   {'*' if first else ' '} - {text}" for first, text in marked(cells)]
    return lines


def marked(cells: list[str]) -> list[tuple[bool, str]]:
    return [(number == 0, text) for number, text in enumerate(cells)]


def item(line: str, known: frozenset[str]) -> str:
    """A field or an item of a list; the name of an argument is not math."""
    depth = indent(line)
    mark = FIELD.match(line[depth:])
    start = depth + (mark.end() if mark else 0)
    return line[:start] + inline(line[start:], known, ":math:")


def blocks(lines: list[str]) -> list[list[str]]:
    """Runs of lines; each empty line is a run."""
    runs = list[list[str]]()
    for line in lines:
        if line.strip() and runs and runs[-1] and runs[-1][0].strip():
            runs[-1].append(line)
        else:
            runs.append([line])
    return runs


def joined_items(block: list[str]) -> list[str]:
    """Each field or item of a list on one line."""
    items = list[str]()
    for line in block:
        depth = len(line) - len(line.lstrip())
        inside = items and FIELD.match(items[-1].lstrip()) and depth > indent(items[-1])
        if inside and not FIELD.match(line.lstrip()):
            items[-1] += f" {line.strip()}"
        else:
            items.append(line)
    return items


def indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def markdown_row(line: str) -> str:
    """A row of a Markdown table with its statements as math."""
    plain = ESCAPE.sub(r"\1", line)
    known = known_letters(MARKUP.sub(" ` ", plain))
    return "|".join(markdown_cell(text, known) for text in CELL.split(line))


def markdown_cell(text: str, known: frozenset[str]) -> str:
    parts = MARKUP.split(text)
    return "".join(
        part if number % 2 else escaped(inline(ESCAPE.sub(r"\1", part), known, "{math}"))
        for number, part in enumerate(parts)
    )


def escaped(text: str) -> str:
    """Text with Markdown's signs escaped, but for its roles."""
    parts = re.split(r"(\{math\}`[^`]*`)", text)
    return "".join(part if number % 2 else cell(part) for number, part in enumerate(parts))
