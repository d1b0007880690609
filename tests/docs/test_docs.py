"""The docs are true: pages print their outputs, list every name, and link to existing targets."""

import enum
import inspect
import json
import re
import runpy
import types
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

import gradtx
from tests.support.blocks import BLOCK, run_blocks
from tests.support.peer import optax
from tests.support.places import ROOT

DOCS = ROOT / "docs"
generate = types.SimpleNamespace(**runpy.run_path(str(DOCS / "_generate.py")))
PAGES = sorted(DOCS.glob("*.md"))
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


CELLS = [page for page in PAGES if "```{code-cell}" in page.read_text(encoding="utf-8")]
"""Pages whose code the build of the docs runs, for what they draw; no test runs it again."""


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page not in CELLS], ids=lambda page: page.stem
)
def test_page_prints_its_outputs(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mpl.use("agg")
    monkeypatch.syspath_prepend(str(DOCS))
    for block in run_blocks(page):
        assert block.shown is None or block.printed == block.shown, f"{page.name}:{block.line}"


def test_pages_of_cells_are_run_by_the_build_which_fails_where_they_do() -> None:
    settings = (DOCS / "conf.py").read_text(encoding="utf-8")
    assert 'nb_execution_mode = "force"\nnb_execution_raise_on_error = True' in settings
    assert CELLS and all("```python" not in page.read_text(encoding="utf-8") for page in CELLS)


def test_pages_are_in_the_index() -> None:
    toctree = re.search(
        r"^```\{toctree\}\n(.*?)^```$",
        (DOCS / "index.md").read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    assert toctree is not None
    assert {*toctree[1].split()} - {":hidden:"} == {page.stem for page in PAGES} - {"index"}


def test_every_block_that_prints_shows_its_output() -> None:
    """The build adds the output of code cells; a page writes that of every other block."""
    for page in PAGES:
        for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
            assert match[2] is not None or "print(" not in match[1], f"{page.name}: {match[1]}"


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        if "://" not in link and path:
            assert (page.parent / path).exists(), f"{page.name}: {link}"
        if anchor and "://" not in link and not anchor.startswith("gradtx."):
            assert anchor in headings((page.parent / path) if path else page), (
                f"{page.name}: {link}"
            )


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


DIRECTIVE = re.compile(r"^\.\. (?:auto\w+|py:data):: (\w+)$", re.MULTILINE)


def test_every_public_name_is_in_the_api_once() -> None:
    """In the sections before that of sharding, which begins the other modules."""
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    listed = DIRECTIVE.findall(text.split("## Sharding")[0])
    modules = re.findall(r"<!-- table: module (\w+) -->", text)
    others = {name for module in modules for name in generate.module_names(module)}
    assert len(listed) == len({*listed})
    assert {*listed} - others == {*generate.public()} - others
    assert others <= {*DIRECTIVE.findall(text)}


def test_errors_and_test_helpers_are_in_the_api() -> None:
    listed = DIRECTIVE.findall((DOCS / "api.md").read_text(encoding="utf-8"))
    errors = (ROOT / "gradtx" / "tree" / "errors.py").read_text(encoding="utf-8")
    kinds = re.findall(r"^class (\w+)\(GradtxError\)", errors, re.MULTILINE)
    helpers = re.findall(
        r"^from gradtx\.\S+ import \w+ as (\w+)$",
        (ROOT / "gradtx" / "testing" / "__init__.py").read_text(),
        re.MULTILINE,
    )
    assert kinds and helpers
    assert {*kinds, *helpers} <= {*listed}


OTHER_SIGNATURES = {
    "dpsgd",
    *("Schedule", "State", "GradientTransformation", "EmptyState"),
    *("GradientTransformationExtraArgs", "ZoomLinesearchInfo"),
    *(
        "chain",
        "global_norm",
        "masked",
        "multi_transform",
        "partition",
        "scale_by_factored_rms",
        "scale_by_learning_rate",
    ),
    *("muon", "scale_by_muon"),
}
"""Classes, and functions whose difference docs/from_optax.md explains, or that require arguments
which Optax does not have.
"""


def arguments(function: Any) -> list[tuple[str, Any]]:
    """Names and defaults; functions and transformations are equal, whichever library's they are."""
    pairs = [
        (parameter.name, parameter.default)
        for parameter in inspect.signature(function).parameters.values()
    ]
    return [
        (
            name,
            str(default)  # a member of an Enum: each library has its own
            if isinstance(default, enum.Enum)
            else "an object"
            if (callable(default) or hasattr(default, "update"))
            and default is not inspect.Parameter.empty
            else default,
        )
        for name, default in pairs
    ]


def peer(name: str) -> Any:
    """Optax's function of that name, of `optax` or of `optax.contrib`."""
    return getattr(optax.contrib, name, None) or getattr(optax, name, None)


@pytest.mark.parametrize(
    "name",
    sorted(
        name
        for name, module in generate.public().items()
        if name not in OTHER_SIGNATURES and peer(name) is not None
        if module not in ("definition.annotations", "definition.types")  # types for annotations
    ),
)
def test_arguments_and_defaults_are_those_of_optax(name: str) -> None:
    """In their order; more may follow."""
    theirs = arguments(peer(name))
    assert arguments(getattr(gradtx, name))[: len(theirs)] == theirs


@pytest.mark.parametrize("page", generate.pages(), ids=lambda page: page.stem)
def test_generated_tables_are_those_of_the_code(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert generate.fill(text) == text, "run `python docs/_generate.py`"


def test_every_optimizer_has_one_row() -> None:
    text = (DOCS / "optimizers.md").read_text(encoding="utf-8")
    names = re.findall(r"^\| \[`(\w+)`\]\(#gradtx\.\1\) \|", text, re.MULTILINE)
    assert (
        sorted(names)
        == generate.optimizers()
        == [path.stem for path in sorted((ROOT / "gradtx" / "optimizers").glob("[a-z]*.py"))]
    )
    groups = {name: generate.is_matrix_method(name) for name in names}
    assert groups["muon"] and groups["soap"] and not groups["adamw"] and not groups["adafactor"]


@pytest.mark.parametrize("name", generate.optimizers())
def test_a_row_is_complete_and_its_bytes_are_those_of_the_docstring(name: str) -> None:
    _, method, size, state, _, paper = generate.optimizer_row(name)
    first, _, equation = method.partition("<br>")
    assert first.endswith(".") and "←" in equation and re.search(r"\b(19|20)\d\d\b", paper)
    # Matrix methods, `lbfgs` and factored moments state a formula; its value is the measured one.
    assert re.search(rf"\b{size}\b", state) or name == "dion", state


def test_the_table_of_measurements_is_that_of_the_last_record() -> None:
    last = max((ROOT / "benchmarks" / "records").glob("*-quality.json"))
    rows = json.loads(last.read_text(encoding="utf-8"))["rows"]
    table = re.findall(
        r"^\| `(\w+)` \| ([\d.e+-]+) \| ([\d.]+) \| ([\d.]+)% \| ([\d.,]+) \|$",
        (DOCS / "choose.md").read_text(),
        re.MULTILINE,
    )
    assert [name for name, *_ in table] == [
        row["optimizer"] for row in sorted(rows, key=lambda row: row["loss"])
    ]
    measured = {row["optimizer"]: row for row in rows}
    for name, rate, loss, accuracy, valley in table:
        row = measured[name]
        cells = float(rate), float(loss), float(accuracy) / 100, float(valley.replace(",", ""))
        assert cells == pytest.approx(
            (row["rate"], row["loss"], row["accuracy"], row["valley"]), rel=0.05
        ), name
