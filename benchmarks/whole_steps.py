"""Whole training steps of a small transformer on the CPU, gradients included.

`make_step(microbatches=4)` against the sum of its parts, four gradients and one update;
`with_metrics` around clip + AdamW against the same without it. The last rows, for orientation:
`with_metrics` around an update alone, on GPT-2 small."""

import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax

import gradtx
from benchmarks import network
from benchmarks.harness import Row, arguments, balanced, compared, finish, seconds
from benchmarks.production import Training
from benchmarks.steps import OPTIMIZERS, jitted_step
from benchmarks.trees import TREES

PARTS, BATCH = 4, 16


class Whole:
    """A training from step to step, by `make_step`."""

    def __init__(self, tx: Any, microbatches: int = 1):
        self.step = gradtx.make_step(network.loss, tx, microbatches=microbatches)
        self.params, self.tokens = network.parameters(), network.tokens(BATCH)
        self.state = tx.init(self.params)

    def run(self) -> None:
        self.params, self.state, _ = self.step(self.params, self.state, self.tokens)
        jax.block_until_ready(self.params)


class Parts:
    """The same without accumulation: a gradient for each part of the batch, and one update."""

    def __init__(self, tx: Any):
        self.gradient, self.update = (
            jax.jit(jax.value_and_grad(network.loss)),
            jitted_step(gradtx, tx),
        )
        self.params, self.parts = (
            network.parameters(),
            [network.tokens(BATCH // PARTS, seed) for seed in range(PARTS)],
        )
        self.state = tx.init(self.params)

    def run(self) -> None:
        grads = None
        for part in self.parts:
            _, grads = jax.block_until_ready(self.gradient(self.params, part))
        self.params, self.state = self.update(self.params, self.state, grads)
        jax.block_until_ready(self.params)


def timed(make: Callable[..., Any], *args: Any) -> Callable[[], Callable[[], float]]:
    """How to make a side: `make(*args).run` is timed."""
    return lambda: functools.partial(seconds, make(*args).run)


def update_alone(tx: Any, tree: Any) -> Training:
    return Training(gradtx, tx, tree).start()


def rows(runs: int) -> Iterator[Row]:
    plain = OPTIMIZERS["clip + adamw"](gradtx)
    watched = gradtx.with_metrics(plain)
    sides = {"gradtx": timed(Whole, plain, PARTS), "parts": timed(Parts, plain)}
    yield compared(
        f"make_step(microbatches={PARTS}) of {BATCH} x {network.CONTEXT} tokens",
        balanced(sides, runs),
        "parts",
        1.03,
    )
    sides = {"gradtx": timed(Whole, watched), "unwatched": timed(Whole, plain)}
    yield compared(
        f"with_metrics(clip + adamw), {BATCH} x {network.CONTEXT} tokens",
        balanced(sides, runs),
        "unwatched",
        1.02,
    )
    tree = TREES["gpt2_small"]()
    for what, tx in (
        ("", watched),
        (", no update norm", gradtx.with_metrics(plain, update_norm=False)),
    ):
        alone = {
            name: timed(update_alone, one, tree)
            for name, one in (("gradtx", tx), ("unwatched", plain))
        }
        yield compared(
            f"with_metrics(clip + adamw){what}, the update alone",
            balanced(alone, runs),
            "unwatched",
            None,
        )


def main() -> int:
    options = arguments(__doc__)
    return finish("whole_steps", list(rows(options.runs)), options)


if __name__ == "__main__":
    sys.exit(main())
