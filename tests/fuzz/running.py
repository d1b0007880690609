"""Run surroundings on random cases, and say which case failed."""

from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, Phase, given, reject, seed, settings

import gradtx
from tests.fuzz.cases import Case, cases
from tests.fuzz.libraries import LIBRARIES
from tests.fuzz.surroundings import SURROUNDINGS

ALL = {**SURROUNDINGS, **LIBRARIES}
"""All surroundings, by name."""


def fuzzed(name: str, examples: int, number: int, phases: Sequence[Phase]) -> Any:
    """A function without arguments that runs one of the surroundings on random cases.

    A number always stands for the same cases.
    """

    def run(case: Case) -> None:
        try:
            ALL[name](case)
        except gradtx.GradtxError:
            reject()  # refused with the reason, as a definition may be for such a tree
        except Exception as error:
            error.add_note(f"{case.text}, gradients of {case.scale:g}, in {name}")
            raise

    options = settings(
        max_examples=examples,
        deadline=None,  # the first example compiles
        database=None,  # a case that failed before is not tried first
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        phases=phases,
    )
    return seed(number)(options(given(cases())(run)))
