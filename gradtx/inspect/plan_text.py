"""The text of a `Plan`: memory by kind, what every device holds whole, and the work."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from gradtx.definition.show import show_call, show_table
from gradtx.inspect.describe_text import REST, WIDE, cut, number
from gradtx.inspect.plan_arrays import ArrayRow

if TYPE_CHECKING:
    from gradtx.inspect.plan import Plan
    from gradtx.inspect.plan_compiled import Compiled

ROWS = 8
"""The lines of whole arrays; more of them are folded."""
UNITS = ("", "k", "M", "G", "T", "P", "E")
"""Powers of 1,000."""
TIMES = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))
SMALL = 1e-3
"""The part of a device's bytes below which an array needs no line of its own."""


def plan_text(plan: "Plan") -> str:
    """The tables and lines of a plan; a screen at most."""
    whole = _whole(plan.replicated, plan.device_bytes) if plan.mesh.size > 1 else ""
    return "\n\n".join(filter(None, (_title(plan), _memory(plan), whole, _work(plan))))


def _title(plan: "Plan") -> str:
    axes = ", ".join(f"{name} = {size}" for name, size in plan.mesh.shape.items())
    devices = f"{plan.mesh.size:,} {plan.chip.name}" if plan.mesh.size > 1 else plan.chip.name
    return f"{cut(show_call(plan.tx), WIDE)} on {devices} ({axes})"


def _memory(plan: "Plan") -> str:
    kinds: dict[str, list[ArrayRow]] = {}
    for row in plan.rows:
        kinds.setdefault(row.kind, []).append(row)
    lines = [(kind, *_sizes(rows)) for kind, rows in kinds.items()]
    total = ("total", *_sizes(plan.rows))
    share = plan.device_bytes / plan.chip.memory
    header = ("memory", "all devices", "a device", "whole on each")
    table = show_table([header, *lines, total], 1)
    return f"{table}\n{share:,.2%} of the {unit(plan.chip.memory, 'B')} of a {plan.chip.name}"


def _sizes(rows: Sequence[ArrayRow]) -> tuple[str, str, str]:
    whole = sum(row.bytes for row in rows if row.reason)
    sizes = sum(row.bytes for row in rows), sum(row.device_bytes for row in rows), whole
    return tuple(unit(size, "B") for size in sizes)  # pyright: ignore[reportReturnType]


def _whole(rows: Sequence[ArrayRow], device_bytes: int) -> str:
    """The largest arrays that every device holds whole, each with the reason."""
    large = [row for row in rows if row.bytes >= SMALL * device_bytes][:ROWS]
    if not large:
        return ""
    lines, rest = list(_whole_lines(large)), rows[len(large) :]
    if rest:
        count, size = sum(row.arrays for row in rest), sum(row.bytes for row in rest)
        lines.append((f"{REST} {count:,} smaller ones", "", "", unit(size, "B")))
    return show_table([("whole on each", "array", "because", "bytes"), *lines], 3)


def _whole_lines(rows: Iterable[ArrayRow]) -> Iterable[tuple[str, str, str, str]]:
    for row in rows:
        array = f"{row.array} × {row.arrays:,}" if row.arrays > 1 else row.array
        name = cut("/".join(filter(None, (row.kind, row.path))), WIDE)
        yield name, array, row.reason, unit(row.bytes, "B")


def _work(plan: "Plan") -> str:
    work = plan.work
    lines = [
        f"an update moves {unit(plan.traffic, 'B')} and takes {unit(work.flop, 'FLOP')}, "
        f"{unit(work.product_flop, 'FLOP')} of them in matrix products:",
        f"at least {_time(plan.seconds)} on each device, by bandwidth and peak of the chip",
    ]
    if plan.compiled is not None:
        lines.append(_compiled_line(plan.compiled))
    return "\n".join(lines)


def _compiled_line(compiled: "Compiled") -> str:
    counts = ", ".join(f"{count:,} {name}" for name, count in compiled.collectives.items())
    return (
        f"compiled: {unit(compiled.temporary_bytes, 'B')} of temporaries, "
        f"{number(compiled.cycles)} cycles by XLA's estimate; collectives: {counts or 'none'}"
    )


def _time(seconds: float) -> str:
    """A duration with three digits, in s, ms or µs.

    >>> _time(0.00744), _time(56.4)
    ('7.44 ms', '56.4 s')
    """
    name, scale = next((one for one in TIMES if seconds >= one[1]), TIMES[-1])
    return unit(seconds / scale, name)


def unit(value: float, name: str, power: int = 0) -> str:
    """A number with three digits and a prefix.

    >>> unit(14_000_000, "B"), unit(0, "B"), unit(999.6, "B")
    ('14.0 MB', '0 B', '1.00 kB')
    """
    scaled = float(value)
    while float(f"{scaled:.3g}") >= 1000 and power < len(UNITS) - 1:
        scaled, power = scaled / 1000, power + 1
    if scaled == int(scaled) and scaled < 1000 and power == 0:
        return f"{int(scaled)} {name}"
    digits = 2 if scaled < 9.995 else 1 if scaled < 99.95 else 0
    return f"{scaled:.{digits}f} {UNITS[power]}{name}"
