"""The compilers are shared with the benchmarks, whose package sets the environment that they need before jax is imported."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import benchmarks  # noqa: F401
