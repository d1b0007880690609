"""State in fewer bits as the TPU and GPU compilers see it: one kernel per matrix, nothing in memory
beside the arguments.
"""

import functools
from typing import Any

import jax
import pytest

import gradtx
from benchmarks.storage import CYCLES, step_of
from benchmarks.trees import array, parameter_count
from tests.accelerators.programs import Program, compiled_for

TREE = {"up": array(768, 2304), "down": array(3072, 768)}
BYTES = 4 * parameter_count(TREE)
ADAMW, LION = gradtx.adamw(1e-3), gradtx.lion(1e-3)
STEPS: dict[str, Any] = {
    "float32": ADAMW,
    "bf16": gradtx.stored(ADAMW, "bf16"),
    "packed16": gradtx.stored(ADAMW, "packed16"),
    "int8": gradtx.stored(ADAMW, "int8", fused=True),
    "int4": gradtx.stored(ADAMW, mu="int4", nu="int8", fused=True),
    "int8, bf16": gradtx.stored(ADAMW, mu="int8", nu="bf16", fused=True),
    "lion int8": gradtx.stored(LION, "int8", fused=True),
}
KERNELS = ("int8", "int4", "int8, bf16", "lion int8")


@functools.cache
def compiled(platform: str, name: str) -> Program:
    tx = STEPS[name]
    return compiled_for(platform, step_of(tx), TREE, jax.eval_shape(tx.init, TREE), TREE)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_one_kernel_per_matrix(platform: str, name: str) -> None:
    """A Pallas kernel for each, in which everything is updated in place; beside it only scalars, of
    the step and its schedule.
    """
    found, text = compiled(platform, name)
    target = "tpu_custom_call" if platform == "tpu" else "__gpu$xla.gpu.triton"
    print(f"\n{platform}, {name}: {found}")
    assert text.count(f'custom_call_target="{target}"') == len(TREE)
    assert found.kernels <= (1 if platform == "tpu" else len(TREE) + 4)
    assert found.temp_bytes <= 0.02 * BYTES
    arrays = [
        leaf
        for leaf in jax.tree.leaves((TREE, jax.eval_shape(STEPS[name].init, TREE)))
        if leaf.ndim
    ]
    assert found.aliased >= len(arrays) and "f32[768,2304]{1,0} copy(" not in text


@pytest.mark.parametrize("name", ["bf16", "packed16"])
def test_sixteen_bits_are_fewer_cycles(name: str) -> None:
    """XLA's estimate for a TPU; on these two matrices a little more of it is overhead than on GPT-2
    small, which the benchmark takes.
    """
    found, plain = compiled("tpu", name)[0], compiled("tpu", "float32")[0]
    print(f"\n{name}: {found.cycles / plain.cycles:.3f} of the cycles in float32")
    assert found.cycles <= (CYCLES + 0.03) * plain.cycles
    assert found.temp_bytes <= 0.02 * BYTES
