"""Training steps compiled for a TPU v5e and an H100: kernels, cycles, bytes. No device is needed.

A kernel is a fusion of the entry computation (on a GPU a custom call too). Cycles are XLA's own
estimate. The counts repeat exactly, so one compilation is a measurement, and tests/accelerators
holds the same bars."""

import sys
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.compilers import CHIPS, Counts, measured
from benchmarks.harness import Row, arguments, finish
from benchmarks.steps import LIBRARIES


class Bar(NamedTuple):
    """The upper limits of kernels and of million cycles, to two digits."""

    kernels: int
    megacycles: float | None = None


BARS = {
    ("tpu", "gpt2_small", "adamw"): Bar(148, 8.21),
    ("tpu", "gpt2_small", "clip + adamw"): Bar(296, 10.73),
    ("tpu", "500_leaves", "adamw"): Bar(500, 0.97),
    ("tpu", "500_leaves", "clip + adamw"): Bar(1000, 1.90),
    ("cuda", "gpt2_small", "adamw"): Bar(150),
    ("cuda", "gpt2_small", "clip + adamw"): Bar(350),
    ("cuda", "500_leaves", "adamw"): Bar(502),
    ("cuda", "500_leaves", "clip + adamw"): Bar(1008),
}
"""By platform, tree and optimizer."""


def megacycles(counts: Counts) -> float:
    """Million cycles, to the two digits of the bars."""
    return round(counts.cycles / 1e6, 2)


def rows() -> Iterator[Row]:
    for (platform, tree, optimizer), bar in BARS.items():
        programs = {library: measured(platform, tree, optimizer, library) for library in LIBRARIES}
        name = f"{CHIPS[platform]}, {tree}, {optimizer}"
        yield Row(
            f"{name}: kernels",
            {side: one.kernels for side, one in programs.items()},
            bar=bar.kernels,
            unit="",
        )
        if bar.megacycles is not None:
            yield Row(
                f"{name}: cycles",
                {side: megacycles(one) for side, one in programs.items()},
                bar=bar.megacycles,
                unit="M",
            )
        if platform == "cuda":
            yield Row(
                f"{name}: copies",
                {side: one.copies for side, one in programs.items()},
                bar=0,
                unit="",
            )
        yield Row(
            f"{name}: temporary",
            {side: one.temp_bytes / 2**20 for side, one in programs.items()},
            unit="MiB",
        )


def main() -> int:
    options = arguments(__doc__)
    return finish("accelerators", list(rows()), options, exact=True)


if __name__ == "__main__":
    sys.exit(main())
