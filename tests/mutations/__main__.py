"""Break an equation by hand, one after another, and see a test fail: python -m tests.mutations

Each row of tests/mutations/rows_*.py changes one place of the source in a copy of the tree and
runs tests there; a change that no test notices is printed as SURVIVED, and the exit status is 1.
`--part 3/10` takes the third of ten parts, `--part today/10` the one of the day, and says which.
"""

import argparse
import datetime
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from tests.mutations.row import Mutation
from tests.mutations.rows import ROWS
from tests.support.places import ROOT


def outcome(mutation: Mutation, folder: pathlib.Path) -> str:
    """The test that notices a change, made in a copy of the tree."""
    copy_tree(folder)
    path = folder / "gradtx" / mutation.file
    path.write_text(changed(mutation, path.read_text()))
    command = [sys.executable, "-m", "pytest", "-x", "--no-header", "-rf"]
    out = subprocess.run(
        [*command, *selection(mutation.tests)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=environment(folder),
    )
    if out.returncode > 1:
        raise SystemExit(f"{mutation.what}: the tests could not be run; mend the row\n{out.stdout}")
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", out.stdout, flags=re.MULTILINE)
    return failed.group(1) if failed and out.returncode == 1 else "SURVIVED"


def copy_tree(folder: pathlib.Path) -> None:
    """What the tests need, so that the checkout stays as it is."""
    for name in ("docs", "gradtx", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)


def changed(mutation: Mutation, text: str) -> str:
    """The source with the row's change, whose place must be the only one of its kind."""
    found = places(mutation.old, text)
    if len(found) != 1:
        raise SystemExit(
            f"{mutation.what}: {mutation.old!r} stands {len(found)} times in {mutation.file}; "
            "mend the row"
        )
    start, end = found[0]
    return text[:start] + mutation.new + text[end:]


def places(old: str, text: str) -> list[tuple[int, int]]:
    """Where the code stands, however a formatter breaks its lines."""
    words = re.findall(r"^\s+|\w+|\S|\s+$", old)
    return [found.span() for found in re.finditer(r"\s*".join(map(re.escape, words)), text)]


def selection(tests: str) -> list[str]:
    """Files, and after -k one expression."""
    files, found, expression = tests.partition(" -k ")
    return [*files.split(), *(["-k", expression] if found else [])]


def environment(folder: pathlib.Path) -> dict[str, str]:
    """The tests of the copy, with the programs that are compiled already."""
    kept = {"JAX_COMPILATION_CACHE_DIR": str(ROOT / ".jax_cache")}
    return {**kept, **os.environ, "PYTHONPATH": str(folder), "JAX_PLATFORMS": "cpu"}


def part_of(said: str, today: datetime.date) -> tuple[int, int]:
    """Which part of how many: 3/10, or today/10, by the day of the year."""
    number, of = said.split("/")
    parts = int(of)
    chosen = today.timetuple().tm_yday % parts + 1 if number == "today" else int(number)
    if not 1 <= chosen <= parts:
        raise SystemExit(f"--part {said} is none of {of} parts; give 1/{of} to {of}/{of}")
    return chosen, parts


def main() -> int:
    parser = argparse.ArgumentParser(description="Break equations, and see tests fail.")
    parser.add_argument("--part", default="1/1", help="3/10, or today/10 for the part of the day")
    part, parts = part_of(parser.parse_args().part, datetime.date.today())
    rows = ROWS[part - 1 :: parts]
    print(f"part {part} of {parts}: {len(rows)} of {len(ROWS)} mutations", flush=True)
    print(f"again: python -m tests.mutations --part {part}/{parts}", flush=True)
    survived = 0
    for mutation in rows:
        with tempfile.TemporaryDirectory() as folder:
            result = outcome(mutation, pathlib.Path(folder))
        survived += result == "SURVIVED"
        print(f"{mutation.what:45} {result}", flush=True)
    print(f"{len(rows) - survived} of {len(rows)} mutations are caught")
    return int(survived > 0)


if __name__ == "__main__":
    sys.exit(main())
