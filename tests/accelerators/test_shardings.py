"""Muon over 16 chips, compiled for v5e:4x4: exact counts of collectives, and cycles beside Optax's.

What Optax's step takes was measured by `python -m benchmarks.sharding`, which compiles both.
"""

import pytest

from benchmarks.sharding import Counts, measured

MATRICES = 26
"""Arrays of two axes: 24 hidden matrices, the embedding and the head."""
OPTAX = {"fsdp": 408_044, "fsdp + tp": 475_960, "zero-1": 374_781}
"""Cycles of `optax.contrib.muon` of Optax 0.2.8, by XLA's estimate."""
BARS = {"fsdp": 0.65, "fsdp + tp": 0.45, "zero-1": 0.65}
GROUPS = {"fsdp": 3, "fsdp + tp": 4, "zero-1": 3}
"""Matrices of one shape and one cut: two all-to-alls take them to their owners and back."""


def counts(layout: str, is_known: bool = True) -> Counts:
    return measured("gradtx", "muon", "by layer", layout, is_known)


@pytest.mark.parametrize("layout", sorted(BARS))
def test_matrices_go_all_to_all(layout: str) -> None:
    ours = counts(layout)
    assert ours.all_to_alls == 2 * GROUPS[layout]
    # ZeRO-1 gathers each parameter once; nothing else is gathered or summed.
    assert ours.all_gathers == (MATRICES if layout == "zero-1" else 0)
    assert ours.all_reduces == ours.reduce_scatters == ours.permutes == 0
    assert ours.cycles <= BARS[layout] * OPTAX[layout]
