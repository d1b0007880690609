"""The figures of the house that are exact: each holds a bound, so that it cannot creep back.

`python -m tests.house.figures` prints all of them beside the baseline and the bar.
"""

from tests.house import call_paths
from tests.support.places import ROOT


def test_the_walk_of_an_update() -> None:
    """Frames to the rule, files and functions entered by one cold update."""
    found = call_paths.adamw_path(ROOT)
    assert found.frames <= 11 and found.files <= 20 and found.functions <= 100


def test_the_walk_through_a_wrapper() -> None:
    found = call_paths.guard_path(ROOT)
    assert found.frames <= 19 and found.files <= 30 and found.functions <= 167
