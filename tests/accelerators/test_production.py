"""accumulate and guard as the TPU and GPU compilers see them, on GPT-2 small: donated steps need
nothing beside their arguments.
"""

import functools
import math
import re
from typing import Any

import jax
import pytest

import gradtx
from benchmarks.accelerators import BARS, megacycles
from benchmarks.steps import OPTIMIZERS, jitted_step
from benchmarks.trees import gpt2_small, parameter_count
from tests.accelerators.programs import Program, compiled_for, measured

TREE, SHORT = gpt2_small(), gpt2_small(blocks=2)
"""The whole where XLA's cycles are compared with what was published; else two of twelve blocks,
which are alike.
"""
TREES = {("tpu", "guard"): TREE, ("tpu", "guard, spikes"): TREE}
SMALLEST = 768 * 768
"""The smallest matrix."""
ADAMW = OPTIMIZERS["adamw"](gradtx)
STEPS = {
    "accumulate": gradtx.accumulate(ADAMW, 4),
    "guard": gradtx.guard(ADAMW),
    "guard, spikes": gradtx.guard(ADAMW, max_norm=10.0, zscore=4.0),
}
COPY = re.compile(r" = \(?f32\[([\d,]+)\]\S* .*?copy(?:-start)?\(")


@functools.cache
def compiled(platform: str, name: str) -> Program:
    tx, tree = STEPS[name], TREES.get((platform, name), SHORT)
    step = jitted_step(gradtx, tx)
    return compiled_for(platform, step, tree, jax.eval_shape(tx.init, tree), tree)


def large_copies(text: str) -> list[str]:
    """The copies of matrices; those into and out of the fast memory of a TPU, S(1), are made on
    purpose.
    """
    found = ((line, COPY.search(line)) for line in text.splitlines() if "S(1)" not in line)
    return [
        line
        for line, shape in found
        if shape and math.prod(map(int, shape[1].split(","))) >= SMALLEST
    ]


@pytest.mark.parametrize(
    ("platform", "name"),
    [
        ("tpu", "accumulate"),
        ("tpu", "guard"),
        ("tpu", "guard, spikes"),
        ("cuda", "accumulate"),
        ("cuda", "guard"),
    ],
)
def test_donated_step(platform: str, name: str):
    """With a limit that hangs on the past, XLA:TPU reads ahead as it does behind a clip, and for
    that keeps as much.
    """
    found, text = compiled(platform, name)
    tree = TREES.get((platform, name), SHORT)
    size = 4 * parameter_count(tree)
    print(
        f"\n{platform}, {name}: {found}, temporaries {found.temp_bytes / size:.2e} of "
        "the parameters"
    )
    assert not large_copies(text)
    assert found.temp_bytes <= (
        0.01 * size
        if name != "guard, spikes"
        else measured("tpu", "gpt2_small", "clip + adamw", "gradtx").temp_bytes
    )
    tx: Any = STEPS[name]
    arrays = [leaf for leaf in jax.tree.leaves((tree, jax.eval_shape(tx.init, tree))) if leaf.ndim]
    assert found.aliased >= len(arrays), "every array is updated in place"


@pytest.mark.parametrize("name", ["guard", "guard, spikes"])
def test_a_guard_costs_a_tpu_no_more_than_a_clip(name: str):
    """Both take one pass over the gradients before the step."""
    bar = BARS["tpu", "gpt2_small", "clip + adamw"].megacycles
    assert bar is not None and megacycles(compiled("tpu", name)[0]) <= bar


def test_copies_would_be_seen():
    assert large_copies("  %copy.4 = f32[768,768]{1,0} copy(%x)") and large_copies(
        "  %c = (f32[768,768]{1,0}, f32[768,768]{1,0}, u32[]) copy-start(%x)"
    )
    assert not large_copies("  %copy.4 = f32[768]{0} copy(%x)") and not large_copies(
        "  %copy.4 = f32[768,768]{1,0:T(8,128)S(1)} copy(%x)"
    )
