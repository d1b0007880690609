"""The pages of the API, docs/api/*.md: the page of each public name, its row and its entry.

A page holds `<!-- table: api PATTERN -->`. It lists the names whose `module.name` matches the
pattern, but for those of an earlier page and those that a page writes by hand. The order of the
pages is that of docs/api.md.
"""

import functools
import importlib
import inspect
import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from _tables import cell, first_sentence, link, table

import gradtx
from gradtx._lazy import exports

DOCS = Path(__file__).parent
PATTERN = re.compile(r"^<!-- table: api (\S+) -->$", re.MULTILINE)
TABLE = re.compile(r"^<!-- table: .*?<!-- end -->$", re.DOTALL | re.MULTILINE)
ENTRY = re.compile(r"^\.\. (auto(?:class|function|exception)|py:data):: (\w+)$(.*)", re.MULTILINE)
MODULE = re.compile(r"^\.\. currentmodule:: (\S+)$", re.MULTILINE)


class Entries(NamedTuple):
    """The names of one page: those that it writes by hand, and those of its pattern."""

    by_hand: list[str]
    generated: list[str]


def public() -> dict[str, str]:
    """Every public name with its module, but for modules and Optax's classes of states."""
    return {
        name: module.removeprefix("gradtx.")
        for name, (module, attribute) in exports("gradtx").items()
        if attribute is not None and module != "gradtx.interop.state_classes"
    }


def page_names() -> list[str]:
    """The pages in the order of docs/api.md."""
    text = (DOCS / "api.md").read_text("utf-8")
    return re.findall(r"^api/(\w+)$", text, re.MULTILINE)


def read(page: str) -> str:
    return (DOCS / "api" / f"{page}.md").read_text("utf-8")


def written_by_hand(text: str) -> list[str]:
    """The names of gradtx's root whose entries a page writes itself."""
    blocks = MODULE.split(TABLE.sub("", text))
    pairs = zip(blocks[1::2], blocks[2::2], strict=True)
    return [
        name for module, body in pairs if module == "gradtx" for _, name, _ in ENTRY.findall(body)
    ]


@functools.cache
def entries() -> dict[str, Entries]:
    """The names of each page; a name that no pattern matches is on none."""
    texts = {page: read(page) for page in page_names()}
    by_hand = {page: written_by_hand(text) for page, text in texts.items()}
    left = dict(sorted(public().items()))
    for name in (name for names in by_hand.values() for name in names):
        left.pop(name, None)
    result = dict[str, Entries]()
    for page, text in texts.items():
        patterns = PATTERN.findall(text)
        matches = [
            name
            for name, module in left.items()
            if any(re.match(pattern, f"{module}.{name}") for pattern in patterns)
        ]
        result[page] = Entries(by_hand[page], matches)
        for name in matches:
            del left[name]
    return result


def missing() -> list[str]:
    """A sentence for each public name that no page lists: which page to add it to."""
    listed = {name for names in entries().values() for name in (*names.by_hand, *names.generated)}
    modules = {name for page in page_names() for name in names_of_modules(read(page))}
    return [
        f"gradtx.{name} is on no page of the API: {suggest_page(name, module)}"
        for name, module in public().items()
        if name not in listed and name not in modules
    ]


def suggest_page(name: str, module: str) -> str:
    """The cure: the page of the module, or that with most names of the same room."""
    room = module.partition(".")[0]
    if f"<!-- table: module {room} -->" in "".join(map(read, page_names())):
        return f"export it from gradtx.{room}, whose names docs/api/{room}.md lists"
    pages = Counter(
        page
        for page, names in entries().items()
        for other in (*names.by_hand, *names.generated)
        if public()[other].partition(".")[0] == room
    )
    page = pages.most_common(1)[0][0] if pages else "training"
    return (
        f"widen the pattern of `<!-- table: api ... -->` in docs/api/{page}.md so that it matches "
        f"{module}.{name}, and run `python docs/_generate.py`"
    )


def names_of_modules(text: str) -> set[str]:
    """The names of the modules that a page lists by `<!-- table: module NAME -->`."""
    modules = re.findall(r"^<!-- table: module (\w+) -->$", text, re.MULTILINE)
    return {name for module in modules for name in module_names(module)}


def section(pattern: str) -> list[str]:
    """The table of a page, and the entries of the names that its pattern matches."""
    page = next(page for page in page_names() if f"<!-- table: api {pattern} -->" in read(page))
    by_hand, generated = entries()[page]
    data = descriptions(read(page))
    rows = (
        (link(name), cell(data.get(name) or first_sentence(getattr(gradtx, name))))
        for name in (*by_hand, *generated)
    )
    return [
        *table(("name", "purpose"), *rows),
        "",
        *directives("gradtx", generated),
    ]


def descriptions(text: str) -> dict[str, str]:
    """The first line below each `py:data` of a page."""
    return dict(re.findall(r"^\.\. py:data:: (\w+)\n\n +(\S.*)$", text, re.MULTILINE))


def directives(module: str, names: list[str]) -> list[str]:
    """The entries of names in reStructuredText, for autodoc."""
    package = importlib.import_module(module)
    lines = [f".. auto{kind(getattr(package, name))}:: {name}\n" for name in names]
    return [f"```{{eval-rst}}\n.. currentmodule:: {module}\n", *lines, "```"] if names else []


def kind(value: Any) -> str:
    """The directive of autodoc for a value."""
    if not inspect.isclass(value):
        return "function"
    return "exception" if issubclass(value, BaseException) else "class"


def module_names(name: str) -> list[str]:
    """The public functions and classes of a module or a package of gradtx."""
    module = importlib.import_module(f"gradtx.{name}")
    names = getattr(module, "__all__", None) or [
        key for key, one in vars(module).items() if defined_in(one, module.__name__)
    ]
    return sorted(
        one for one in names if not one.startswith("_") and callable(getattr(module, one))
    )


def defined_in(value: Any, module: str) -> bool:
    return f"{getattr(value, '__module__', '')}.".startswith(f"{module}.")


def module_section(name: str) -> list[str]:
    """A table of all that a module has, and the entry of each."""
    module, names = importlib.import_module(f"gradtx.{name}"), module_names(name)
    rows = (
        (link(one, f"gradtx.{name}"), cell(first_sentence(getattr(module, one)))) for one in names
    )
    return [
        *table(("name", "purpose"), *rows),
        "",
        *directives(f"gradtx.{name}", names),
    ]
