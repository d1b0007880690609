"""An eager AdamW step, update and apply_updates without jit, on 500 leaves of 16x16.

Its time is that of the dispatch. The first call, which compiles, is a row of its own, with empty
caches before each."""

import sys

import jax

from benchmarks.harness import Row, arguments, compared, finish, interleave, seconds
from benchmarks.steps import LIBRARIES, adamw, eager_step
from benchmarks.trace import forget
from benchmarks.trees import filled, many_small

BAR = 0.25


class Side:
    """A training that continues from step to step."""

    def __init__(self, library_name: str):
        library = LIBRARIES[library_name]
        tx = adamw(library)
        self.step = eager_step(library, tx)
        self.params, self.grads = filled(many_small(), 1.0), filled(many_small(), 0.5)
        self.state = jax.block_until_ready(tx.init(self.params))

    def run(self) -> None:
        self.params, self.state = jax.block_until_ready(
            self.step(self.params, self.state, self.grads)
        )

    def timed(self) -> float:
        return seconds(self.run)


def first_call(library_name: str) -> float:
    """The seconds of a first step, with empty caches in place of a new process."""
    side = Side(library_name)
    forget()
    return side.timed()


def rows(runs: int) -> list[Row]:
    sides = {library: Side(library).timed for library in LIBRARIES}
    firsts = {library: lambda library=library: first_call(library) for library in LIBRARIES}
    return [
        compared("500_leaves: eager step", interleave(sides, runs, warmup=3), bar=BAR),
        compared("500_leaves: first call", interleave(firsts, min(runs, 5), warmup=1)),
    ]


def main() -> int:
    options = arguments(__doc__)
    return finish("eager", rows(options.runs), options)


if __name__ == "__main__":
    sys.exit(main())
