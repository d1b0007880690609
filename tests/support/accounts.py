"""What a run of the tests cost: seconds of CPU by folder, and the memory of its largest worker.

A plugin of pytest, which `tests/conftest.py` registers. A worker measures every test; the process
that started the workers adds up, and prints one line for each folder at the end.
"""

import resource
import sys
from collections import Counter, defaultdict
from collections.abc import Generator
from typing import Any

import pytest

PARTS = {
    "tests/laws": "every law on every method",
    "tests/oracles": "every method beside its float64 reference, Optax and torch",
    "tests/unit": "every room of the source by itself",
    "tests/scripts": "idioms of scripts written for Optax, by a changed import",
    "tests/docs": "pages, examples and the README do what they say",
    "tests/house": "layers, sizes, names, and a row for every method",
    "tests/fuzz": "random definitions in random surroundings",
    "tests/mutations": "every mutation applies",
    "tests/peer": "the runner of Optax's own tests",
    "tests/accelerators": "programs for TPU and GPU",
    "gradtx": "the examples in docstrings",
}
"""What a folder is there for."""

START = pytest.StashKey[float]()
TESTS: Counter[str] = Counter()
SECONDS: defaultdict[str, float] = defaultdict(float)
FILES: defaultdict[str, float] = defaultdict(float)
PEAKS: list[int] = []


def cpu_seconds() -> float:
    """The CPU time of this process and of those that it has waited for."""
    both = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


def peak() -> int:
    """MB that this process held at most."""
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found >> (20 if sys.platform == "darwin" else 10)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    item.stash[START] = cpu_seconds()
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    """A worker notes what the test used."""
    found = yield
    item.user_properties.append(("cpu", cpu_seconds() - item.stash[START]))
    return found


def part_of(nodeid: str) -> str:
    fits = [part for part in PARTS if nodeid.startswith(f"{part}/")]
    return fits[0] if fits else nodeid.split("/", maxsplit=1)[0]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """What the workers noted is added up."""
    if report.when == "teardown":
        used = sum(float(str(value)) for name, value in report.user_properties if name == "cpu")
        TESTS[part_of(report.nodeid)] += 1
        SECONDS[part_of(report.nodeid)] += used
        FILES[report.nodeid.split("::")[0]] += used


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["peak"] = peak()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    PEAKS.append(getattr(node, "workeroutput", {}).get("peak", 0))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """A line for each folder, the files that cost most, and the memory."""
    if not TESTS:
        return
    write = terminalreporter.write_line
    terminalreporter.section("what ran")
    for part in sorted(TESTS, key=lambda part: -SECONDS[part]):
        write(f"{part:18} {TESTS[part]:5} tests {SECONDS[part]:5.0f} s: {PARTS.get(part, '')}")
    costly = ", ".join(
        f"{file} {used:.0f} s"
        for file, used in sorted(FILES.items(), key=lambda file: -file[1])[:3]
    )
    write(f"The most by file: {costly}; seconds are of CPU.")
    peaks = PEAKS or [peak()]
    write(f"The largest of {len(peaks)} workers held {max(peaks)} MB.")
