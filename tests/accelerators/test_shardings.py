"""Muon over 16 chips, compiled for v5e:4x4: exact counts of collectives, and cycles beside Optax's.

What Optax's step takes was measured by `python -m benchmarks.sharding`, which compiles both.
"""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import gradtx
from benchmarks.compilers import collectives
from benchmarks.sharding import LAYOUTS, Counts, measured, mesh_of, placed, state_of
from benchmarks.sharding_trees import TREES

MATRICES = 26
"""Arrays of two axes: 24 hidden matrices, the embedding and the head."""
OPTAX = {"fsdp": 408_044, "fsdp + tp": 475_960, "zero-1": 374_781}
"""Cycles of `optax.contrib.muon` of Optax 0.2.8, by XLA's estimate."""
BARS = {"fsdp": 0.65, "fsdp + tp": 0.45, "zero-1": 0.65}
GROUPS = {"fsdp": 3, "fsdp + tp": 4, "zero-1": 3}
"""Matrices of one shape and one cut: two all-to-alls take them to their owners and back."""


def counts(layout: str, is_known: bool = True) -> Counts:
    return measured("gradtx", "muon", "by layer", layout, is_known)


@pytest.mark.parametrize("layout", sorted(BARS))
def test_matrices_go_all_to_all(layout: str) -> None:
    ours = counts(layout)
    assert ours.all_to_alls == 2 * GROUPS[layout]
    # ZeRO-1 gathers each parameter once; nothing else is gathered or summed.
    assert ours.all_gathers == (MATRICES if layout == "zero-1" else 0)
    assert ours.all_reduces == ours.reduce_scatters == ours.permutes == 0
    assert ours.cycles <= BARS[layout] * OPTAX[layout]


def loss(params: Any, x: jax.Array) -> jax.Array:
    return sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(params)) * jnp.mean(x)


@pytest.mark.parametrize("layout", sorted(BARS))
def test_a_training_step_needs_no_word(layout: str) -> None:
    """`make_step` sees how its arguments are cut, and `sharded` knows how it cuts them."""
    place = LAYOUTS[layout]
    mesh = mesh_of(place.topology, place.shape)
    tx = gradtx.muon(0.02)
    params = placed(TREES["by layer"](), mesh, place.params)
    cut, zero = params, gradtx.sharded(tx, mesh.axis_names)
    if layout == "zero-1":
        specs = {one.path: one.spec for one in gradtx.sharding.cuts(zero, params)}
        cut = placed(params, mesh, lambda path, _: specs[path])
    state = state_of(tx, cut)
    rows = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    x = jax.ShapeDtypeStruct((16,), jnp.float32, sharding=rows)
    step = gradtx.make_step(loss, tx if layout != "zero-1" else zero)
    compiled = step.trace(params, state, x).lower(lowering_platforms=("tpu",)).compile()
    kinds = collectives(compiled)
    assert kinds["all-to-all"] == 2 * GROUPS[layout]
    assert kinds["all-gather"] == (MATRICES if layout == "zero-1" else 0)
