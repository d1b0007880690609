"""Every other loss and its gradient, as the TPU and GPU compilers see them, beside Optax's."""

from typing import NamedTuple

import jax
import pytest

from benchmarks.compilers import Counts
from benchmarks.losses import LIBRARIES, LOSSES, inputs, programs
from tests.accelerators.programs import compiled_for

SCALARS = 1024
"""Bytes of sums on the way, which a compiler aligns; the arrays have 256 kB and more."""
ESTIMATE = 1.02
"""Cycles are estimates: programs of one fusion differ by a hundredth."""


class More(NamedTuple):
    """What a program takes beyond Optax's, at most."""

    besides: str
    """What it computes besides, by its source."""
    kernels: int = 0
    temp_bytes: int = 0
    cycles: float = ESTIMATE


UNIT = "unit vectors first, with an inverse norm of 0 for a vector of zeros"
EMPTY = "a choice for empty classes, in the place of a division by zero"
MORE = {
    ("log_cosh", "tpu"): More("a series for small errors, whose terms cancel", cycles=1.04),
    ("cosine_similarity", "cuda"): More(UNIT, 3, 25_000),
    ("cosine_distance", "cuda"): More(UNIT, 3, 25_000),
    ("binary_dice_loss", "tpu"): More(EMPTY, cycles=1.03),
    ("multiclass_generalized_dice_loss", "tpu"): More(EMPTY, cycles=1.04),
    ("multiclass_generalized_dice_loss", "cuda"): More(EMPTY, 1),
    ("ntxent", "cuda"): More(
        "a peak for each row, so that exponentials do not overflow; two matrices of pairs more in "
        "the gradient, for a fifteenth of Optax's cycles on a TPU",
        2,
        2_000_000,
    ),
    ("triplet_margin_loss", "tpu"): More("unknown: kernels and bytes are Optax's", cycles=1.15),
}
"""By loss and platform."""


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("name", LOSSES)
def test_no_more_memory_kernels_or_cycles_than_optax(platform: str, name: str) -> None:
    """XLA:GPU estimates no cycles, so kernels count there."""
    shapes, more = jax.eval_shape(lambda: inputs(name)), MORE.get((name, platform), More(""))
    for program in ("forward", "gradient"):
        found: dict[str, Counts] = {}
        for library in LIBRARIES:
            with jax.numpy_rank_promotion("allow"):
                step = programs(library, name)[program]
                found[library] = compiled_for(platform, step, *shapes).counts
        mine, theirs = found["gradtx"], found["optax"]
        print(f"\n{program}\ngradtx {mine}\noptax  {theirs}")
        assert mine.temp_bytes <= theirs.temp_bytes + more.temp_bytes + SCALARS, program
        assert mine.cycles <= more.cycles * theirs.cycles, program
        if platform == "cuda":
            assert mine.kernels <= theirs.kernels + more.kernels, program
