"""The compilers are shared with the benchmarks, whose package sets the environment that they need
before jax is imported.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import jax
import pytest

import benchmarks  # noqa: F401


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One process for each compiler: only one process at a time may load the TPU's."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group("cuda" if "cuda" in item.name else "tpu"))


@pytest.fixture(autouse=True, scope="session")
def no_programs_of_jax_are_kept() -> None:
    """JAX cannot load a program for a device that is not there; programs.py keeps what is read."""
    jax.config.update("jax_enable_compilation_cache", False)
