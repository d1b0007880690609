"""The XLA compilers for TPU and GPU, run without a device, and counts of their programs.

They need libtpu (`jax[tpu]`), and jax-cuda13-plugin with jax-cuda13-pjrt. The counts are exact and
repeat; the cycles are XLA's estimate, never a speed.
"""

import collections
import functools
import re
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.steps import LIBRARIES, OPTIMIZERS, jitted_step
from benchmarks.trees import TREES
from gradtx.inspect.plan_compiled import COLLECTIVE, CYCLES

jax.config.update("jax_platforms", "cpu")  # in case jax was imported before this package

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84942979072 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 feature_extension: ACCELERATED_FEATURES }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  device_address_bits: 64 name: "NVIDIA H100 80GB HBM3"
  driver_version: "13.0.0" runtime_version: "13.0.0" compile_time_toolkit_version: "13.0.0"
  dnn_version: "9.12.0"
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 12 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""

TOPOLOGIES: dict[str, dict[str, Any]] = {
    "tpu": {"topology_name": "v5e:2x2"},
    "cuda": {"topology_name": "", "target_config": H100, "topology": "1x4x1"},
}
CHIPS = {"tpu": "TPU v5e", "cuda": "H100"}

OPCODE = re.compile(r" = .*? ([a-z][\w-]*)\(")
ALIAS = re.compile(r"(?:may|must)-alias")
LOOP = re.compile(r" = .*? while\(")


class Counts(NamedTuple):
    """The counts of a compiled step."""

    kernels: int
    """Fusions of the entry computation; on a GPU, custom calls too."""
    copies: int
    cycles: int
    """The sum of XLA's estimates; 0 on a GPU, which has none."""
    aliased: int
    """Arguments that are updated in place."""
    argument_bytes: int
    alias_bytes: int
    temp_bytes: int


@functools.cache
def sharding(platform: str) -> NamedSharding:
    """On the first device of the platform's topology."""
    topology = topologies.get_topology_desc(platform=platform, **TOPOLOGIES[platform])
    return NamedSharding(Mesh(np.array(topology.devices[:1]), ("device",)), PartitionSpec())


def placed(tree: Any, platform: str) -> Any:
    """Shapes on a device of the platform."""
    where = sharding(platform)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            np.shape(leaf), jax.dtypes.result_type(leaf), sharding=where
        ),
        tree,
    )


def compile_for(platform: str, step: Any, *args: Any) -> Any:
    """A jitted function compiled for the platform, for arguments of these shapes."""
    return step.trace(*placed(args, platform)).lower(lowering_platforms=(platform,)).compile()


def counts(platform: str, compiled: Any) -> Counts:
    """Count the parts of a compiled program."""
    text, memory = compiled.as_text(), compiled.memory_analysis()
    opcodes = entry_opcodes(text)
    return Counts(
        kernels=opcodes["fusion"] + (opcodes["custom-call"] if platform == "cuda" else 0),
        copies=opcodes["copy"],
        cycles=sum(map(int, CYCLES.findall(text))),
        aliased=len(ALIAS.findall(text.partition("\n")[0])),
        argument_bytes=memory.argument_size_in_bytes,
        alias_bytes=memory.alias_size_in_bytes,
        temp_bytes=memory.temp_size_in_bytes,
    )


def entry_opcodes(text: str) -> collections.Counter[str]:
    """Count each operation in the entry computation of an HLO program."""
    entry = text[text.index("\nENTRY") :].partition("\n}")[0]
    return collections.Counter(
        match.group(1) for line in entry.splitlines() if (match := OPCODE.search(line))
    )


@functools.cache
def measured(platform: str, tree_name: str, optimizer: str, library_name: str) -> Counts:
    """Compile an optimizer's step on one of the trees, once per program."""
    library, tree = LIBRARIES[library_name], TREES[tree_name]()
    tx = OPTIMIZERS[optimizer](library)
    return counts(
        platform,
        compile_for(platform, jitted_step(library, tx), tree, jax.eval_shape(tx.init, tree), tree),
    )


@functools.cache
def tpu_mesh(topology: str) -> Mesh:
    """All devices of a topology such as "v5e:2x2", along one axis "x"."""
    return Mesh(
        np.array(
            topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
        ).ravel(),
        ("x",),
    )


def on_mesh(tree: Any, mesh: Mesh) -> Any:
    """Shapes, those of two axes or more cut along the first one over all devices, the others on
    every device.
    """

    def cut(leaf: Any) -> jax.ShapeDtypeStruct:
        spec = PartitionSpec("x") if leaf.ndim > 1 else PartitionSpec()
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree.map(cut, tree)


def collectives(compiled: Any) -> collections.Counter[str]:
    """Count each collective operation in a compiled program."""
    return collections.Counter(
        match.group(1)
        for line in compiled.as_text().splitlines()
        if (match := COLLECTIVE.search(line))
    )


def loops(compiled: Any) -> int:
    """Loops of a compiled program; the estimates of cycles and flops count their bodies as if they
    ran once.
    """
    return len(LOOP.findall(compiled.as_text()))
