"""Strict where it can be: CPU only, rank promotion raises, warnings are errors, compilations are shared."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
