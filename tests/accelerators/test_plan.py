"""`plan(..., compiled=True)`: memory and collectives by XLA:TPU are those of the plan."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

import gradtx

PARAMS = {
    "up": jax.ShapeDtypeStruct((512, 2048), jnp.bfloat16),
    "down": jax.ShapeDtypeStruct((2048, 512), jnp.bfloat16),
}
SPECS = {"up": P("data", "model"), "down": P("data", "model")}


def test_the_compiler_sees_the_bytes_of_the_plan() -> None:
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3))
    plan = gradtx.plan(tx, PARAMS, mesh={"data": 4, "model": 4}, shardings=SPECS, compiled=True)
    assert plan.compiled is not None
    # A TPU rounds each buffer up; a scalar takes 512 bytes.
    assert plan.compiled.argument_bytes == pytest.approx(plan.device_bytes, abs=1024)
    assert plan.compiled.collectives == {"all-reduce": 1}  # of the global norm
    assert plan.compiled.cycles > 0


def test_a_program_that_gathers_is_seen() -> None:
    tx = gradtx.muon(0.02)
    whole, cut = (
        gradtx.plan(
            tx, PARAMS, mesh={"data": 4, "model": 4}, shardings=specs, compiled=True
        ).compiled
        for specs in (None, SPECS)
    )
    assert whole is not None
    assert cut is not None
    assert not whole.collectives
    assert cut.collectives
    assert cut.argument_bytes < whole.argument_bytes / 15
