"""The memory, bandwidth and peak rate of accelerators, from the data sheets of their makers."""

from typing import NamedTuple

from gradtx.definition.errors import GradtxError


class Chip(NamedTuple):
    """One device of an accelerator."""

    name: str
    memory: float
    """Bytes of high-bandwidth memory."""
    bandwidth: float
    """Bytes a second between the chip and its memory."""
    peak: float
    """FLOP a second of dense matrix products in bfloat16."""


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 32 * 2**30, 1228e9, 275e12),
        Chip("v5e", 16 * 2**30, 819e9, 197e12),
        Chip("v5p", 95 * 2**30, 2765e9, 459e12),
        Chip("v6e", 32 * 2**30, 1640e9, 918e12),
        Chip("a100", 80 * 10**9, 2039e9, 312e12),
        Chip("h100", 80 * 10**9, 3352e9, 989e12),
        Chip("h200", 141 * 10**9, 4800e9, 989e12),
    )
}


def chip_of(name: str) -> Chip:
    """The chip of a name; an error lists the names."""
    if name not in CHIPS:
        raise GradtxError(f"plan: chip = {name!r} is not one of {', '.join(map(repr, CHIPS))}")
    return CHIPS[name]
