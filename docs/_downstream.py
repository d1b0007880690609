"""Write the tables of docs/downstream.md from the record of the benchmark and from the facts.

`python docs/_downstream.py` writes the page. It needs Optax, which says which names are public.
"""

import importlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from _generate import cell, fill, table

import gradtx

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))
names: Any = importlib.import_module("tests.downstream.names")
PAGE = DOCS / "downstream.md"
RECORDS = DOCS.parent / "benchmarks" / "records"


def record() -> Mapping[str, Any]:
    """The newest record of `benchmarks.downstream`."""
    path = max(RECORDS.glob("*-downstream.json"))
    return json.loads(path.read_text("utf-8"))


def difference(row: Mapping[str, Any], way: str) -> str:
    """A number, "0" for equal bits, or the answer of a library that refuses other classes."""
    value = row[way]
    if isinstance(value, str):
        refuses = way == "direct" and row["checks_type"] and value.startswith("TypeError")
        return "refused" if refuses else cell(value)
    return f"{value:.0e}" if value else "0"


def library_table() -> list[str]:
    rows = [
        (
            row["package"],
            row["version"],
            cell(row["feature"]),
            difference(row, "direct"),
            difference(row, "to_optax"),
        )
        for row in record()["rows"]
    ]
    head = ("library", "version", "feature", "changed import", "`to_optax`")
    return table(head, *sorted(rows, key=lambda row: row[0].lower()))


def circumstances() -> list[str]:
    facts = record()
    versions = facts["versions"]
    return [
        f"Measured on {facts['date'][:10]} with Python {facts['python']}, JAX {versions['jax']} "
        f"and Optax {versions['optax']}."
    ]


def uses() -> dict[str, Any]:
    optax: ModuleType = importlib.import_module("optax")
    return {name: names.use_of(entry, optax, gradtx) for name, entry in names.read().items()}


def count_line() -> list[str]:
    every = uses()
    complete = sum(use.is_complete for use in every.values())
    used = {name for use in every.values() for name in use.present | use.missing}
    missing = {name for use in every.values() for name in use.missing}
    return [
        f"{complete} of {len(every)} sources find every public name that they use; of the "
        f"{len(used)} names {len(used) - len(missing)} exist."
    ]


def name_table() -> list[str]:
    """A row per repository: what was read, how many names exist, and which do not."""
    rows, every = [], uses()
    for repository, entry in names.read().items():
        use = every[repository]
        public = len(use.present) + len(use.missing)
        missing = ", ".join(f"`{name}`" for name in sorted(use.missing)) or "–"
        rows.append((repository, cell(entry.source), f"{len(use.present)} of {public}", missing))
    return table(("repository", "read", "present", "missing"), *rows)


def private_table() -> list[str]:
    """The names of `optax._src` that the repositories import, with the public spelling."""
    optax: ModuleType = importlib.import_module("optax")
    private = sorted({name for use in uses().values() for name in use.private})
    rows = [
        (f"`optax.{name}`", f"`gradtx.{public}`" if public else "none")
        for name in private
        for public in [names.public_spelling(optax, name)]
    ]
    return table(("private name", "public spelling"), *rows)


TABLES: Mapping[str, Callable[[], list[str]]] = {
    "circumstances": circumstances,
    "libraries": library_table,
    "count": count_line,
    "names": name_table,
    "private": private_table,
}


def render(text: str) -> str:
    return fill(text, downstream=lambda name: TABLES[name]())


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text("utf-8")), "utf-8")
