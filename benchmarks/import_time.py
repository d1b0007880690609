"""The time of `import gradtx` after `import jax, jax.numpy`, and of Optax's import.

`python -X importtime` measures it in fresh processes. The warmup writes the bytecode of both. Where
the bar is missed, the benchmark lists the slowest modules.
"""

import functools
import os
import re
import subprocess
import sys

from benchmarks.harness import ROOT, arguments, compared, finish, interleave
from benchmarks.steps import LIBRARIES

BAR_SECONDS = 0.05
LINE = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \| (\s*)(\S+)")


def imported(library: str) -> list[tuple[str, int, int]]:
    """What importing a library imports: module, microseconds by itself, microseconds in all; the
    library is last.
    """
    command = [sys.executable, "-X", "importtime", "-c", f"import jax, jax.numpy\nimport {library}"]
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    }
    text = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stderr
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


def main() -> int:
    options = arguments(__doc__)
    times = interleave(
        {library: functools.partial(import_seconds, library) for library in LIBRARIES},
        options.runs,
        warmup=1,
    )
    row = compared("import after jax", times)
    held = row._replace(name="import after jax, bar in seconds", ratio=None, bar=BAR_SECONDS)
    if held.verdict == "MISSED":
        for name, own, _ in sorted(imported("gradtx"), key=lambda line: -line[1])[:10]:
            print(f"{own / 1e3:8.2f} ms  {name}")
    return finish("import_time", [row, held], options)


if __name__ == "__main__":
    sys.exit(main())
