"""The docs are true: pages print their outputs, list every name, and link to existing targets."""

import enum
import importlib
import inspect
import json
import operator
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

import gradtx
from gradtx.storage.codec import CODECS
from tests.support.blocks import BLOCK, run_blocks
from tests.support.peer import optax
from tests.support.places import ROOT

DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))
generate, api = importlib.import_module("_generate"), importlib.import_module("_api")
PAGES = sorted(
    path for path in DOCS.rglob("*.md") if not {"_build", "jupyter_execute"} & {*path.parts}
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
TOCTREE = re.compile(r"^```\{toctree\}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RECIPE_SECONDS = 40
"""CPU seconds of a recipe: 20 on the clock, on two cores."""


def name_of(page: Path) -> str:
    """A page's path below docs/, without its suffix: `recipes/sweep`."""
    return page.relative_to(DOCS).with_suffix("").as_posix()


CELLS = [page for page in PAGES if "```{code-cell}" in page.read_text(encoding="utf-8")]
"""Pages whose code the build of the docs runs, for what they draw; no test runs it again."""


@pytest.fixture
def own_codecs() -> Iterator[None]:
    """A codec that a page registers is gone after it: other tests list the names."""
    before = dict(CODECS)
    yield
    CODECS.clear()
    CODECS.update(before)


@pytest.mark.usefixtures("own_codecs")
@pytest.mark.parametrize("page", [page for page in PAGES if page not in CELLS], ids=name_of)
def test_page_prints_its_outputs(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mpl.use("agg")
    monkeypatch.syspath_prepend(str(DOCS))
    start = time.process_time()
    for block in run_blocks(page):
        assert block.shown is None or block.printed == block.shown, f"{page.name}:{block.line}"
    assert page.parent.name != "recipes" or time.process_time() - start < RECIPE_SECONDS


def test_pages_of_cells_are_run_by_the_build_which_fails_where_they_do() -> None:
    settings = (DOCS / "conf.py").read_text(encoding="utf-8")
    assert 'nb_execution_mode = "force"\nnb_execution_raise_on_error = True' in settings
    assert CELLS and all("```python" not in page.read_text(encoding="utf-8") for page in CELLS)


def children(page: Path) -> list[str]:
    """The pages that the toctrees of a page list, by their paths below docs/."""
    lines = "\n".join(TOCTREE.findall(page.read_text(encoding="utf-8"))).split("\n")
    return [
        name_of((page.parent / line).with_suffix(".md"))
        for line in lines
        if line and not line.startswith(":")
    ]


def test_pages_are_in_the_navigation_once() -> None:
    listed = [child for page in PAGES for child in children(page)]
    assert sorted(listed) == sorted({*map(name_of, PAGES)} - {"index"}), (
        "list the page in a toctree of docs/index.md, or run `python docs/_generate.py`"
    )


def test_every_block_that_prints_shows_its_output() -> None:
    """The build adds the output of code cells; a page writes that of every other block."""
    for page in PAGES:
        for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
            assert match[2] is not None or "print(" not in match[1], f"{page.name}: {match[1]}"


CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
IMAGE = re.compile(r"!\[([^\]]*)\]\(")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_code_that_a_reader_sees_needs_nothing_of_this_folder(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    cells = [cell for cell in CELL.findall(text) if "remove-" not in cell]
    for code in (*cells, *(block for block, _ in BLOCK.findall(text))):
        assert "_plots" not in code, f"{page.name}: a reader cannot import {code}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_image_says_what_is_seen(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert all(len(alt) >= 30 for alt in IMAGE.findall(text)), IMAGE.findall(text)
    pictures = [cell for cell in CELL.findall(text) if "_plots.draw" in cell]
    assert all("alt:" in cell for cell in pictures), "a cell that draws needs an alt text"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_table_is_not_cut_by_an_empty_line(page: Path) -> None:
    """Rows behind an empty line have no head: they would be read as text with pipes."""
    code = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
    blocks = code.sub("", page.read_text(encoding="utf-8")).split("\n\n")
    for lines in (block.strip("\n").split("\n") for block in blocks if block.startswith("| ")):
        assert len(lines) > 1 and re.fullmatch(r"[|: -]+", lines[1]), lines[0]


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *PAGES], ids=lambda page: str(page.relative_to(ROOT))
)
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
    assert not api.missing(), "\n".join(api.missing())
    entries = api.entries()
    listed = [name for page in entries.values() for name in (*page.by_hand, *page.generated)]
    modules = {name for page in API for name in api.names_of_modules(page.read_text("utf-8"))}
    assert len(listed) == len({*listed})
    assert {*api.public()} <= {*listed} | modules
    assert {*listed} <= {*api.public()}


def test_a_name_without_a_page_is_named_with_the_page_to_widen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = {**api.public(), "anneal": "nowhere", "new_loss": "losses.new"}
    monkeypatch.setattr(api, "public", lambda: names)
    api.entries.cache_clear()
    try:
        one, two = api.missing()
    finally:
        api.entries.cache_clear()
    assert one == (
        "gradtx.anneal is on no page of the API: widen the pattern of `<!-- table: api ... -->` in "
        "docs/api/training.md so that it matches nowhere.anneal, and run `python docs/_generate.py`"
    )
    assert two == (
        "gradtx.new_loss is on no page of the API: export it from gradtx.losses, whose names "
        "docs/api/losses.md lists"
    )


API = sorted((DOCS / "api").glob("*.md"))


@pytest.mark.parametrize("page", API, ids=name_of)
def test_a_page_of_the_api_begins_with_a_table_of_all_its_entries(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    tables = re.findall(r"^\| \[`(\w+)`\]\(#[\w.]+\) \|", text, re.MULTILINE)
    data = {"LAWS"}  # below the table of functions of gradtx.testing
    # A name may be in two namespaces, and each has a table.
    assert {*tables} == {*DIRECTIVE.findall(text)} - data


def test_the_tasks_of_the_api_link_to_names_of_gradtx() -> None:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+) \| (.+) \|$", text, re.MULTILINE)
    link = re.compile(r"`(\w+)`\]\(#gradtx\.([\w.]+)\)")
    links = [pair for _, cell in rows for pair in link.findall(cell)]
    assert len(rows) > 40 and len(links) >= len(rows) - 2
    for name, path in links:
        assert path.endswith(name) and operator.attrgetter(path)(gradtx)


def test_errors_and_test_helpers_are_in_the_api() -> None:
    listed = {name for page in API for name in DIRECTIVE.findall(page.read_text(encoding="utf-8"))}
    errors = (ROOT / "gradtx" / "tree" / "errors.py").read_text(encoding="utf-8")
    kinds = re.findall(r"^class (\w+)\(GradtxError\)", errors, re.MULTILINE)
    helpers = re.findall(
        r"^from gradtx\.\S+ import \w+ as (\w+)$",
        (ROOT / "gradtx" / "testing" / "__init__.py").read_text(),
        re.MULTILINE,
    )
    assert kinds and helpers
    assert {*kinds, *helpers} <= listed


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
        for name, module in api.public().items()
        if name not in OTHER_SIGNATURES and peer(name) is not None
        if module not in ("definition.annotations", "definition.types")  # types for annotations
    ),
)
def test_arguments_and_defaults_are_those_of_optax(name: str) -> None:
    """In their order; more may follow."""
    theirs = arguments(peer(name))
    assert arguments(getattr(gradtx, name))[: len(theirs)] == theirs


@pytest.mark.parametrize("page", generate.pages(), ids=name_of)
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
