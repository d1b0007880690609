"""The runner of Optax's tests: what answers to the name optax, how cases are counted, and the page.

`make peer` runs the cases themselves.
"""

import re
import sys
from pathlib import Path

import pytest

import gradtx
from tests.peer import page, reasons, tools
from tests.peer.alias import Finder, places
from tests.peer.reasons import DIFFERENCE, FAULT, KINDS, Reason, idle, unexplained
from tests.peer.suite import Case, area_of, made_case, run_file
from tests.peer.worker import Version, main_statements, optax_folder

PASSED = Case("_src/update_test.py", "UpdateTest.test_one0", "passed")
FAILED = Case("_src/update_test.py", "UpdateTest.test_two1", "failed", "ValueError", "no | bar")
SKIPPED = Case("_src/update_test.py", "UpdateTest.test_three", "skipped")
CASES = [PASSED, FAILED, FAILED._replace(name="UpdateTest.test_two2"), SKIPPED]


def module(name: str, subjects: tuple[str, ...] = ()) -> object:
    """A module of Optax's as the runner makes it, without an import in this process."""
    finder = Finder(optax_folder(), subjects)
    spec = finder.find_spec(name, None)
    assert spec is not None
    return finder.create_module(spec)


def test_a_module_has_public_names_of_gradtx_alone() -> None:
    assert module("optax").adamw is gradtx.adamw  # pyright: ignore[reportAttributeAccessIssue]
    for name in ("optax._src.alias", "optax.contrib._muon", "optax.transforms._masking"):
        assert module(name).masked is gradtx.masked  # pyright: ignore[reportAttributeAccessIssue]
    for name, private in (("optax", "_lazy"), ("optax._src.transform", "_adam")):
        with pytest.raises(AttributeError, match=f"no public name for {name}.{private}"):
            getattr(module(name), private)
    assert places("optax.losses")[0].__name__.endswith("losses")


def test_tools_are_for_tests_of_other_subjects() -> None:
    utils = "optax._src.utils"
    assert module(utils).x64_precision is tools.x64_precision  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(AttributeError, match="no public name"):
        _ = module(utils, (utils,)).x64_precision  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(AttributeError, match="no public name"):
        _ = module("optax").x64_precision  # pyright: ignore[reportAttributeAccessIssue]
    assert module("optax.losses") is not sys.modules.get("optax.losses")


def test_versions_and_settings_of_a_file() -> None:
    """Optax's files compare versions as text, and set JAX up where they run as scripts."""
    assert not Version("0.10.2") < "0.7.2" and Version("0.6.0") < "0.7.2"
    script = "x = 1\nif __name__ == '__main__':\n  setup()\n  absltest.main()\n"
    assert [one.lineno for one in main_statements(script)] == [3]


@pytest.mark.parametrize(
    ("file", "area"),
    [("_src/alias_test.py", "alias"), ("losses/_ranking_test.py", "losses/ranking")],
)
def test_areas(file: str, area: str) -> None:
    assert area_of(file) == area and (optax_folder() / file).is_file()


def test_a_case_without_an_outcome_failed() -> None:
    """A file that cannot be imported fails in all of its cases."""
    lost = {"outcome": "not imported", "error": "ImportError", "text": "no name"}
    assert made_case("a_test.py", "A.test", lost).outcome == "failed"
    one = run_file("transforms/_layouts_test.py", ["LayoutsTest.test_flatten", "Layouts.test_no"])
    assert [case.outcome for case in one] == ["passed", "failed"] and one[1].error == "Stopped"


def test_reasons_are_checked_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (
        Reason(r"update::.*test_two\d", DIFFERENCE, "a row", "no"),
        Reason(r"update::.*test_four", DIFFERENCE, "unused"),
        Reason(r"alias::.*", DIFFERENCE, "of an area that did not run"),
    )
    monkeypatch.setattr(reasons, "REASONS", rows)
    assert unexplained(CASES) == [] and idle(CASES) == [rows[1]]
    monkeypatch.setattr(reasons, "REASONS", (rows[0]._replace(text="another error"),))
    assert len(unexplained(CASES)) == 2


def test_the_page_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two cases of one test are one line; a failure without a reason is a fault."""
    text = page.page(CASES)
    assert "**1 of 3** cases, 33.3%" in text and "| update | 4 | 1 | 2 | 1 |" in text
    assert rf"| update | `test_two` | 2 | {FAULT} | ValueError: no \| bar |" in text
    monkeypatch.setattr(page, "PAGE", tmp_path / "page.md")
    page.PAGE.write_text(text)
    assert list(page.differs(CASES)) == []
    (line,) = page.differs(CASES[:2])
    assert "has another row than | update | 2 | 1 | 1 | 0 |" in line


def test_the_published_page() -> None:
    """It does not fall behind, and each failure has a class and a reason."""
    text = page.PAGE.read_text()
    (share,) = re.findall(r"cases, ([\d.]+)%\. The bar", text)
    assert float(share) >= 100 * page.FLOOR
    lines = [line for line in text.splitlines() if re.match(r"\| [\w/]+ \| `", line)]
    for line in lines:
        _, area, _, number, kind, why, _ = re.split(r"(?<!\\) ?\| ?", line)
        assert kind in KINDS and why and int(number) > 0, area
