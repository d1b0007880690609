"""State in host memory by the compilers for TPU and GPU: how much is on the device at once."""

import pytest

import gradtx
from benchmarks.offload import compile_step, overlapped

ADAMW = gradtx.adamw(1e-3)
CASES = {
    "eight arrays on one TPU": ("tpu", 1, 8),
    "eight arrays on four TPUs": ("tpu", 4, 8),
    "24 arrays on a GPU": ("cuda", 1, 24),
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_quarter_of_the_slots_at_most_is_on_the_device(name: str) -> None:
    platform, devices, arrays = CASES[name]
    step = compile_step(ADAMW, platform, devices, arrays, 2048)
    assert step.ratio <= 0.25
    if platform == "tpu":  # the slots are updated in place, in the memory of the host
        assert step.host_alias_bytes == step.slot_bytes


def test_copies_overlap_with_arithmetic() -> None:
    """A bundle of several leaves copies one while another is computed."""
    step = compile_step(ADAMW, "tpu", 1, 24, 1024)
    assert step.ratio <= 0.25
    assert overlapped(step.text) > 0
