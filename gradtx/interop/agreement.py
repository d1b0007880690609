"""Numbers that every process of a run must share: the step, and counts that each holds itself."""

from collections.abc import Mapping

import jax
import numpy as np

from gradtx.definition.errors import StateError

HALF = 31
"""The bits of one half of a number: JAX exchanges arrays of 32 bits unless x64 is on."""


def check_agreement(call: str, numbers: Mapping[str, int], cure: str) -> None:
    """Raise, on every process, where the processes have different numbers.

    Raises:
      StateError: the processes disagree; the first number that differs is named.
    """
    if jax.process_count() == 1 or not numbers:
        return
    rows = _gather(list(numbers.values()))
    for name, column in zip(numbers, rows.T, strict=True):
        other = next((n for n, value in enumerate(column) if value != column[0]), None)
        if other is not None:
            raise StateError(
                f"{call}: the processes disagree about {name}: process 0 has {_shown(column[0])}, "
                f"process {other} has {_shown(column[other])}: {cure}"
            )


def all_agree(flag: bool) -> bool:
    """Whether a flag is true on every process."""
    return flag if jax.process_count() == 1 else bool(_gather([int(flag)]).all())


def _gather(values: list[int]) -> np.ndarray:
    """The numbers of every process, a row each."""
    from jax.experimental import multihost_utils

    halves = np.array([[value >> HALF, value & (2**HALF - 1)] for value in values], np.int32)
    rows = np.asarray(multihost_utils.process_allgather(halves)).astype(np.int64)
    return (rows[..., 0] << HALF) + rows[..., 1]


def _shown(value: int) -> str:
    return "none" if value < 0 else str(value)
