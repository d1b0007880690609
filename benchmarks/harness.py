"""Interleaved timing, ratios with their spread, tables, and dated records."""

import argparse
import datetime
import gc
import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "records"
RUNS = 15
"""The least number of runs per side for a record of times."""


class Row(NamedTuple):
    """One line of a table, and of a record."""

    name: str
    values: Mapping[str, Any]
    """The measurement of each side: a number, or the quartiles of several."""
    ratio: Any = None
    """gradtx over the peer: a number, or quartiles."""
    bar: float | None = None
    """The upper limit of the ratio, or of gradtx's value without a ratio."""
    unit: str = "s"

    @property
    def verdict(self) -> str:
        if self.bar is None:
            return ""
        return (
            "OK"
            if middle(self.values["gradtx"] if self.ratio is None else self.ratio) <= self.bar
            else "MISSED"
        )


def middle(value: Any) -> float:
    """A number, or the median of quartiles."""
    return value["median"] if isinstance(value, Mapping) else value


def quartiles(values: list[float]) -> dict[str, float]:
    q1, median, q3 = (
        statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    )
    return {"median": median, "q1": q1, "q3": q3, "runs": len(values)}


def seconds(function: Callable[..., Any], *args: Any) -> float:
    """Time a call, until its arrays are ready."""
    start = time.perf_counter()
    jax.block_until_ready(function(*args))
    return time.perf_counter() - start


def interleave(
    sides: Mapping[str, Callable[[], float]], runs: int, warmup: int = 2
) -> dict[str, list[float]]:
    """Time one run of every side in turn, in an order that every round reverses."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(-warmup, runs):
        for name in sorted(sides, reverse=number % 2 == 1):
            gc.collect()
            elapsed = sides[name]()
            if number >= 0:
                times[name].append(elapsed)
    return times


def made(sides: Mapping[str, Callable[[], float]]) -> dict[str, Callable[[], Callable[[], float]]]:
    """Makers, as `balanced` takes them, of sides that exist already: another process's."""
    return {name: lambda side=side: side for name, side in sides.items()}


def balanced(
    makers: Mapping[str, Callable[[], Callable[[], float]]], runs: int, warmup: int = 2
) -> dict[str, list[float]]:
    """`interleave` of sides that hold arrays, made in one order and then in the other.

    Of two equal sides with one large array or GPT-2 small, the one whose arrays were made first
    took 3 to 5 % longer on a CPU; with 500 small arrays it was faster. So both orders have as many
    runs, and a time is the mean of one of each.
    """
    both: list[dict[str, list[float]]] = []
    for names in (list(makers), list(makers)[::-1]):
        both.append(interleave({name: makers[name]() for name in names}, runs, warmup))
        gc.collect()  # the arrays of these sides, before the next are made
    first, second = both
    return {
        name: [(one + other) / 2 for one, other in zip(first[name], second[name], strict=True)]
        for name in makers
    }


def compared(
    name: str, times: Mapping[str, list[float]], peer: str = "optax", bar: float | None = None
) -> Row:
    """Compare gradtx with a peer by quartiles, of each side and of neighbouring runs' ratios."""
    ratios = [mine / theirs for mine, theirs in zip(times["gradtx"], times[peer], strict=True)]
    return Row(
        name, {side: quartiles(elapsed) for side, elapsed in times.items()}, quartiles(ratios), bar
    )


def show_value(value: Any, unit: str) -> str:
    number = middle(value)
    if unit == "s":
        return f"{number:.3f} s" if number >= 1 else f"{number * 1e3:.2f} ms"
    return f"{number:,.6g} {unit}" if unit else f"{number:,.6g}"


def show_ratio(ratio: Any) -> str:
    if ratio is None:
        return ""
    return (
        f"{ratio['median']:.3f} ({ratio['q1']:.3f}-{ratio['q3']:.3f})"
        if isinstance(ratio, Mapping)
        else f"{ratio:.3f}"
    )


def print_table(title: str, rows: Sequence[Row]) -> None:
    """Print one line per row: every side, the ratio with quartiles, the bar, the verdict."""
    sides = list(dict.fromkeys(side for row in rows for side in row.values))
    cells = [[title, *sides, "ratio (quartiles)", "bar", ""]]
    for row in rows:
        numbers = [
            show_value(row.values[side], row.unit) if side in row.values else "" for side in sides
        ]
        cells.append(
            [
                row.name,
                *numbers,
                show_ratio(row.ratio),
                "" if row.bar is None else f"{row.bar:g}",
                row.verdict,
            ]
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )


def arguments(
    description: str | None, argv: Sequence[str] | None = None, **defaults: Any
) -> argparse.Namespace:
    """The options of every benchmark, and those of this one: `name=default`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--runs",
        type=int,
        default=RUNS,
        help=f"runs per side after warmup; a record of times needs {RUNS}",
    )
    parser.add_argument("--dry", action="store_true", help="print, and write no record")
    for name, default in defaults.items():
        kind: dict[str, Any] = (
            {"action": "store_true"}
            if default is False
            else {"default": default, "help": f"default: {default}"}
        )
        parser.add_argument(f"--{name.replace('_', '-')}", **kind)
    return parser.parse_args(argv)


def finish(name: str, rows: Sequence[Row], options: argparse.Namespace, exact: bool = False) -> int:
    """Print the table, write the record, return the exit status: 1 where a bar is missed.

    `exact` says that the values are counts, which one run is enough for.
    """
    print_table(name, rows)
    if options.dry or (options.runs < RUNS and not exact):
        print(
            f"no record: {'--dry' if options.dry else f'{options.runs} runs are fewer than {RUNS}'}"
        )
    else:
        print(f"record: {write_record(name, rows).relative_to(ROOT)}")
    return int(any(row.verdict == "MISSED" for row in rows))


def write_record(name: str, rows: Sequence[Row]) -> Path:
    return write_table(name, [{**row._asdict(), "verdict": row.verdict} for row in rows])


def write_table(name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
    """The dated record of any rows."""
    path = record_path(name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**circumstances(name), "rows": rows}, indent=1) + "\n")
    return path


def record_path(name: str) -> Path:
    """The path of the record of today."""
    return RECORDS / f"{datetime.date.today().isoformat()}-{name}.json"


def circumstances(name: str) -> dict[str, Any]:
    """The time, the machine and the versions of a record."""
    return {
        "benchmark": name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(
            [
                "python",
                "-m",
                f"benchmarks.{name}",
                *(Path(argument).name for argument in sys.argv[1:]),
            ]
        ),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {
            package: version(package)
            for package in ("jax", "jaxlib", "optax", "numpy", "libtpu", "jax-cuda13-plugin")
        },
        "commit": commit(),
    }


def cpu_model() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor())


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str:
    """The current commit, with a mark if a file of the library differs from it."""
    head = _git("rev-parse", "HEAD")
    return (
        f"{head} and uncommitted changes"
        if _git("status", "--porcelain", "--", "gradtx", "benchmarks/*.py")
        else head
    )


def _git(*args: str) -> str:
    return subprocess.run(
        ["git", *args], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
