"""Every row of the mutations applies: its place stands once, and its tests are there."""

import ast
import datetime

import pytest

from tests.mutations.__main__ import changed, part_of, selection
from tests.mutations.row import Mutation
from tests.mutations.rows import ROWS
from tests.support.places import ROOT


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_a_row_applies(row: Mutation) -> None:
    """Its text is in the file once, and what stands there afterwards is Python that differs."""
    path = ROOT / "gradtx" / row.file
    assert path.exists(), f"{row.what}: {row.file} is not there; mend the row"
    text = path.read_text()
    after = changed(row, text)
    assert ast.dump(ast.parse(after)) != ast.dump(ast.parse(text))


@pytest.mark.parametrize("tests", sorted({row.tests for row in ROWS}))
def test_the_tests_of_a_row_are_there(tests: str) -> None:
    files, *words = selection(tests)
    files = [word for word in (files, *words) if word.startswith("tests/")]
    assert files and all((ROOT / file).exists() for file in files), tests


def test_no_row_is_there_twice() -> None:
    assert len({row.what for row in ROWS}) == len(ROWS)


def test_ten_parts_are_the_whole() -> None:
    """A day has one part, and the parts of ten days are all rows."""
    days = [datetime.date(2026, 3, day) for day in range(1, 11)]
    parts = [part_of("today/10", day) for day in days]
    assert sorted(parts) == [(part, 10) for part in range(1, 11)]
    rows = [row for part, of in parts for row in ROWS[part - 1 :: of]]
    assert sorted(row.what for row in rows) == sorted(row.what for row in ROWS)


def test_a_part_that_is_none_is_told() -> None:
    with pytest.raises(SystemExit, match=r"--part 11/10 is none of 10 parts; give 1/10 to 10/10"):
        part_of("11/10", datetime.date(2026, 3, 1))
