"""The table of methods: every transformation, its float64 reference, and Optax's form where it has
one.

One module per group; a new method is one row in the module of its group, and its reference stands
in the module of the same name in `tests/oracles`. `test_house.py` fails when a public method has
none."""

import importlib
import pkgutil

from tests.methods.row import Method as Method

METHODS: dict[str, Method] = {}
for _found in sorted(pkgutil.iter_modules(__path__), key=lambda found: found.name):
    _rows: dict[str, Method] = getattr(
        importlib.import_module(f"{__name__}.{_found.name}"), "METHODS", {}
    )
    _twice = METHODS.keys() & _rows.keys()
    assert not _twice, f"two rows for {_twice}"
    METHODS |= _rows

FIRST = sorted({name.split("/")[0]: name for name in reversed(METHODS)}.values())
"""One row for every maker, at its plainest; the others are variants by other arguments."""
