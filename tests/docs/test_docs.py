"""The docs do what they say: pages run and print what they show, no name is missing, links lead
somewhere, bytes are measured.
"""

import inspect
import json
import math
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import pytest

import gradtx
from tests.support.blocks import BLOCK, run_blocks
from tests.support.peer import optax
from tests.support.places import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
ROW = re.compile(
    r"^\| \[`(\w+)`\]\(#gradtx\.\1\) \| (.*?) \| .* \| ([\w, –]+) \| (\d+) \|.*\|$", re.MULTILINE
)
CALL = re.compile(r"^\| `(\w+\(.*\))` \| (\d+) \|$", re.MULTILINE)


CELLS = [page for page in PAGES if "```{code-cell}" in page.read_text(encoding="utf-8")]
"""Pages whose code the build of the docs runs, for what they draw; no test runs it again."""


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page not in CELLS], ids=lambda page: page.stem
)
def test_page_prints_what_it_shows(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_every_block_says_what_it_prints() -> None:
    """A block that prints is followed by what it prints, but for code cells, whose output the build
    adds.
    """
    for page in PAGES:
        for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
            assert match[2] is not None or "print(" not in match[1], f"{page.name}: {match[1]}"


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        if "://" not in link and path:
            assert (page.parent / path).exists(), f"{page.name}: {link}"
        if anchor and page.parent == DOCS and not anchor.startswith("gradtx."):
            assert anchor in headings((page.parent / path) if path else page), (
                f"{page.name}: {link}"
            )


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def public_names() -> set[str]:
    return set(
        re.findall(
            r"^from gradtx\.\S+ import \w+ as (\w+)$",
            (ROOT / "gradtx" / "__init__.py").read_text(),
            re.MULTILINE,
        )
    )


def test_every_public_name_is_in_the_api_once() -> None:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    public = text.split("## Testing")[0].replace(
        ".. currentmodule:: gradtx.definition.errors", "## Kinds\n"
    )
    listed = re.findall(
        r"^\.\. (?:auto\w+|py:data):: (\w+)$", public.split("## Kinds")[0], re.MULTILINE
    )
    assert len(listed) == len(set(listed))
    assert set(listed) == public_names()


def test_errors_and_test_helpers_are_in_the_api() -> None:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    kinds = re.findall(
        r"^class (\w+)\(GradtxError\)",
        (ROOT / "gradtx" / "definition" / "errors.py").read_text(),
        re.MULTILINE,
    )
    helpers = re.findall(
        r"^from gradtx\.\S+ import \w+ as (\w+)$",
        (ROOT / "gradtx" / "testing" / "__init__.py").read_text(),
        re.MULTILINE,
    )
    assert kinds and helpers
    assert all(re.search(rf":: {name}$", text, re.MULTILINE) for name in [*kinds, *helpers])


OTHER_SIGNATURES = {
    "dpsgd",
    *("Schedule", "State", "GradientTransformation", "EmptyState"),
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
"""Classes, and functions whose difference docs/from_optax.md tells, or that name or require what
Optax does not.
"""


def arguments(function: Any) -> list[tuple[str, Any]]:
    """Names and defaults; a default that is a function or a transformation is one, whichever
    library's.
    """
    found = [
        (parameter.name, parameter.default)
        for parameter in inspect.signature(function).parameters.values()
    ]
    return [
        (
            name,
            "an object"
            if (callable(default) or hasattr(default, "update"))
            and default is not inspect.Parameter.empty
            else default,
        )
        for name, default in found
    ]


def peer(name: str) -> Any:
    """Optax's function of that name, wherever it keeps it."""
    return getattr(optax.contrib, name, None) or getattr(optax, name, None)


@pytest.mark.parametrize(
    "name", sorted(name for name in public_names() - OTHER_SIGNATURES if peer(name) is not None)
)
def test_arguments_and_defaults_are_those_of_optax(name: str) -> None:
    """In their order; more may follow."""
    theirs = arguments(peer(name))
    assert arguments(getattr(gradtx, name))[: len(theirs)] == theirs


def bytes_per_parameter(tx: gradtx.GradientTransformation, shape: tuple[int, ...]) -> float:
    slots = jax.eval_shape(tx.init, {"w": jax.ShapeDtypeStruct(shape, jnp.float32)}).slots
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(slots)) / math.prod(
        shape
    )


def assert_bytes(
    tx: gradtx.GradientTransformation, said: int, where: str, shape: tuple[int, ...] = (1024,)
) -> None:
    """The page rounds: one number kept for an array of 1024, or for the tree, is 0.004 bytes per
    parameter; L-BFGS keeps sixteen.
    """
    assert 0 <= bytes_per_parameter(tx, shape) - said < 0.07, where


REQUIRED: dict[str, dict[str, Any]] = {
    "dpsgd": {"l2_norm_clip": 1.0, "noise_multiplier": 1.0},
    "muon_clip": {"where": "w"},
}
"""What an optimizer must be given besides a learning rate."""


def test_every_optimizer_has_a_row_with_its_measured_bytes() -> None:
    arrays, matrices = (
        (DOCS / "optimizers.md").read_text(encoding="utf-8").split("## Matrix methods")
    )
    rows = [
        (*row, shape)
        for part, shape in ((arrays, (1024,)), (matrices, (128, 128)))
        for row in ROW.findall(part)
    ]
    names = {path.stem for path in (ROOT / "gradtx" / "optimizers").glob("[a-z]*.py")}
    assert sorted(name for name, *_ in rows) == sorted(names)
    for name, sentence, needs, size, shape in rows:
        maker = getattr(gradtx, name)
        tx = maker(0.1, **REQUIRED.get(name, {}))
        assert sentence == maker.__doc__.strip().splitlines()[0], (
            f"docs/optimizers.md: the row of {name}"
        )
        assert needs == (", ".join(sorted(tx.needs)) or "–"), (
            f"docs/optimizers.md: the row of {name}"
        )
        assert_bytes(tx, int(size), f"docs/optimizers.md: the row of {name}", shape)


def test_calls_with_other_arguments_keep_what_their_rows_say() -> None:
    rows = CALL.findall((DOCS / "optimizers.md").read_text(encoding="utf-8"))
    assert len(rows) >= 5
    for call, size in rows:
        assert_bytes(eval(call, dict(vars(gradtx))), int(size), f"docs/optimizers.md: {call}")


def test_the_table_of_what_was_measured_is_that_of_the_last_record() -> None:
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
        row, said = (
            measured[name],
            (float(rate), float(loss), float(accuracy) / 100, float(valley.replace(",", ""))),
        )
        assert said == pytest.approx(
            (row["rate"], row["loss"], row["accuracy"], row["valley"]), rel=0.05
        ), name
