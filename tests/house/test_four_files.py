"""A new optimizer touches four files: its source, `__init__`, its row and its reference.

The test adds one in a copy of the repository. Pages of the docs are then generated.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.places import ROOT

SOURCE = '''"""Toy: steps along the sign of the gradient."""

from gradtx.compose.descend import descend
from gradtx.compose.transformation import GradientTransformation, definition
from gradtx.definition.types import NonNegative
from gradtx.transforms.signs import scale_by_sign


@definition
def toy(learning_rate: NonNegative) -> GradientTransformation:
    """Sign descent, as a toy.

    For every array, all of one shape: θ ← θ − η sign(g).

    When: for a test. When not: for a model.

    Args:
      learning_rate: η ≥ 0, parameter units per step.

    Raises:
      HyperparamError: a number is out of its range.

    State: 0 bytes per parameter.

    >>> import gradtx, jax.numpy as jnp
    >>> tx = gradtx.toy(0.5)
    >>> tx.update(jnp.array([3.0]), tx.init(jnp.zeros(1)))[0].tolist()
    [-0.5]

    See also: `sign_sgd`.

    Author 2026.
    """
    return descend(scale_by_sign(), learning_rate)
'''


class Edit(NamedTuple):
    """Text that a new optimizer adds to a file."""

    file: str
    after: str
    """The text that it follows; empty: the start of the file."""
    text: str


EDITS = {
    "source": Edit("gradtx/optimizers/toy.py", "", SOURCE),
    "init": Edit(
        "gradtx/__init__.py",
        "    from gradtx.optimizers.tiger import tiger as tiger\n",
        "    from gradtx.optimizers.toy import toy as toy\n",
    ),
    "row": Edit(
        "tests/methods/norms.py",
        "METHODS: dict[str, Method] = {\n",
        '    "toy": Method(gradtx.toy(0.1), descend(each(norms.toy), 0.1)),\n',
    ),
    "reference": Edit(
        "tests/oracles/norms.py",
        "# transforms\n",
        "\n\ndef toy(g, w, memory, t):\n    return np.sign(g)\n",
    ),
}

HOUSE = "tests/house/test_house.py::"
TESTS = [
    f"{HOUSE}test_an_optimizer_is_in_the_file_of_its_name[gradtx/optimizers/toy.py]",
    f"{HOUSE}test_imports_go_down[gradtx/optimizers/toy.py]",
    f"{HOUSE}test_every_method_has_a_row_an_example_and_a_size[toy]",
    f"{HOUSE}test_every_public_name_is_imported_explicitly_and_documented",
    "tests/oracles/test_parity.py::test_every_optimizer_is_in_the_table",
    "tests/oracles/test_parity.py::test_the_table_says_what_is_measured_and_the_bars_hold[toy]",
    "tests/docs/test_docs.py::test_generated_tables_are_those_of_the_code",
    "tests/docs/test_docs.py::test_every_optimizer_has_one_row",
    "tests/docs/test_docs.py::test_every_public_name_is_in_the_api_once",
    "tests/docs/test_docs.py::test_a_row_is_complete_and_its_bytes_are_those_of_the_docstring[toy]",
]

GENERATE = """
import runpy
from tests.support import parity

# A run of all optimizers takes a minute: only the new one is measured here.
parity.line = lambda name, line=parity.line, page=parity.PAGE.read_text("utf-8"): next(
    (row for row in page.splitlines() if row.startswith(f"| [`{name}`]")), None
) or line(name)
generate = runpy.run_path("docs/_generate.py")
for page in generate["pages"]():
    text = generate["fill"](page.read_text("utf-8"), parity=lambda _: parity.lines())
    page.write_text(text, "utf-8")
"""
"""`python docs/_generate.py --parity`, for one new row."""


def copy_with(folder: Path, edits: list[Edit]) -> None:
    """Copy the repository, and add an optimizer to it."""
    for name in ("gradtx", "tests", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("_build"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy2(ROOT / name, folder / name)
    for edit in edits:
        path = folder / edit.file
        old = path.read_text("utf-8") if path.exists() else ""
        assert edit.after in old, f"{edit.file} lacks {edit.after!r}"
        head, after, rest = old.partition(edit.after) if edit.after else ("", "", old)
        path.write_text(head + after + edit.text + rest, "utf-8")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the copy, with the compiled programs of this repository."""
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache"))
    settings = {"PYTHONPATH": str(folder), "JAX_COMPILATION_CACHE_DIR": cache}
    # A worker of pytest says in the environment that it is one; the process below is none.
    env = {key: one for key, one in os.environ.items() if not key.startswith("PYTEST_")}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=folder, env=env | settings, capture_output=True, text=True, check=False
    )


def run_tests(folder: Path, tests: list[str]) -> subprocess.CompletedProcess[str]:
    return run(folder, "-m", "pytest", "-q", "-n", "0", *tests)


def test_four_files_are_enough(tmp_path: Path) -> None:
    copy_with(tmp_path, list(EDITS.values()))
    before = {path for path in tmp_path.rglob("*") if path.suffix in (".py", ".toml")}
    generated = run(tmp_path, "-c", GENERATE)
    assert generated.returncode == 0, generated.stderr
    result = run_tests(tmp_path, TESTS)
    assert result.returncode == 0, result.stdout + result.stderr
    changed = {
        str(path.relative_to(tmp_path))
        for path in before
        if not (old := ROOT / path.relative_to(tmp_path)).exists()
        or old.read_bytes() != path.read_bytes()
    }
    assert changed == {edit.file for edit in EDITS.values()} and len(changed) == 4


MISSING = {
    "source": (TESTS[3], "No module named 'gradtx.optimizers.toy'"),
    "init": (TESTS[0], "AttributeError: gradtx has no 'toy'"),
    "row": (TESTS[2], "add a row for toy to a module of tests/methods"),
    "reference": (TESTS[2], "module 'tests.oracles.norms' has no attribute 'toy'"),
}


@pytest.mark.parametrize("missing", MISSING)
def test_each_of_the_four_is_missed(missing: str, tmp_path: Path) -> None:
    edits = {name: edit for name, edit in EDITS.items() if name != missing}
    if missing == "init":
        del edits["row"]  # it reads gradtx.toy: this test is for one who forgot both
    copy_with(tmp_path, list(edits.values()))
    test, message = MISSING[missing]
    result = run_tests(tmp_path, [test])
    assert result.returncode != 0 and message in result.stdout + result.stderr, result.stdout
