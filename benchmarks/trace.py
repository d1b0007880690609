"""Trace and lower a jitted AdamW step, cold: the wait of a user before XLA begins to compile.

Before every run of either side the benchmark empties all of jax's caches, and every `functools`
cache in gradtx's and Optax's modules, and builds a new optimizer. A check at the start proves that
the second cold run traces a rule of gradtx again."""

import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import gradtx
from benchmarks.harness import Row, arguments, compared, finish, interleave
from benchmarks.steps import LIBRARIES, adamw, jitted_step
from benchmarks.trees import TREES, Tree

BARS = {"500_leaves": 0.40, "gpt2_small": 0.60}


def forget() -> None:
    """Empty every cache: jax's, and those in the modules of the libraries."""
    jax.clear_caches()
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in LIBRARIES:
            for cached in vars(module).values():
                if callable(empty := getattr(cached, "cache_clear", None)):
                    empty()


def trace_and_lower(library_name: str, tree: Tree) -> float:
    """The seconds from a jitted function, never called, to its StableHLO."""
    library = LIBRARIES[library_name]
    state = jax.eval_shape(adamw(library).init, tree)
    forget()
    step = jitted_step(library, adamw(library))
    start = time.perf_counter()
    step.trace(tree, state, tree).lower()
    return time.perf_counter() - start


def counted(
    grad: jax.Array, slots: None, param: None, step: jax.Array, *, count: Callable[[], None]
) -> Any:
    count()
    return grad, slots


def check_cold() -> None:
    """Raise an error unless a kernel is traced once, and again only with empty caches."""
    traces: list[None] = []
    tx = gradtx.leafwise(None, counted, count=lambda: traces.append(None))
    # Two leaves share a kernel; that of one leaf alone is traced inline, every time.
    grads, totals = {"a": jnp.zeros(3), "b": jnp.zeros(3)}, []
    for forgetting in (True, False, True):
        if forgetting:
            forget()
        jax.jit(tx.update).trace(grads, tx.init(grads)).lower()
        totals.append(len(traces))
    if totals != [1, 1, 2]:
        raise RuntimeError(
            f"a rule was traced {totals} times in all after three steps, "
            "of which the first and the last should be cold"
        )


def row(tree_name: str, runs: int) -> Row:
    tree = TREES[tree_name]()
    sides = {
        library: lambda library=library: trace_and_lower(library, tree) for library in LIBRARIES
    }
    return compared(f"{tree_name}: trace + lower", interleave(sides, runs), bar=BARS[tree_name])


def main() -> int:
    options = arguments(__doc__)
    check_cold()
    return finish("trace", [row(tree_name, options.runs) for tree_name in BARS], options)


if __name__ == "__main__":
    sys.exit(main())
