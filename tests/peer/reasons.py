"""Why a case of Optax's suite fails on gradtx: one row for each kind of failure.

A row names cases by a regular expression on `area::Class.method` and on the text of the failure.
Rows that match no failing case, and failing cases that no row matches, are errors.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from tests.peer.suite import Case

PRIVATE = "reads private state"
TEXT = "another text of an error"
DIFFERENCE = "a reasoned difference (row in from_optax)"
OPTAX = "fails with Optax too"
FAULT = "a fault"


class Reason(NamedTuple):
    """The class of some failures, and the reason in one sentence."""

    case: str
    kind: str
    why: str
    text: str = ""

    def explains(self, case: Case) -> bool:
        """Whether this row is about a case that failed."""
        shown = f"{case.error}: {case.text}"
        return bool(re.fullmatch(self.case, case.key) and re.search(self.text, shown))


REASONS: tuple[Reason, ...] = ()


def explained(cases: Sequence[Case]) -> dict[Reason, list[Case]]:
    """The failing cases of each row, in the order of the rows; the first row that matches wins."""
    rows: dict[Reason, list[Case]] = {reason: [] for reason in REASONS}
    for case in failing(cases):
        if (reason := reason_for(case)) is not None:
            rows[reason].append(case)
    return rows


def reason_for(case: Case) -> Reason | None:
    return next((reason for reason in REASONS if reason.explains(case)), None)


def failing(cases: Sequence[Case]) -> list[Case]:
    return [case for case in cases if case.outcome == "failed"]


def unexplained(cases: Sequence[Case]) -> list[Case]:
    """The failing cases without a row."""
    return [case for case in failing(cases) if reason_for(case) is None]


def idle(cases: Sequence[Case]) -> list[Reason]:
    """The rows that no failing case needs any more, of the areas that ran."""
    areas = {case.area for case in cases}
    rows = explained(cases)
    return [one for one in REASONS if not rows[one] and one.case.split("::")[0] in areas]
