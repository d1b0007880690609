"""Run Optax's test files on gradtx, each in a process of its own, and collect every outcome."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import NamedTuple

from tests.support.places import ROOT

# Quick to compile: the tests check numbers, and most of their time is XLA's.
XLA_FLAGS = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)
LIMIT = 3600
"""Seconds for one file; it ends a test that hangs."""


class Case(NamedTuple):
    """One case of one test file, and how it ended."""

    file: str
    name: str
    outcome: str
    """"passed", "failed", or "skipped", by the test itself."""
    error: str = ""
    text: str = ""
    where: str = ""

    @property
    def area(self) -> str:
        """The name of the file without the folder of private modules: `alias`, `losses/ranking`."""
        return area_of(self.file)

    @property
    def key(self) -> str:
        """The name by which a reason finds the case."""
        return f"{self.area}::{self.name}"


def area_of(file: str) -> str:
    """The area of a test file: `alias` for `_src/alias_test.py`."""
    folder, _, stem = file.removesuffix("_test.py").rpartition("/")
    return "/".join(part for part in (folder.removeprefix("_src"), stem.lstrip("_")) if part)


def listing(files: Sequence[str] = ()) -> dict[str, list[str]]:
    """The cases of each test file, as Optax itself has them."""
    cases: dict[str, list[str]] = {}
    for line in lines_of(["--library", "optax", "--list", *files]):
        if line["outcome"] != "listed":
            raise SystemExit(f"{line['file']} cannot be listed with Optax: {line['text']}")
        cases.setdefault(line["file"], []).append(line["case"])
    return cases


def run_file(file: str, names: Sequence[str]) -> list[Case]:
    """The outcome of every case of one file; a case without an outcome failed.

    A case that skips itself runs with Optax too. Where Optax does not skip it, it failed.
    """
    lines = lines_of([file])
    outcomes = {line["case"]: line for line in lines if line["case"]}
    stop = next((line for line in lines if not line["case"]), STOPPED)
    cases = [made_case(file, name, outcomes.get(name, stop)) for name in names]
    skipped = {case.name for case in cases if case.outcome == "skipped"}
    others = {case.name for case in with_optax(file, skipped) if case.outcome == "skipped"}
    return [_unless_optax_runs(case, others) for case in cases]


STOPPED = {"outcome": "failed", "error": "Stopped", "text": "the process ended before this case"}


def made_case(file: str, name: str, line: dict[str, str]) -> Case:
    """A case from the line that the worker printed about it, or about its whole file."""
    outcome = line["outcome"] if line["outcome"] in ("passed", "skipped") else "failed"
    more = (line.get(field, "") for field in ("error", "text", "where"))
    return Case(file, name, outcome, *more)


def with_optax(file: str, names: Collection[str]) -> list[Case]:
    """The outcomes of some cases with Optax itself."""
    if not names:
        return []
    only = [part for name in names for part in ("--only", name)]
    lines = lines_of(["--library", "optax", *only, file])
    return [made_case(file, line["case"], line) for line in lines]


def _unless_optax_runs(case: Case, skipped: set[str]) -> Case:
    if case.outcome != "skipped" or case.name in skipped:
        return case
    return case._replace(outcome="failed", error="SkipTest", text="Optax does not skip this case")


def lines_of(arguments: Sequence[str]) -> list[dict[str, str]]:
    """What the worker prints, one JSON object a line."""
    cheap = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": XLA_FLAGS}
    done = subprocess.run(
        [sys.executable, "-m", "tests.peer.worker", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **cheap},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    if done.returncode and not done.stdout:
        raise SystemExit(done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def run(files: Sequence[str], workers: int = 1) -> list[Case]:
    """All cases of some files; one line a file says how it went."""
    with ThreadPoolExecutor(workers) as pool:
        return list(chain.from_iterable(pool.map(_timed, *zip(*listing(files).items()))))


def _timed(file: str, names: Sequence[str]) -> list[Case]:
    start = time.monotonic()
    cases = run_file(file, names)
    passed, seconds = sum(case.outcome == "passed" for case in cases), time.monotonic() - start
    print(f"{area_of(file):32}{passed:5} of {len(names):4} passed, {seconds:6.1f} s", flush=True)
    return cases
