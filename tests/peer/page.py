"""The page docs/peer_suite.md: the count of each area, and one line for each failing test."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from tests.peer.reasons import FAULT, reason_for
from tests.peer.suite import Case
from tests.support.places import ROOT

PAGE = ROOT / "docs" / "peer_suite.md"
BAR = 0.97
FLOOR = 0.966
"""The share that passes: it may rise, and must not fall."""
HEAD = """# Optax's own tests, run on gradtx

The wheel of Optax 0.2.8 holds its test files. `python -m tests.peer` runs each of them in a process
where `import optax` answers with gradtx: `optax.losses.x` is `gradtx.losses.x`, and a module that
is private in Optax answers with gradtx's public names. The runner reads the files where Optax is
installed; this project holds no copy of them. A file that cannot be imported fails in all of its
cases. A case that skips itself counts only as skipped where it skips itself with Optax too.

"""


def page(cases: Sequence[Case]) -> str:
    """The text of the page."""
    return HEAD + "\n".join([*summary(cases), "", *table(cases), "", *failures(cases), ""])


def summary(cases: Sequence[Case]) -> Iterator[str]:
    """The share of all cases, and the bars."""
    passed = f"**{count(cases, 'passed'):,} of {ran(cases):,}**"
    yield f"gradtx passes {passed} cases, {share(cases):.1%}. The bar is {BAR:.0%}."


def table(cases: Sequence[Case]) -> Iterator[str]:
    yield "| area | cases | passed | failed | skipped, by Optax too |"
    yield "|---|---:|---:|---:|---:|"
    for area in dict.fromkeys(case.area for case in cases):
        yield row(area, [case for case in cases if case.area == area])
    yield row("**all**", cases)


def row(name: str, cases: Sequence[Case]) -> str:
    outcomes = (count(cases, outcome) for outcome in ("passed", "failed", "skipped"))
    return f"| {name} | {len(cases)} | " + " | ".join(map(str, outcomes)) + " |"


def count(cases: Sequence[Case], outcome: str) -> int:
    return sum(case.outcome == outcome for case in cases)


def share(cases: Sequence[Case]) -> float:
    """The share of the cases that pass."""
    return count(cases, "passed") / max(ran(cases), 1)


def ran(cases: Sequence[Case]) -> int:
    """The number of cases that do not skip themselves."""
    return len(cases) - count(cases, "skipped")


def differs(cases: Sequence[Case]) -> Iterator[str]:
    """What the page says otherwise of the areas that ran."""
    lines = set(PAGE.read_text().splitlines()) if PAGE.exists() else set[str]()
    for area in dict.fromkeys(case.area for case in cases):
        line = row(area, [case for case in cases if case.area == area])
        if line not in lines:
            yield f"{PAGE.name} has another row than {line}"


def failures(cases: Sequence[Case]) -> Iterator[str]:
    """One line for each failing test: all cases of one test that fail for one reason."""
    yield "## Every failure"
    yield ""
    yield "| area | test | cases | class | reason |"
    yield "|---|---|---:|---|---|"
    for (area, test, kind, why), number in sorted(tests(cases).items()):
        yield f"| {area} | `{test}` | {number} | {kind} | {why} |"


def tests(cases: Sequence[Case]) -> Counter[tuple[str, str, str, str]]:
    """How many cases of each test fail for each reason."""
    counts: Counter[tuple[str, str, str, str]] = Counter()
    for case in cases:
        if case.outcome == "failed":
            reason = reason_for(case)
            kind, why = (reason.kind, reason.why) if reason else (FAULT, one_line(case))
            counts[case.area, without_number(case.name), kind, why] += 1
    return counts


def without_number(name: str) -> str:
    """The test of a case, without the number that absl gives to its arguments."""
    return re.sub(r"\d+$", "", name.rpartition(".")[2])


def one_line(case: Case) -> str:
    """The failure of a case that no reason explains, for a cell of the table."""
    return " ".join(f"{case.error}: {case.text}".split())[:160].replace("|", "\\|")
