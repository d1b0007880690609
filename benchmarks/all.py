"""Run every benchmark in its own process, one after another, with the same options.

The exit status is the number of benchmarks that missed a bar.
"""

import subprocess
import sys

BENCHMARKS = (
    "memory",
    "accelerators",
    "import_time",
    "trace",
    "trace_each",
    "init",
    "eager",
    "step",
    "production",
    "whole_steps",
    "vmap",
    "sweep",
    "losses",
    "cross_entropy",
    "functions",
    "matrices",
    "matrix_devices",
)


def run(name: str) -> int:
    return subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]], check=False
    ).returncode


def main() -> int:
    missed = [name for name in BENCHMARKS if run(name)]
    print(f"missed a bar, or failed: {', '.join(missed) or 'none'}")
    return len(missed)


if __name__ == "__main__":
    sys.exit(main())
