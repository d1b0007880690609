"""An update as XLA's compiler for a chip sees it, on a machine that has no such chip."""

import collections
import os
import re
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from gradtx.definition.errors import GradtxError
from gradtx.inspect.chips import Chip

CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
COLLECTIVE = re.compile(
    r" = .*? ((?:ragged-)?all-to-all|all-gather|all-reduce|reduce-scatter"
    r"|collective-permute|collective-broadcast)(?:-start)?\("
)
TPU_GRIDS = {1: "2x2", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16"}
TPU_GRIDS |= {256: "16x16"}
"""The grids of chips of v5e and v6e by their number; one chip is a corner of the least grid."""
CUBES = {1: "2x2x1", 4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8"}
CUBES |= {256: "4x8x8"}
"""Those of v4 and v5p, in three dimensions."""
QUIET = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_LOG_DIR": "disabled",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
"""What libtpu must find in the environment of a machine without a TPU."""


class Compiled(NamedTuple):
    """What XLA's compiler for the chip says of the update, on one device."""

    argument_bytes: int
    """Gradients, state and parameters."""
    temporary_bytes: int
    """The buffers that live within the update, at their peak."""
    collectives: dict[str, int]
    """The number of collectives of each kind."""
    cycles: int
    """XLA's estimate for a TPU, never a speed."""


def compile_update(update: Callable[..., Any], shapes: Any, state: Any, chip: Chip) -> Compiled:
    """Compile `update` for a chip, and count the parts of the program."""
    mesh = _device_mesh(shapes, chip)
    args = jax.tree.map(lambda leaf: _placed(leaf, mesh), (shapes, state, shapes))
    traced = jax.jit(update, donate_argnums=(0, 1)).trace(*args)
    compiled = traced.lower(lowering_platforms=("tpu",)).compile()
    text, memory = compiled.as_text() or "", cast(Any, compiled.memory_analysis())
    return Compiled(
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes,
        dict(collections.Counter(COLLECTIVE.findall(text))),
        sum(map(int, CYCLES.findall(text))),
    )


def _placed(leaf: Any, mesh: Mesh) -> Any:
    """A shape on the devices of the chip."""
    if not hasattr(leaf, "dtype"):
        return leaf
    spec = leaf.sharding.spec if isinstance(leaf.sharding, NamedSharding) else ()
    sharding = NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _device_mesh(shapes: Any, chip: Chip) -> Mesh:
    """The mesh of the parameters, with devices of the chip that are not there."""
    grid = next(leaf.sharding.mesh for leaf in jax.tree.leaves(shapes) if hasattr(leaf, "dtype"))
    devices = _devices(chip, grid.size)
    return Mesh(np.array(devices).reshape(grid.axis_sizes), grid.axis_names)


def _devices(chip: Chip, count: int) -> list[Any]:
    grids = TPU_GRIDS if chip.name in ("v5e", "v6e") else CUBES
    if chip.name[0] != "v":
        raise GradtxError(
            f"plan: compiled = True compiles for TPUs, not for {chip.name}: choose a chip of TPU, "
            f"such as v5e"
        )
    if count not in grids:
        raise GradtxError(
            f"plan: compiled = True compiles for {', '.join(map(str, grids))} devices of "
            f"{chip.name}, not {count}: choose a mesh of one of these sizes"
        )
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    from jax.experimental import topologies  # loads a compiler, which few callers need

    try:
        topology = topologies.get_topology_desc(
            platform="tpu", topology_name=f"{chip.name}:{grids[count]}"
        )
    except Exception as error:
        raise GradtxError(
            f"plan: compiled = True needs the compiler of TPUs, which is not here "
            f"({type(error).__name__}): pip install gradtx[accelerators]"
        ) from error
    return topology.devices[:count]
