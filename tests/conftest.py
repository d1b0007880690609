"""Strict where it can be: CPU only, four devices of it, rank promotion raises, warnings are errors, compilations are shared."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0")  # half the compiling

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
