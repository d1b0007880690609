"""The time of `import gradtx` after `import jax, jax.numpy`, and of Optax's import.

`python -X importtime` measures it in fresh processes. The warmup writes the bytecode of both. A
name of gradtx is imported when it is first used; the second row adds the names of a training
script. Where the bar is missed, the benchmark lists the slowest modules.
"""

import functools
import os
import re
import subprocess
import sys
from collections.abc import Callable

from benchmarks.harness import ROOT, Row, arguments, compared, finish, interleave
from benchmarks.steps import LIBRARIES

BAR_SECONDS = 0.03
SCRIPT = """
import time
import jax, jax.numpy
start = time.perf_counter()
import {library} as lib
lib.chain, lib.clip_by_global_norm, lib.adamw, lib.warmup_cosine_decay_schedule, lib.apply_updates
print(time.perf_counter() - start)
"""
"""An import and the names of a training script, timed."""
LINE = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \| (\s*)(\S+)")


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a process that writes bytecode."""
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    }
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )


def imported(library: str) -> list[tuple[str, int, int]]:
    """What importing a library imports: module, microseconds by itself, microseconds in all; the
    library is last.
    """
    code = f"import jax, jax.numpy\nimport {library}"
    text = run([sys.executable, "-X", "importtime", "-c", code]).stderr
    modules = [
        (name, int(own), int(total), len(indent)) for own, total, indent, name in LINE.findall(text)
    ]
    end = next(
        index for index, (name, *_, depth) in enumerate(modules) if name == library and depth == 0
    )
    start = max(index for index, (*_, depth) in enumerate(modules[:end]) if depth == 0) + 1
    return [(name, own, total) for name, own, total, _ in modules[start : end + 1]]


def import_seconds(library: str) -> float:
    return imported(library)[-1][2] / 1e6


def script_seconds(library: str) -> float:
    return float(run([sys.executable, "-c", SCRIPT.format(library=library)]).stdout)


def measured(name: str, seconds: Callable[[str], float], runs: int) -> Row:
    """A row of both libraries, one process of each in turn."""
    work = {library: functools.partial(seconds, library) for library in LIBRARIES}
    return compared(name, interleave(work, runs, warmup=1))


def main() -> int:
    options = arguments(__doc__)
    row = measured("import after jax", import_seconds, options.runs)
    script = measured("import and five names of a script", script_seconds, options.runs)
    held = row._replace(name="import after jax, bar in seconds", ratio=None, bar=BAR_SECONDS)
    if held.verdict == "MISSED":
        for name, own, _ in sorted(imported("gradtx"), key=lambda line: -line[1])[:10]:
            print(f"{own / 1e3:8.2f} ms  {name}")
    return finish("import_time", [row, held, script], options)


if __name__ == "__main__":
    sys.exit(main())
