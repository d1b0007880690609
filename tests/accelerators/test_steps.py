"""The training step as the TPU and GPU compilers see it: one kernel per leaf, no copies, everything
updated in place.
"""

from typing import Any

import jax
import pytest

import gradtx
from benchmarks.accelerators import BARS, Bar, megacycles
from benchmarks.compilers import Counts
from benchmarks.steps import jitted_step, update_and_apply
from benchmarks.trees import TREES, parameter_count
from tests.accelerators.programs import compiled_for, measured

CASES = [key for key in BARS if key[1:] != ("500_leaves", "clip + adamw")]
"""The clipped step of 500 leaves compiles for 20 seconds, and is left to the benchmark; so is
Optax's 500-leaf step for a TPU.
"""

BYTES = 4


def hold(counts: Counts, bar: Bar) -> None:
    assert counts.kernels <= bar.kernels
    assert bar.megacycles is None or megacycles(counts) <= bar.megacycles


def hold_in_place(counts: Counts, platform: str, tree: Any) -> None:
    """Parameters, both moments and the count are updated in place; a TPU pads arrays, a GPU does
    not.
    """
    owned = 3 * parameter_count(tree) * BYTES + BYTES
    assert counts.aliased == 3 * len(jax.tree.leaves(tree)) + 1
    assert counts.alias_bytes == owned if platform == "cuda" else counts.alias_bytes >= owned


def test_trees_have_the_sizes_they_are_named_for():
    gpt2, many = TREES["gpt2_small"](), TREES["500_leaves"]()
    assert (len(jax.tree.leaves(gpt2)), parameter_count(gpt2)) == (148, 124_475_904)
    assert (len(jax.tree.leaves(many)), parameter_count(many)) == (500, 500 * 16 * 16)


@pytest.mark.parametrize(("platform", "tree", "optimizer"), CASES)
def test_step_is_within_its_bar(platform: str, tree: str, optimizer: str):
    found = measured(platform, tree, optimizer, "gradtx")
    print(f"\ngradtx {found}")
    hold(found, BARS[platform, tree, optimizer])
    hold_in_place(found, platform, TREES[tree]())
    assert platform == "tpu" or found.copies == 0


@pytest.mark.parametrize(
    ("platform", "tree", "optimizer"),
    [key for key in CASES if key != ("tpu", "500_leaves", "adamw")],
)
def test_step_costs_no_more_than_that_of_optax(platform: str, tree: str, optimizer: str):
    mine, theirs = (measured(platform, tree, optimizer, library) for library in ("gradtx", "optax"))
    print(f"\ngradtx {mine}\noptax  {theirs}")
    assert mine.kernels <= theirs.kernels and mine.copies <= theirs.copies
    assert megacycles(mine) <= megacycles(theirs)
    assert mine.temp_bytes <= max(theirs.temp_bytes, 2**20)


def lowered(platform: str, tx: gradtx.GradientTransformation) -> str:
    tree = TREES["gpt2_small"]()
    return (
        jitted_step(gradtx, tx)
        .trace(tree, jax.eval_shape(tx.init, tree), tree)
        .lower(lowering_platforms=(platform,))
        .as_text()
    )


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_replaced_definition_makes_the_same_step(platform: str):
    """`replace` changes a number, not the program."""
    assert lowered(platform, gradtx.replace(gradtx.adamw(1.0), learning_rate=1e-3)) == lowered(
        platform, gradtx.adamw(1e-3)
    )


def step_at(params: Any, state: Any, grads: Any, learning_rate: Any) -> Any:
    return update_and_apply(
        gradtx, gradtx.replace(gradtx.adamw(1.0), learning_rate=learning_rate), params, state, grads
    )


def step_of(params: Any, state: Any, grads: Any, tx: gradtx.GradientTransformation) -> Any:
    return update_and_apply(gradtx, tx, params, state, grads)


@pytest.mark.parametrize(
    ("platform", "step", "argument", "scalar_kernels"),
    [
        ("tpu", step_at, 1e-3, 0),
        ("cuda", step_at, 1e-3, 0),
        ("cuda", step_of, gradtx.adamw(1e-3), 2),
    ],
    ids=["tpu, learning rate", "cuda, learning rate", "cuda, definition"],
)
def test_one_program_for_every_learning_rate(
    platform: str, step: Any, argument: Any, scalar_kernels: int
):
    """A learning rate as an argument of the step costs nothing, a whole definition two scalar
    kernels, 1 − β1 and 1 − β2.

    On a TPU the whole definition makes as many kernels, and XLA tiles one of 14 operands otherwise
    than one of 11: it estimates 9.09 million cycles, not 8.21, so only the learning rate is held to
    the bar there."""
    tree = TREES["gpt2_small"]()
    state = jax.eval_shape(gradtx.adamw(1.0).init, tree)
    donated = jax.jit(step, donate_argnums=(0, 1))
    found = compiled_for(platform, donated, tree, state, tree, argument).counts
    print(f"\n{platform}, {step.__name__}: {found}")
    bar = BARS[platform, "gpt2_small", "adamw"]
    hold(found, bar._replace(kernels=bar.kernels + scalar_kernels))
    hold_in_place(found, platform, tree)
