"""Momentum kernels, compiled for TPU and GPU: no ring is copied; averages share a kernel."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import gradtx
from tests.accelerators.programs import Program, compiled_for
from tests.support.momentum_kernels import small_taps

PLATFORMS = ("cuda", "tpu")


@functools.cache
def program(platform: str, kernel: Any, dtype: str) -> Program:
    tx, w = gradtx.adamw(0.1, momentum=kernel, mu_dtype=dtype), jnp.ones((256, 256))
    step = jax.jit(tx.update, donate_argnums=1)
    return compiled_for(platform, step, w, tx.init(w), w)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_ring_is_updated_in_place(platform: str, dtype: str) -> None:
    found = program(platform, small_taps(), dtype)
    assert "[7,256,256]" in found.text
    assert not re.findall(r"= \w+\[7,256,256\]\S* copy(?:-start)?\(", found.text)
    # A few gradients in float32, and never the seven of the ring.
    assert found.counts.temp_bytes <= 3 * 4 * 256 * 256


def test_eight_averages_are_one_kernel_on_a_tpu() -> None:
    counts = program("tpu", gradtx.k_maxwell(), "float32").counts
    assert counts.kernels == 1 and counts.temp_bytes == 0
