"""The state before the first step of AdamW on GPT-2 small's 148 leaves: traced, eager, and first.

`tx.init` is traced and lowered cold, as `benchmarks.trace` does with a step. The eager call is of
leaves of the same number whose sides are 2, so that its time is that of the dispatch; the first
eager call compiles."""

import functools
import sys
import time

import jax
import jax.numpy as jnp

from benchmarks.harness import Row, arguments, compared, finish, interleave, seconds
from benchmarks.steps import LIBRARIES, adamw
from benchmarks.trace import check_cold, forget
from benchmarks.trees import Tree, gpt2_small

BAR = 0.5


def trace_and_lower(library_name: str, tree: Tree) -> float:
    """The seconds from `jax.jit(tx.init)`, never called, to its StableHLO."""
    forget()
    tx = adamw(LIBRARIES[library_name])
    start = time.perf_counter()
    jax.jit(tx.init).trace(tree).lower()
    return time.perf_counter() - start


def eager(library_name: str, params: Tree) -> float:
    """The seconds of an eager call whose programs are compiled."""
    tx = adamw(LIBRARIES[library_name])
    return seconds(lambda: jax.block_until_ready(tx.init(params)))


def first_call(library_name: str, params: Tree) -> float:
    """The seconds of an eager call with empty caches."""
    forget()
    return eager(library_name, params)


def small(tree: Tree) -> Tree:
    """Arrays with as many axes each, of length 2."""
    return jax.tree.map(lambda leaf: jnp.zeros((2,) * len(leaf.shape), leaf.dtype), tree)


def rows(runs: int) -> list[Row]:
    tree = gpt2_small()
    params = small(tree)
    traced = {name: functools.partial(trace_and_lower, name, tree) for name in LIBRARIES}
    called = {name: functools.partial(eager, name, params) for name in LIBRARIES}
    firsts = {name: functools.partial(first_call, name, params) for name in LIBRARIES}
    return [
        compared("gpt2_small: init, trace + lower", interleave(traced, runs), bar=BAR),
        compared("148 leaves: eager init", interleave(called, runs, warmup=3), bar=BAR),
        compared("148 leaves: first init", interleave(firsts, min(runs, 5), warmup=1)),
    ]


def main() -> int:
    options = arguments(__doc__)
    check_cold()
    return finish("init", rows(options.runs), options)


if __name__ == "__main__":
    sys.exit(main())
