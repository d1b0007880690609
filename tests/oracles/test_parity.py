"""The published parity table is what is measured, and holds its bars."""

import pytest

from tests.functions import FUNCTIONS
from tests.methods import METHODS
from tests.support.parity import (
    COLUMNS,
    FUNCTION_COLUMNS,
    functions,
    measured,
    measured_function,
    optimizers,
    published,
    published_functions,
    value_of,
)
from tests.support.places import ROOT

PUBLISHED = published()
PUBLISHED_FUNCTIONS = published_functions()


def test_every_optimizer_is_in_the_table() -> None:
    stems = {path.stem for path in (ROOT / "gradtx" / "optimizers").glob("[a-z]*.py")}
    assert list(PUBLISHED) == optimizers()
    assert stems - set(PUBLISHED) == WITHOUT


WITHOUT: set[str] = set()
"""Optimizers that do not follow gradients given beforehand, and are compared in tests of their own.
"""


@pytest.mark.parametrize("name", optimizers())
def test_the_table_says_what_is_measured_and_the_bars_hold(name: str) -> None:
    """Measured within a factor of ten above the bars, as other processors and compilers round
    otherwise.

    The bars are 1e-12 in float64 and 1e-5 in float32, but for rows with a reason; Optax's own
    rounding is not ours to answer for. torch's recorded parameters are sums of rounded steps,
    multiplied and divided in another order."""
    found, method = measured(name), METHODS[name]
    for column, cell in zip(COLUMNS, PUBLISHED[name], strict=True):
        told, value = value_of(cell), found.get(column)
        assert (told is None) == (value is None), column
        if value is not None and told is not None:
            floor = 1e-5 if "32" in column else 1e-12
            assert value <= max(10 * told, floor) and told <= max(10 * value, floor), (
                f"{column}: {value:.0e}, the page says {cell}"
            )
    wide, narrow, optax_wide, optax_narrow, optax_own, torch_wide, torch_narrow = (
        found.get(column, 0.0) for column in COLUMNS
    )
    assert (
        wide <= method.float64
        and optax_wide <= max(method.float64, method.optax64)
        and torch_wide <= 1e-11
    )
    assert narrow <= method.float32 and torch_narrow <= max(1e-5, method.float32)
    assert optax_narrow <= method.float32 + optax_own


def test_every_function_is_in_the_table() -> None:
    assert list(PUBLISHED_FUNCTIONS) == functions()


@pytest.mark.parametrize("name", functions())
def test_the_functions_table_says_what_is_measured_and_the_bars_hold(name: str) -> None:
    """Within a factor of ten above the bars: 1e-12 in float64, that of the row in float32."""
    found = measured_function(name)
    single = max(row.single for key, row in FUNCTIONS.items() if key.split("/")[0] == name)
    for column, cell in zip(FUNCTION_COLUMNS, PUBLISHED_FUNCTIONS[name], strict=True):
        told, value = value_of(cell), found.get(column)
        assert (told is None) == (value is None), column
        if value is not None and told is not None:
            bar = single if "32" in column else 1e-12
            assert value <= bar and told <= 10 * bar, f"{column}: {value:.0e}, the page says {cell}"
