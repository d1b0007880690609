"""A few random cases in all surroundings, the same in every run; `make fuzz` looks for new ones."""

import pytest
from hypothesis import Phase

from tests.fuzz.running import ALL, fuzzed

EXAMPLES = 6
"""Random cases for each of the surroundings: about a minute in all."""


@pytest.mark.parametrize("surroundings", sorted(ALL))
def test_random_definitions(surroundings: str) -> None:
    number = sorted(ALL).index(surroundings)
    fuzzed(surroundings, EXAMPLES, number, (Phase.generate,))()
