"""Write the tables of docs/optimizers.md, docs/api/*.md, docs/recipes/index.md and docs/parity.md
from the code.

A page holds `<!-- table: NAME ARGUMENTS -->` and `<!-- end -->`; `fill` writes the lines between
them. Every build of the docs calls it. `python docs/_generate.py` writes the pages of the
repository, for readers of the repository.
"""

import importlib
import inspect
import math
import pkgutil
import re
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

sys.path.insert(0, str(Path(__file__).parent))  # where tests run this file by its path

import _api
from _records import RECORDS, evidence_table, record_table
from _tables import cell, link, paragraphs, split_sentences, summary, table

import gradtx
import gradtx.optimizers
from gradtx.definition.optax_states import CLASSES

DOCS = Path(__file__).parent
MARKER = re.compile(r"(<!-- table: (\w+) ?([^\n]*?) -->\n).*?(<!-- end -->)", re.DOTALL)
VECTOR, MATRIX = (1024,), (128, 128)


def equation(name: str) -> str:
    """The sentence that holds the update, without the shapes that it applies to."""
    before = [part for part in paragraphs(name) if not part.startswith(("When", "Args"))]
    sentences = [text for part in before for text in split_sentences(part)]
    text = next(text for text in sentences if "←" in text)
    return re.sub(r"^(For every array, all of one shape|[^←:]*): ", "", text).rstrip(".")


def state(name: str) -> str:
    """The State line, without its heading and its unit, which the head of the column says."""
    text = next(part for part in paragraphs(name) if part.startswith("State:"))
    text = text.removeprefix("State:").strip().rstrip(".")
    return re.sub(r"(\d+) bytes per parameter", r"\1", text)


def papers(name: str) -> str:
    """Authors and year of each source, with its link where arXiv has it."""
    text = next(part for part in reversed(paragraphs(name)) if re.search(r"\b(19|20)\d\d\b", part))
    return "; ".join(filter(None, map(paper, text.split("; "))))


def paper(clause: str) -> str:
    authors = re.match(r"(?:[^:]*: )?([A-ZÀ-Ž].*?\b(?:19|20)\d\d)\b", clause)
    if authors is None:
        return ""
    number = re.search(r"arXiv (\d{4}\.\d{4,5})", clause)
    return f"[{authors[1]}](https://arxiv.org/abs/{number[1]})" if number else authors[1]


# Definitions


def optimizers() -> list[str]:
    """Every optimizer: one file each."""
    return sorted(module.name for module in pkgutil.iter_modules(gradtx.optimizers.__path__))


def is_matrix_method(name: str) -> bool:
    """Whether a method treats weights as matrices: it then has an argument for their axes."""
    return "dimensions" in argument_names(getattr(gradtx, name))


def argument_names(maker: Callable[..., Any]) -> set[str]:
    """The arguments of a function, and the keys of its typed flags."""
    parameters = inspect.signature(maker).parameters
    flags = [
        key
        for parameter in parameters.values()
        for flag_type in typing.get_args(parameter.annotation)
        if parameter.kind is parameter.VAR_KEYWORD
        for key in typing.get_type_hints(flag_type)
    ]
    return {*parameters, *flags}


def example(name: str) -> gradtx.GradientTransformation:
    """The optimizer at its defaults; each argument without one is a number, here 0.1."""
    maker = getattr(gradtx, name)
    required = [
        parameter.name
        for parameter in inspect.signature(maker).parameters.values()
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
    ]
    return maker(**dict.fromkeys(required, 0.1))


def bytes_per_parameter(tx: gradtx.GradientTransformation, shape: tuple[int, ...]) -> float:
    # The name is a hidden matrix by its role, and one that `muon_clip` looks for.
    slots = jax.eval_shape(tx.init, {"query": jax.ShapeDtypeStruct(shape, "float32")}).slots
    sizes = [leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(slots)]
    return sum(sizes) / math.prod(shape)


def state_table() -> list[str]:
    """Optax's classes of states, with the member and the fields of each."""
    rows = (
        (f"`{name}`", f"`{member}`" if member.isidentifier() else "any" if member else "–", fields)
        for name, (member, fields) in CLASSES.items()
    )
    shown = ((name, member, re.sub(r"(\w+)", r"`\1`", fields)) for name, member, fields in rows)
    return table(("class", "member", "fields"), *shown)


# Tables


def optimizer_row(name: str) -> tuple[str, ...]:
    tx, shape = example(name), MATRIX if is_matrix_method(name) else VECTOR
    return (
        link(name),
        f"{cell(summary(name))}<br>{cell(equation(name))}",
        f"{bytes_per_parameter(tx, shape):.0f}",
        cell(state(name)),
        ", ".join(sorted(tx.needs)) or "–",
        papers(name),
    )


def optimizer_table(group: str) -> list[str]:
    """The rows of one group, "arrays" or "matrices"."""
    head = (
        "optimizer",
        "method and step",
        "bytes",
        "state",
        "needs",
        "paper",
    )
    names = [name for name in optimizers() if is_matrix_method(name) == (group == "matrices")]
    return table(head, *map(optimizer_row, names))


def recipe_table() -> list[str]:
    """Each recipe by its title, with its first sentence, and their order in the navigation."""
    recipes = [path for path in sorted((DOCS / "recipes").glob("*.md")) if path.stem != "index"]
    rows = ((f"[{title(path)}]({path.name})", cell(first_prose(path))) for path in recipes)
    toctree = ["```{toctree}", ":hidden:", "", *(path.stem for path in recipes), "```"]
    return [*table(("recipe", "it shows"), *rows), "", *toctree]


def title(page: Path) -> str:
    return re.search(r"^# (.+)$", page.read_text("utf-8"), re.MULTILINE)[1]


def first_prose(page: Path) -> str:
    """The first sentence below the title of a page."""
    text = page.read_text("utf-8").split(f"# {title(page)}\n", 1)[1].strip()
    return split_sentences(" ".join(text.split("\n\n")[0].split()))[0]


def parity_tables() -> dict[str, Callable[[str], list[str]]]:
    """The deviations of a run, which needs Optax and takes a minute: `tests.support.parity`."""
    sys.path.insert(0, str(DOCS.parent))
    parity = importlib.import_module("tests.support.parity")
    return {"parity": lambda _: parity.lines(), "functions": lambda _: parity.function_lines()}


RENDERERS: dict[str, Callable[[str], list[str]]] = {
    "optimizers": optimizer_table,
    "api": _api.section,
    "module": _api.module_section,
    "recipes": lambda _: recipe_table(),
    "states": lambda _: state_table(),
}
"""The function of each kind of table."""
if RECORDS.exists():  # a copy without the records keeps their tables
    RENDERERS |= {"record": record_table, "evidence": evidence_table}


def fill(text: str, **more: Callable[[str], list[str]]) -> str:
    """Write the tables of a page anew; a table without a renderer stays unchanged."""
    kinds = RENDERERS | more

    def write(marker: re.Match[str]) -> str:
        if marker[2] not in kinds:
            return marker[0]
        lines = kinds[marker[2]](marker[3])
        return "\n".join([marker[1], *lines, "", marker[4]])

    return MARKER.sub(write, text)


def pages() -> list[Path]:
    sources = (path for path in sorted(DOCS.rglob("*.md")) if "_build" not in path.parts)
    return [path for path in sources if MARKER.search(path.read_text("utf-8"))]


def main() -> None:
    """Write the tables of every page; `--parity` measures those of docs/parity.md, too."""
    more = parity_tables() if "--parity" in sys.argv else {}
    for page in pages():
        page.write_text(fill(page.read_text("utf-8"), **more), "utf-8")


if __name__ == "__main__":
    main()
