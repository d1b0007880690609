"""Trace and lower a jitted AdamW step, cold: what a user waits for before XLA begins to compile.

Before every run of either side all of jax's caches, and every `functools` cache in gradtx's and
Optax's modules, are emptied, and the optimizer is made anew. A check at the start proves that a
rule of gradtx is then traced again."""

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
    """Raise unless a kernel of gradtx is traced once, not again, and again when caches are
    forgotten.
    """
    traces: list[None] = []
    tx = gradtx.leafwise(
        None, counted, options={"count": lambda: traces.append(None)}, name="counted"
    )
    grads, found = {"a": jnp.zeros(3)}, []
    for forgetting in (True, False, True):
        if forgetting:
            forget()
        jax.jit(tx.update).trace(grads, tx.init(grads)).lower()
        found.append(len(traces))
    if found != [1, 1, 2]:
        raise RuntimeError(
            f"a rule was traced {found} times in all after three steps of which the first and the last were to be cold"
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
