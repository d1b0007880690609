"""A jitted step with donated parameters and state: AdamW, with and without `clip_by_global_norm`.

One leaf of 64 Mi float32, GPT-2 small, and 500 leaves of 16x16.

Both sides carry their own buffers from step to step. Torch's fused AdamW on the one leaf runs for
orientation, in its own process: `--torch PYTHON` names an interpreter that has torch.
"""

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jax

from benchmarks.harness import Row, arguments, balanced, compared, finish, made, seconds
from benchmarks.steps import LIBRARIES, OPTIMIZERS, jitted_step
from benchmarks.trees import TREES, Tree, filled, one_large

BAR = 1.03
STEPS = {"one_leaf": 1, "gpt2_small": 1, "500_leaves": 20}
"""Steps per run, by tree: more where one takes about a millisecond."""


class Side:
    """A training in the same buffers from step to step."""

    def __init__(self, library_name: str, tree: Tree, optimizer: str, steps: int):
        library = LIBRARIES[library_name]
        tx = OPTIMIZERS[optimizer](library)
        self.step, self.steps = jitted_step(library, tx), steps
        self.params, self.grads = filled(tree, 1.0), filled(tree, 0.5)
        self.state = tx.init(self.params)

    def run(self) -> None:
        for _ in range(self.steps):
            self.params, self.state = self.step(self.params, self.state, self.grads)
        jax.block_until_ready((self.params, self.state))

    def timed(self) -> float:
        return seconds(self.run) / self.steps


@contextmanager
def torch_side(python: str, tree: Tree | None = None) -> Iterator[dict[str, Callable[[], float]]]:
    """Torch as a third side; a line instead of it where the interpreter has no torch."""
    command = [
        python,
        str(Path(__file__).with_name("torch_worker.py")),
        *(str(leaf.size) for leaf in jax.tree.leaves(tree or one_large())),
    ]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdin is not None and worker.stdout is not None
        reply = worker.stdout.readline().strip()
        if reply in ("absent", ""):
            print("torch cannot be imported: its fused AdamW is left out")
            yield {}
        else:
            yield {f"torch {reply}": lambda: ask(worker)}
        worker.stdin.close()


def ask(worker: "subprocess.Popen[str]") -> float:
    """One step of torch's, its seconds."""
    assert worker.stdin is not None and worker.stdout is not None
    print("step", file=worker.stdin, flush=True)
    return float(worker.stdout.readline())


def rows(
    tree_name: str, optimizer: str, runs: int, others: dict[str, Callable[[], float]]
) -> Iterator[Row]:
    tree = TREES[tree_name]()
    sides = {
        library: lambda library=library: Side(library, tree, optimizer, STEPS[tree_name]).timed
        for library in LIBRARIES
    }
    times = balanced({**sides, **made(others)}, runs)
    yield compared(f"{tree_name}: {optimizer}", {side: times[side] for side in LIBRARIES}, bar=BAR)
    for other in others:
        yield compared(
            f"{tree_name}: {optimizer}, against torch",
            {side: times[side] for side in ("gradtx", other)},
            peer=other,
        )


def main() -> int:
    options = arguments(__doc__, torch=sys.executable)
    with torch_side(options.torch) as others:
        results = list(rows("one_leaf", "adamw", options.runs, others))
    for tree_name, optimizer in itertools.product(STEPS, OPTIMIZERS):
        if (tree_name, optimizer) != ("one_leaf", "adamw"):
            results += rows(tree_name, optimizer, options.runs, {})
    return finish("step", results, options)


if __name__ == "__main__":
    sys.exit(main())
