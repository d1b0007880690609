"""Tables of measurements: the rows of the newest record of each benchmark."""

import json
from pathlib import Path
from typing import Any

from _tables import cell, table

RECORDS = Path(__file__).parent.parent / "benchmarks" / "records"
BYTES = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def newest(benchmark: str) -> Path:
    """The last record of a benchmark; a file is `YYYY-MM-DD-NAME.json`."""
    return max(path for path in RECORDS.glob("*.json") if path.stem[11:] == benchmark)


def record_table(benchmark: str) -> list[str]:
    """The command, the record, and one line for each measurement."""
    path = newest(benchmark)
    rows = [row_cells(row) for row in json.loads(path.read_text("utf-8"))["rows"]]
    return [
        f"`python -m benchmarks.{benchmark}`, measured on {path.stem[:10]}: "
        f"`benchmarks/records/{path.name}`.",
        "",
        *table(("measurement", "gradtx", "against", "ratio", "bar", "verdict"), *rows),
    ]


EVIDENCE = {
    "method": "method",
    "loss": "final loss",
    "added": "added by the part",
    "steps to AdamW": "steps to AdamW's loss",
    "steps to optax": "steps to `optax.contrib.muon`'s loss",
    "to loss": "time to AdamW's loss",
}
"""The columns of the table of parts, by their names in the record."""


def evidence_table(task: str) -> list[str]:
    """What every part adds on a task of `benchmarks.frontier`."""
    rows = json.loads(newest("frontier").read_text("utf-8"))["rows"]
    mine = (row for row in rows if row["task"] == task)
    return table(
        tuple(EVIDENCE.values()),
        *(tuple(cell(row[name].replace("-0", "−0")) or "–" for name in EVIDENCE) for row in mine),
    )


def row_cells(row: dict[str, Any]) -> tuple[str, ...]:
    unit, values = row["unit"], row["values"]
    others = {name: value for name, value in values.items() if name != "gradtx"}
    peers = [f"{name} {quantity(value, unit)}" for name, value in others.items()]
    bar = row["bar"]
    return (
        cell(row["name"]),
        quantity(values["gradtx"], unit) if "gradtx" in values else "–",
        cell(", ".join(peers)) or "–",
        "–" if row["ratio"] is None else short(median(row["ratio"])),
        "–" if bar is None else short(bar) if row["ratio"] is not None else quantity(bar, unit),
        row["verdict"] or "–",
    )


def median(value: Any) -> float:
    """A count, or the median of runs."""
    return value["median"] if isinstance(value, dict) else value


def quantity(value: Any, unit: str) -> str:
    """A value with its unit: milliseconds, bytes in thousands, or the unit of the record."""
    number = median(value)
    if unit == "s":
        return f"{short(number * 1e3)} ms" if number < 1 else f"{short(number)} s"
    if unit == "B":
        name, size = next(((name, size) for name, size in BYTES if number >= size), ("B", 1.0))
        return f"{short(number / size)} {name}"
    return f"{short(number)} {unit}".strip()


def short(number: float) -> str:
    """Three digits, and all of a whole number below a million."""
    whole = float(number).is_integer() and abs(number) < 1e6
    return f"{int(number):,}" if whole else f"{number:.3g}"
