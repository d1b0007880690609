"""State bytes per parameter, and temporary and output bytes of a compiled, donated CPU step.

The counts are exact.
"""

import sys
from collections.abc import Iterator

import jax

from benchmarks.harness import Row, arguments, finish
from benchmarks.steps import LIBRARIES, OPTIMIZERS, jitted_step
from benchmarks.trees import TREES, Tree, parameter_count


def state_bytes(library: str, optimizer: str, tree: Tree) -> int:
    state = jax.eval_shape(OPTIMIZERS[optimizer](LIBRARIES[library]).init, tree)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def step_bytes(library: str, optimizer: str, tree: Tree) -> tuple[int, int]:
    """Temporary bytes, and output bytes that are not written in place of an argument."""
    tx = OPTIMIZERS[optimizer](LIBRARIES[library])
    compiled = (
        jitted_step(LIBRARIES[library], tx)
        .trace(tree, jax.eval_shape(tx.init, tree), tree)
        .lower()
        .compile()
    )
    memory = compiled.memory_analysis()
    return memory.temp_size_in_bytes, memory.output_size_in_bytes - memory.alias_size_in_bytes


def rows() -> Iterator[Row]:
    for tree_name, make in TREES.items():
        tree = make()
        for optimizer in OPTIMIZERS:
            name = f"{tree_name}, {optimizer}"
            per_parameter = {
                library: state_bytes(library, optimizer, tree) / parameter_count(tree)
                for library in LIBRARIES
            }
            steps = {library: step_bytes(library, optimizer, tree) for library in LIBRARIES}
            yield Row(
                f"{name}: state per parameter", per_parameter, bar=per_parameter["optax"], unit="B"
            )
            yield Row(
                f"{name}: temporary",
                {library: step[0] for library, step in steps.items()},
                unit="B",
            )
            yield Row(
                f"{name}: new output",
                {library: step[1] for library, step in steps.items()},
                unit="B",
            )


def main() -> int:
    return finish("memory", list(rows()), arguments(__doc__), exact=True)


if __name__ == "__main__":
    sys.exit(main())
