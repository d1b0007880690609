"""Trainings in other libraries, with Optax, with gradtx by a changed import, and by `to_optax`.

Each row of `tests/downstream` whose library is installed runs in a process of its own, so that
libraries cannot disturb each other. The record holds the versions and the largest relative
difference of the losses. `--only NAME` runs the rows whose name contains it.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks.harness import ROOT, arguments, write_table
from tests.downstream.compare import ROWS, WAYS, compare
from tests.downstream.row import Row

BAR = 1e-5
SECONDS = 900


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def measure(row: Row) -> dict[str, float | str]:
    """The difference of each way, or the error that the library raises."""
    results: dict[str, float | str] = {}
    for way in WAYS:
        try:
            results[way] = compare(row, way).difference
        except Exception as error:
            results[way] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
    return results


def in_own_process(row: Row) -> dict[str, float | str]:
    command = [sys.executable, "-m", "benchmarks.downstream", "--worker", row.name]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if run.returncode:
        return dict.fromkeys(WAYS, f"exit {run.returncode}: {run.stderr[-200:]}")
    return json.loads(run.stdout.splitlines()[-1])


def passes(row: Row, results: Mapping[str, float | str]) -> bool:
    """Whether every way is within the bar, but for a library that refuses other classes."""
    needed = [way for way in WAYS if not (way == "direct" and row.checks_type)]
    numbers = [results[way] for way in needed]
    return all(isinstance(number, float) and number <= BAR for number in numbers)


def record(row: Row) -> dict[str, Any]:
    results = in_own_process(row)
    verdict = "OK" if passes(row, results) else "MISSED"
    print(f"{row.name:45}  {results}  {verdict}", flush=True)
    facts = {"package": row.package, "version": version(row.package), "feature": row.feature}
    return {**facts, "checks_type": row.checks_type, **results, "verdict": verdict}


def main() -> int:
    options = arguments(__doc__, only="", worker="")
    if options.worker:
        row = next(row for row in ROWS if row.name == options.worker)
        print(json.dumps(measure(row)))
        return 0
    chosen = [row for row in ROWS if options.only in row.name]
    rows = [record(row) for row in chosen if version(row.package) is not None]
    absent = {row.package for row in chosen if version(row.package) is None}
    print(f"not installed: {', '.join(sorted(absent)) or 'none'}")
    if not options.dry and not options.only:
        print(f"record: {write_table('downstream', rows).relative_to(ROOT)}")
    return int(any(row["verdict"] == "MISSED" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
