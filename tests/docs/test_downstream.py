"""The page of other libraries: its tables, and the names that public sources use."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

import gradtx
from tests.downstream import names
from tests.support.peer import optax
from tests.support.places import ROOT

COMPLETE = 73
"""Sources that find all their public names; 65 of the 73 is the share 85 of 96."""


@pytest.fixture(scope="module")
def page() -> Any:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        return importlib.import_module("_downstream")
    finally:
        sys.path.remove(str(ROOT / "docs"))


def test_the_page_is_that_of_the_record_and_the_facts(page: Any) -> None:
    text = page.PAGE.read_text("utf-8")
    assert page.render(text) == text, "run `python docs/_downstream.py`"


def test_every_row_of_the_newest_record_is_within_the_bar(page: Any) -> None:
    rows = page.record()["rows"]
    assert len(rows) >= 25 and {row["verdict"] for row in rows} == {"OK"}


def test_sources_find_their_names() -> None:
    uses = {name: names.use_of(entry, optax, gradtx) for name, entry in names.read().items()}
    complete = sum(use.is_complete for use in uses.values())
    assert complete >= COMPLETE, names.missing_names(uses).most_common()


def test_the_facts_are_sorted_and_of_optax() -> None:
    entries = names.read()
    assert list(entries) == sorted(entries, key=str.lower)
    for repository, entry in entries.items():
        assert entry.names and list(entry.names) == sorted(set(entry.names)), repository
    known = {name for entry in entries.values() for name in entry.names}
    absent = {name for name in known if not names.has(optax, name)}
    assert absent <= {"MaybeUpdateState"}, "a name of another version, or a slip"


def test_a_private_name_has_its_public_spelling() -> None:
    spell = names.public_spelling
    assert spell(optax, "_src.base.Updates") == "Updates"
    assert spell(optax, "_src.numerics.safe_increment") == "safe_increment"
    assert spell(optax, "_src.linesearch.scale_by_zoom_linesearch") == "scale_by_zoom_linesearch"
    assert spell(optax, "_src.numerics.abs_sq") is None


def test_a_folder_of_another_language_and_a_damaged_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "script.py").write_text("import optax\noptax.adam(1e-3)\n")
    (tmp_path / "old.py").write_text("import optax\nprint 'two'\n")
    (tmp_path / "other.py").write_text("from .optax import OptaxMinimiser\n")
    (tmp_path / "notes.md").write_text("import optax\noptax.sgd\n")
    assert names.names_below(tmp_path) == {"adam"}
    assert "not Python" in capsys.readouterr().err


def test_the_facts_are_one_line_each() -> None:
    text = names.FACTS.read_text("utf-8")
    assert text.count("\n") == len(json.loads(text)) + 2
