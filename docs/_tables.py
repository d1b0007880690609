"""Markdown tables, and sentences of docstrings that fill them."""

import inspect
import re
from typing import Any

import gradtx


def paragraphs(name: str) -> list[str]:
    """The paragraphs of a public object's docstring, each on one line."""
    doc = inspect.getdoc(getattr(gradtx, name)) or ""
    return [" ".join(part.split()) for part in doc.split("\n\n")]


def split_sentences(text: str) -> list[str]:
    """Split at a period before a capital; "et al. 2020" and "1 .. B" stay whole."""
    return re.split(r"(?<=[^\s.]\.) (?=[A-Z])", text)


def summary(name: str) -> str:
    """The first sentence of a public object's docstring."""
    return first_sentence(getattr(gradtx, name))


def first_sentence(value: Any) -> str:
    """The first sentence; an equation within it has its own place."""
    first = (inspect.getdoc(value) or "").split("\n\n")[0]
    return re.sub(r": [^:]*←.*", ".", split_sentences(" ".join(first.split()))[0])


def cell(text: str) -> str:
    """Text for a cell: Markdown's signs, which are common in equations, are escaped."""
    parts = re.split(r"(`[^`]+`)", text)
    escaped = [
        part if part.startswith("`") else re.sub(r"([*<>\[\]\\]|(?<!\w)_|_(?!\w))", r"\\\1", part)
        for part in parts
    ]
    return "".join(escaped).replace("|", "\\|")


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def table(*rows: tuple[str, ...]) -> list[str]:
    """The lines of a table; the first row is its head."""
    return [row(*rows[0]), "|---" * len(rows[0]) + "|", *(row(*cells) for cells in rows[1:])]


def link(name: str, module: str = "gradtx") -> str:
    return f"[`{name}`](#{module}.{name})"
