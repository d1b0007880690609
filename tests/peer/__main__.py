"""Run Optax's own tests on gradtx: python -m tests.peer [AREA ...]

Without areas the command writes docs/peer_suite.md; with areas it compares their counts with that
page. The exit status is 1 where they differ, where a failing case has no reason in
tests/peer/reasons.py, where a reason explains no failure, or where the bar is not reached.
"""

import argparse
import sys
from collections.abc import Sequence

from tests.peer import page
from tests.peer.reasons import blamed, idle, unexplained
from tests.peer.suite import Case, area_of, listing, run, with_optax


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("areas", nargs="*", help="areas, such as alias or losses; all of them")
    parser.add_argument("--workers", type=int, default=1, help="files that run at once")
    options = parser.parse_args()
    files = [file for file in listing() if chosen(area_of(file), options.areas)]
    cases = run(files, options.workers)
    if not options.areas:
        page.PAGE.write_text(page.page(cases))
    complaints = [*complain(cases), *page.differs(cases)]
    if not options.areas and page.share(cases) < page.BAR:
        complaints.append(f"the bar is {page.BAR:.0%}")
    print(*page.summary(cases), *complaints, sep="\n")
    sys.exit(bool(complaints))


def chosen(area: str, areas: Sequence[str]) -> bool:
    """Whether an area, or its folder, is among those that were asked for."""
    return not areas or area in areas or area.split("/", maxsplit=1)[0] in areas


def complain(cases: Sequence[Case]) -> list[str]:
    """Describe the faults of the outcomes."""
    faults = [f"no reason: {case.key}: {page.one_line(case)}" for case in unexplained(cases)]
    unused = [f"explains no failure: {reason.case}: {reason.why}" for reason in idle(cases)]
    return [*faults, *unused, *passing_with_optax(blamed(cases))]


def passing_with_optax(cases: Sequence[Case]) -> list[str]:
    """The cases that do not fail with Optax, where their reason says so."""
    files = {case.file for case in cases}
    names = {file: [case.name for case in cases if case.file == file] for file in files}
    results = (one for file in files for one in with_optax(file, names[file]))
    return [f"passes with Optax: {one.key}" for one in results if one.outcome != "failed"]


if __name__ == "__main__":
    main()
