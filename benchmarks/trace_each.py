"""Trace and lower the step of each optimizer that Optax has too, cold, on GPT-2 small's 148 leaves.

As `benchmarks.trace` does for AdamW, all caches are emptied before every run. The last row is the
median of the ratios. A record has five runs a side, because the median over many optimizers is the
result. `--only TEXT` selects the names that contain TEXT, and writes no record."""

import functools
import statistics
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

import gradtx
from benchmarks.harness import ROOT, Row, arguments, compared, finish, interleave
from benchmarks.steps import LIBRARIES, update_and_apply
from benchmarks.trace import check_cold, forget
from benchmarks.trees import Tree, gpt2_small

BAR, MEDIAN_BAR, ENOUGH = 1.0, 0.6, 5
ARGUMENTS: dict[str, dict[str, Any]] = {"noisy_sgd": {"learning_rate": 1e-3, "key": 0}}
"""The calls that are not `name(1e-3)`."""


def peer(name: str) -> Any:
    """Optax's maker of that name, wherever it keeps it."""
    return getattr(optax.contrib, name, None) or getattr(optax, name, None)


def names() -> list[str]:
    """The optimizers of gradtx, one file each, that Optax has; but those that take gradients per
    example.
    """
    stems = sorted(path.stem for path in Path(ROOT, "gradtx", "optimizers").glob("[a-z]*.py"))
    return [name for name in stems if peer(name) is not None and name != "dpsgd"]


def make(library_name: str, name: str) -> Any:
    maker = getattr(gradtx, name) if library_name == "gradtx" else peer(name)
    return maker(**ARGUMENTS[name]) if name in ARGUMENTS else maker(1e-3)


def quadratic(params: Any) -> jax.Array:
    return sum((jnp.sum(leaf**2) for leaf in jax.tree.leaves(params)), start=jnp.zeros(()))


def step_with_extras(
    library: ModuleType, tx: Any, needs: frozenset[str], params: Any, state: Any, grads: Any
) -> tuple[Any, Any]:
    """The step, with the loss for those that need it."""
    known = {"value": jnp.zeros(()), "obj_fn": quadratic, "value_fn": quadratic, "grad": grads}
    update = functools.partial(tx.update, **{name: known[name] for name in needs - {"params"}})
    return update_and_apply(library, type(optax.identity())(tx.init, update), params, state, grads)


def trace_and_lower(library_name: str, name: str, tree: Tree) -> float:
    """The seconds from a jitted function, never called, to its StableHLO."""
    state = jax.eval_shape(make(library_name, name).init, tree)
    needs = make("gradtx", name).needs
    forget()
    step = functools.partial(
        step_with_extras, LIBRARIES[library_name], make(library_name, name), needs
    )
    jitted = jax.jit(step, donate_argnums=(0, 1))
    start = time.perf_counter()
    jitted.trace(tree, state, tree).lower()
    return time.perf_counter() - start


def row(name: str, tree: Tree, runs: int) -> Row:
    sides = {
        library: functools.partial(trace_and_lower, library, name, tree) for library in LIBRARIES
    }
    return compared(name, interleave(sides, runs, warmup=1), bar=BAR)


def main() -> int:
    options = arguments(__doc__, only="")
    options.dry = options.dry or bool(options.only)
    check_cold()
    tree, runs = gpt2_small(), min(options.runs, ENOUGH)
    rows = [row(name, tree, runs) for name in names() if options.only in name]
    ratios = [row.ratio["median"] for row in rows]
    rows.append(
        Row(f"median of {len(ratios)} optimizers", {}, statistics.median(ratios), MEDIAN_BAR)
    )
    return finish("trace_each", rows, options, exact=options.runs >= ENOUGH)


if __name__ == "__main__":
    sys.exit(main())
