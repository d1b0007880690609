"""Break an equation by hand, one after another, and see a test fail: python -m tests.mutations

Each row of tests/mutations/rows_*.py changes one place of the source in a copy of the tree and runs
tests there; a change that no test notices is printed as SURVIVED, and the exit status is 1.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from tests.mutations.rows_averages import AVERAGES
from tests.mutations.rows_kronecker import KRONECKER
from tests.mutations.rows_matrices import MATRIX_RULES
from tests.mutations.rows_methods import MUTATIONS, Mutation
from tests.mutations.rows_production import MUTATIONS as PRODUCTION
from tests.mutations.rows_projections import PROJECTIONS
from tests.mutations.rows_storage import STORAGE
from tests.support.places import ROOT


def outcome(mutation: Mutation, folder: pathlib.Path) -> str:
    """The test that notices a change, made in a copy of the tree."""
    for name in ("docs", "gradtx", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    path = folder / "gradtx" / mutation.file
    text = path.read_text()
    if text.count(mutation.old) != 1:
        raise SystemExit(
            f"{mutation.what}: {mutation.old!r} stands {text.count(mutation.old)} times "
            f"in {mutation.file}; mend the row"
        )
    path.write_text(text.replace(mutation.old, mutation.new))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "--no-header",
        "-rf",
        *selection(mutation.tests),
    ]
    out = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=environment(folder)
    )
    if out.returncode > 1:
        raise SystemExit(f"{mutation.what}: the tests could not be run; mend the row\n{out.stdout}")
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", out.stdout, flags=re.MULTILINE)
    return failed.group(1) if failed and out.returncode == 1 else "SURVIVED"


def selection(tests: str) -> list[str]:
    """Files, and after -k one expression."""
    files, found, expression = tests.partition(" -k ")
    return [*files.split(), *(["-k", expression] if found else [])]


def environment(folder: pathlib.Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(folder), "JAX_PLATFORMS": "cpu"}


def main() -> int:
    survived, rows = (
        0,
        [*MUTATIONS, *AVERAGES, *PRODUCTION, *STORAGE, *MATRIX_RULES, *KRONECKER, *PROJECTIONS],
    )
    for mutation in rows:
        with tempfile.TemporaryDirectory() as folder:
            result = outcome(mutation, pathlib.Path(folder))
        survived += result == "SURVIVED"
        print(f"{mutation.what:45} {result}", flush=True)
    print(f"{len(rows) - survived} of {len(rows)} mutations are caught")
    return int(survived > 0)


if __name__ == "__main__":
    sys.exit(main())
