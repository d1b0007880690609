"""What workers share does not fail a test."""

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Path]:
    """A folder of compiled programs for this test alone."""
    before = jax.config.values["jax_compilation_cache_dir"]
    compilation_cache.set_cache_dir(str(tmp_path))
    compilation_cache.reset_cache()
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache.reset_cache()


@pytest.mark.parametrize("kept", [0, 20], ids=["nothing yet", "the first bytes"])
def test_a_program_that_another_worker_still_writes_is_compiled(programs: Path, kept: int) -> None:
    def double(x: jax.Array) -> jax.Array:
        return 2 * x

    jax.jit(double)(jnp.ones(3))
    written = [file for file in programs.rglob("*-cache") if file.name.startswith("jit_double")]
    for file in written:
        file.write_bytes(file.read_bytes()[:kept])
    jax.clear_caches()
    assert written and jax.jit(double)(jnp.ones(3)).tolist() == [2, 2, 2]
