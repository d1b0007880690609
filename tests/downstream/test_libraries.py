"""Trainings in other libraries: gradtx by a changed import, and by `to_optax`, beside Optax.

`make downstream` runs the libraries of the extra `downstream`, which are small;
`python -m benchmarks.downstream` runs every library that is installed.
"""

import dataclasses
import re
import tomllib
from typing import Any

import pytest

from tests.downstream.compare import ROWS, WAYS, compare
from tests.downstream.row import Row, clipped_adamw
from tests.support.places import ROOT

# 20 steps of float32: some ten roundings in the parameters, and the library's own in the loss.
TOLERANCE = 1e-5
# A warning of a library about another one is not a fault of gradtx.
pytestmark = pytest.mark.filterwarnings("ignore")
SUPPORT = {"optax", "pytest", "pytest-xdist"}


def extra() -> set[str]:
    """The libraries of the extra `downstream`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {re.split("[=<>]", one)[0] for one in project["optional-dependencies"]["downstream"]}
    return names - SUPPORT


SMALL = [row for row in ROWS if row.package in extra()]


def identifier(row: Row) -> str:
    return row.name


@pytest.mark.parametrize("row", SMALL, ids=identifier)
@pytest.mark.parametrize("way", WAYS)
def test_losses_are_those_of_optax(row: Row, way: str) -> None:
    if row.checks_type and way == "direct":
        with pytest.raises(TypeError, match="GradientTransformation"):
            compare(row, way)
    else:
        assert compare(row, way).difference <= TOLERANCE


def test_every_small_library_has_a_row() -> None:
    assert extra() == {row.package for row in SMALL}, "remove it from the extra, or add a row"


@pytest.mark.parametrize("row", SMALL[:1], ids=identifier)
def test_the_comparison_notices_another_optimizer(row: Row) -> None:
    def other(optax: Any) -> Any:
        scale = 1.0 if optax.__name__ == "optax" else 1.001
        return optax.chain(clipped_adamw(optax), optax.scale(scale))

    assert compare(dataclasses.replace(row, make=other), "direct").difference > TOLERANCE
