"""Training steps with accumulation and with a guard, jitted and donated, on GPT-2 small.

An accumulation step without an update against Optax's `MultiSteps`, AdamW inside: time, and
temporary bytes. `guard` around AdamW, and around clip + AdamW, without bad steps, against the
same without it."""

import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import optax

import gradtx
from benchmarks.harness import Row, arguments, balanced, compared, finish, seconds
from benchmarks.steps import OPTIMIZERS, jitted_step
from benchmarks.trees import TREES, filled

NEVER = 2**30
"""Micro-steps per update, more than a run has."""


class Case(NamedTuple):
    """Two steps to compare: what each side is called, and a function that makes it and its
    definition, for the tree of shapes.
    """

    name: str
    sides: dict[str, Callable[[Any], "Training"]]
    time: float | None = None
    """The bar of the ratio of times."""
    temporary: float | None = None
    """The bar of the ratio of temporary bytes."""


class Training:
    """A training in the same buffers from step to step."""

    def __init__(self, library: Any, tx: Any, tree: Any):
        self.tree, self.tx, self.step = tree, tx, jitted_step(library, tx)

    def start(self) -> "Training":
        self.params, self.grads, self.state = (
            filled(self.tree, 1.0),
            filled(self.tree, 1e-4),
            self.tx.init(filled(self.tree, 1.0)),
        )
        return self

    def run(self) -> None:
        self.params, self.state = self.step(self.params, self.state, self.grads)
        jax.block_until_ready((self.params, self.state))

    def timed(self) -> float:
        return seconds(self.run)

    def temporary(self) -> int:
        lowered = self.step.trace(
            self.tree, jax.eval_shape(self.tx.init, self.tree), self.tree
        ).lower()
        return lowered.compile().memory_analysis().temp_size_in_bytes


def side(library: Any, tx: Any) -> Callable[[Any], Training]:
    return functools.partial(Training, library, tx)


def guarded(name: str, bar: float) -> Case:
    tx = OPTIMIZERS[name](gradtx)
    return Case(
        f"guard({name}), no bad step",
        {"gradtx": side(gradtx, gradtx.guard(tx)), "unguarded": side(gradtx, tx)},
        bar,
    )


CASES = [
    Case(
        "a micro-step that is not due",
        {
            "gradtx": side(gradtx, gradtx.accumulate(OPTIMIZERS["adamw"](gradtx), NEVER)),
            "optax": side(optax, optax.MultiSteps(OPTIMIZERS["adamw"](optax), NEVER)),
        },
        time=0.36,
        temporary=0.34,
    ),
    guarded("adamw", 1.15),
    guarded("clip + adamw", 1.02),
]
"""Another row is another case: `gradtx` against one other side."""


def _start(make: Callable[[Any], Training], tree: Any) -> Callable[[], float]:
    return make(tree).start().timed


def rows(case: Case, runs: int) -> Iterator[Row]:
    tree = TREES["gpt2_small"]()
    sides = {name: make(tree) for name, make in case.sides.items()}
    (peer,) = sides.keys() - {"gradtx"}
    if case.temporary is not None:
        temporary = {name: one.temporary() for name, one in sides.items()}
        yield Row(
            f"{case.name}: temporary",
            temporary,
            temporary["gradtx"] / temporary[peer],
            case.temporary,
            unit="B",
        )
    yield compared(
        case.name,
        balanced(
            {name: functools.partial(_start, make, tree) for name, make in case.sides.items()}, runs
        ),
        peer,
        case.time,
    )


def main() -> int:
    options = arguments(__doc__)
    results = [row for case in CASES for row in rows(case, options.runs)]
    return finish("production", results, options)


if __name__ == "__main__":
    sys.exit(main())
