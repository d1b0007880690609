"""The parity tables: every optimizer beside its float64 reference, Optax and torch; every function
beside its reference and Optax.

`python docs/_generate.py --parity` writes them into docs/parity.md.
"""

import functools
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.functions import FUNCTIONS
from tests.methods import METHODS
from tests.support.functions import deviations
from tests.support.places import ROOT
from tests.support.torch_rows import TORCH, torch_trace
from tests.support.trees import deviation, follow, follow_reference, start

PAGE = ROOT / "docs" / "parity.md"
COLUMNS = (
    "reference, float64",
    "reference, float32",
    "Optax, float64",
    "Optax, float32",
    "(Optax from the reference, float32)",
    "torch, float64",
    "torch, float32",
)
ROW = re.compile(r"^\| \[`(\w+)`\]\(#gradtx\.\1\) \| (.*) \|$", re.MULTILINE)


def optimizers() -> list[str]:
    """Every optimizer: one file each."""
    return sorted(
        path.stem
        for path in (ROOT / "gradtx" / "optimizers").glob("[a-z]*.py")
        if path.stem in METHODS
    )


def positions(history: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    """The parameters after every step."""
    params, found = start(), []
    for updates in history:
        params = [w + u for w, u in zip(params, updates, strict=True)]
        found.append(params)
    return found


@functools.cache
def measured(name: str) -> dict[str, float]:
    """The largest deviation over 20 steps, by column, where there is a peer."""
    method, torch = METHODS[name], TORCH.get(name)
    exact = follow_reference(method.oracle, extra=method.extra)
    both = functools.partial(follow, extra=method.extra)
    found: list[float | None] = []
    with jax.enable_x64(True):
        wide = both(method.tx, jnp.float64)
        theirs = None if method.optax is None else both(method.optax, jnp.float64)
        traced = (
            None
            if torch is None
            else deviation(positions(follow(torch, jnp.float64)), torch_trace(name))
        )
    narrow = both(method.tx, jnp.float32)
    found += [deviation(wide, exact), deviation(narrow, exact)]
    if theirs is None:
        found += [None] * 3
    else:
        rounded = both(method.optax, jnp.float32)
        found += [
            deviation(wide, theirs),
            deviation(narrow, rounded, exact),
            deviation(rounded, exact),
        ]
    found += [
        traced,
        None
        if torch is None
        else deviation(positions(follow(torch, jnp.float32)), torch_trace(name)),
    ]
    return {
        column: value for column, value in zip(COLUMNS, found, strict=True) if value is not None
    }


def shown(value: float | None) -> str:
    """One digit, rounded up; values below the rounding of float64 are all one."""
    if value is None:
        return "–"
    if value < 1e-15:
        return "< 1e-15"
    exponent = math.floor(math.log10(value))
    digit = math.ceil(value / 10**exponent - 1e-9)
    return f"{digit}e{exponent:+03}" if digit < 10 else f"1e{exponent + 1:+03}"


def line(name: str) -> str:
    cells = [shown(measured(name).get(column)) for column in COLUMNS]
    return f"| [`{name}`](#gradtx.{name}) | {' | '.join(cells)} |"


def published() -> dict[str, list[str]]:
    """The cells of the page, by optimizer."""
    return {
        name: cells.split(" | ") for name, cells in ROW.findall(PAGE.read_text(encoding="utf-8"))
    }


def lines() -> list[str]:
    """The lines of the table, head and all."""
    head = f"| optimizer | {' | '.join(COLUMNS)} |"
    return [head, "|---" * (len(COLUMNS) + 1) + "|", *map(line, optimizers())]


FUNCTION_COLUMNS = ("reference, float64", "reference, float32", "Optax, float64")
FUNCTION_ROW = re.compile(r"^\| `([^`]+)` \| (.*) \|$", re.MULTILINE)


def functions() -> list[str]:
    """Every function with a row in tests/functions; `name/part` are further rows of `name`."""
    return sorted({name.split("/")[0] for name in FUNCTIONS})


def measured_function(name: str) -> dict[str, float]:
    """The largest deviation of all cases, by column, where there is a peer."""
    rows = [row for row in FUNCTIONS if row.split("/")[0] == name]
    found = [deviations(row, case) for row in rows for case in FUNCTIONS[row].cases]
    columns = zip(FUNCTION_COLUMNS, zip(*found, strict=True), strict=True)
    known = {column: [one for one in values if one is not None] for column, values in columns}
    return {column: max(values) for column, values in known.items() if values}


def function_lines() -> list[str]:
    """The lines of the functions' table, head and all."""
    head = f"| function | {' | '.join(FUNCTION_COLUMNS)} |"
    cells = {
        name: [shown(measured_function(name).get(column)) for column in FUNCTION_COLUMNS]
        for name in functions()
    }
    rows = [f"| `{name}` | {' | '.join(row)} |" for name, row in cells.items()]
    return [head, "|---" * (len(FUNCTION_COLUMNS) + 1) + "|", *rows]


def published_functions() -> dict[str, list[str]]:
    """The cells of the functions' table on the page."""
    text = PAGE.read_text(encoding="utf-8")
    return {name: cells.split(" | ") for name, cells in FUNCTION_ROW.findall(text)}


def value_of(cell: str) -> Any:
    """The number in a cell, or None."""
    return None if cell == "–" else float(cell.removeprefix("< "))
