"""Every method of the table on TPU and GPU: a donated step copies nothing and reuses every
buffer.
"""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from gradtx.engine.leaf_rule import MatrixRule
from gradtx.testing.laws import train_step
from tests.accelerators.programs import compiled_for
from tests.methods import FIRST, METHODS
from tests.support.pairs import PAIRS

SHAPES = {
    name: jax.ShapeDtypeStruct(shape, jnp.float32)
    for name, shape in {"a": (256, 128), "b": (256, 128), "c": (128,)}.items()
}
LARGEST = 256 * 128 * 4


SEVERAL_KERNELS = {
    *(
        "adafactor",
        "came",
        "sm3",
        "scale_by_factored_rms",
        "scale_by_came",
        "scale_by_sm3",
        "adam_mini",
        "lamb",
    ),
    *(
        "adan",
        "scale_by_adan",
        "optimistic_adam",
        "optimistic_adam_v2",
        "optimistic_gradient_descent",
        "scale_by_optimistic_gradient",
    ),
    *("dadapt_adamw", "momo", "momo_adam", "mechanize"),
    *("galore", "scale_by_galore"),
    *("lbfgs", "scale_by_lbfgs", "scale_by_backtracking_linesearch", "scale_by_zoom_linesearch"),
}
"""Sums within or over arrays, kept gradients, and loops take more than one kernel per array on a
GPU: XLA then copies what an earlier one overwrites and a later one reads, or keeps a direction
between them. Buffers are reused all the same."""


def works_on_matrices(tx: Any) -> bool:
    """Products, decompositions and their workspaces are kernels of their own."""
    return any(isinstance(bound.rule, MatrixRule) for bound in tx.rules)


def step_with_fresh_gradients(tx: Any, params: Any, state: Any, grads: Any) -> Any:
    """Gradients that the step computes, as a training step does: one that is kept is not a copy of
    an argument.
    """
    return train_step(tx, params, state, jax.tree.map(lambda grad: 2 * grad, grads))


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("name", [name for name in FIRST if PAIRS[name] == name])
def test_donated_step(name: str, platform: str):
    tx = METHODS[name].tx
    state = jax.eval_shape(tx.init, SHAPES)
    step = jax.jit(
        functools.partial(step_with_fresh_gradients, tx), donate_argnums=(0, 1), keep_unused=True
    )
    program = compiled_for(platform, step, SHAPES, state, SHAPES)
    assert program.counts.aliased == len(jax.tree.leaves((SHAPES, state)))
    several = name.split("/", maxsplit=1)[0] in SEVERAL_KERNELS or works_on_matrices(tx)
    if (
        platform == "cuda" and not METHODS[name].copies and not several
    ):  # on a TPU small arrays are copied into fast memory on purpose
        assert not array_copies(program.text)
        assert program.counts.temp_bytes < LARGEST


def array_copies(text: str) -> list[str]:
    """The copies of anything larger than a scalar."""
    return [line for line in text.splitlines() if re.search(r"= \w+\[\d[^ ]* copy\(", line)]


def test_copies_would_be_seen():
    assert array_copies("  %copy.4 = f32[64,128]{1,0} copy(%x)") and not array_copies(
        "  %copy.4 = s32[] copy(%x)"
    )
