"""Strict where it can be: CPU only, eight devices of it, rank promotion raises, warnings are
errors; quick to compile before to run.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# XLA stops at a flag that it does not know: leave out what a newer one lacks. `make smoke` compiles
# as users do.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=8 "
    # a fifth of the compiling, most of the time
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
)

import jax
import pytest

from tests.support import accounts, workers

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config: pytest.Config) -> None:
    """Both are for all tests, those in docstrings too, and not for this folder alone."""
    config.pluginmanager.register(accounts, "accounts")
    config.pluginmanager.register(workers, "workers")
    workers.keep_programs()
