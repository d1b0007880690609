"""State in host memory: temporaries on the device and the order of copies, by XLA's compilers.

Eight and 24 square arrays of 4096, AdamW and Muon, on one v5e, on four (cut by rows), and one H100.
The temporaries are those of the donated step, over the bytes of the slots that left the device. The
counts are exact and repeat; nothing is timed.
"""

import functools
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gradtx
from benchmarks.compilers import TOPOLOGIES
from benchmarks.harness import Row, arguments, finish

BAR = 0.25
"""Temporaries over the slots that left the device."""
BARS = {
    ("v5e", "adamw", 8),
    ("v5e", "adamw", 24),
    ("v5e:2x2", "adamw", 8),
    ("v5e:2x2", "adamw", 24),
    ("v5e", "muon", 24),
}
"""The rows that the bar holds for. Newton-Schulz alone needs three matrices in float32, 3/8 of the
slots of eight, and on four devices it gathers the matrix that it works on.
"""
PLACES = {"v5e": ("tpu", 1), "v5e:2x2": ("tpu", 4), "H100": ("cuda", 1)}
METHODS = {"adamw": gradtx.adamw(1e-3), "muon": gradtx.muon(1e-3)}
CASES = [
    ("v5e", "adamw", 8, 4096),
    ("v5e", "adamw", 24, 4096),
    ("v5e", "muon", 8, 2048),
    ("v5e", "muon", 24, 2048),
    ("v5e:2x2", "adamw", 8, 4096),
    ("v5e:2x2", "adamw", 24, 4096),
    ("v5e:2x2", "muon", 24, 2048),
    ("H100", "adamw", 24, 4096),
    ("H100", "muon", 24, 4096),
]
DONE = re.compile(r"%(\S+) = .*? copy-done\(%?([\w.\-]+)\)")


class Offloaded(NamedTuple):
    """A compiled step whose slots are in host memory."""

    text: str
    temp_bytes: int
    slot_bytes: int
    """The bytes of the slots on one device's part of the host."""
    host_alias_bytes: int

    @property
    def ratio(self) -> float:
        return self.temp_bytes / self.slot_bytes


@functools.cache
def mesh_of(platform: str, devices: int) -> Mesh:
    topology = topologies.get_topology_desc(platform=platform, **TOPOLOGIES[platform])
    return Mesh(np.array(topology.devices[:devices]), ("x",))


def compile_step(
    tx: Any, platform: str, devices: int, arrays: int, width: int, *, offload: bool = True
) -> Offloaded:
    """The step of some square arrays, compiled with its slots in host memory, or on the device."""
    mesh = mesh_of(platform, devices)
    whole, cut = (NamedSharding(mesh, spec) for spec in (PartitionSpec(), PartitionSpec("x")))
    host = cut.with_memory_kind("pinned_host") if offload else cut

    def place(tree: Any, sharding: Any) -> Any:
        return jax.tree.map(
            lambda one: jax.ShapeDtypeStruct(
                one.shape, one.dtype, sharding=sharding if one.ndim else whole
            ),
            tree,
        )

    square = jax.ShapeDtypeStruct((width, width), jnp.float32)
    params = place({f"w{n}": square for n in range(arrays)}, cut)
    state = place(jax.eval_shape(tx.init, params), host)
    step = functools.partial(_step, gradtx.offloaded(tx) if offload else tx)
    if platform == "cuda" and offload:
        # Types of a GPU that is not there do not tell its memories.
        step = functools.partial(_on_host, step)
    shardings = jax.tree.map(lambda one: one.sharding, (params, state))
    jitted = jax.jit(step, donate_argnums=(0, 1), out_shardings=shardings)
    lowered = jitted.trace(params, state, params).lower(lowering_platforms=(platform,))
    compiled = lowered.compile()
    memory: Any = compiled.memory_analysis()
    slots = [one for one in jax.tree.leaves(state) if one.ndim]
    return Offloaded(
        compiled.as_text() or "",
        memory.temp_size_in_bytes,
        sum(one.size * one.dtype.itemsize for one in slots) // devices,
        memory.host_alias_size_in_bytes,
    )


def _step(tx: Any, params: Any, state: Any, grads: Any) -> Any:
    return gradtx.update_params(tx, grads, state, params)


def _on_host(step: Any, params: Any, state: Any, grads: Any) -> Any:
    host = jax.memory.Space.Host
    state = jax.tree.map(lambda one: jax.device_put(one, host) if one.ndim else one, state)
    return step(params, state, grads)


def overlapped(text: str) -> int:
    """Copies between start and done of which a fusion or a loop runs: those that overlap with
    arithmetic.
    """
    count = 0
    for block in text.split("\n}\n"):
        lines = block.splitlines()
        started = {
            match.group(1): number
            for number, line in enumerate(lines)
            if (match := re.search(r"%(\S+) = .*S\(5\).* copy-start\(", line))
        }
        for number, line in enumerate(lines):
            match = DONE.search(line)
            if match and match.group(2) in started:
                between = lines[started[match.group(2)] + 1 : number]
                count += any(" fusion(" in one or " while(" in one for one in between)
    return count


def rows(cases: Sequence[tuple[str, str, int, int]] = CASES) -> Iterator[Row]:
    for place, method, arrays, width in cases:
        ours = compile_step(METHODS[method], *PLACES[place], arrays, width)
        device = compile_step(METHODS[method], *PLACES[place], arrays, width, offload=False)
        values = {
            "gradtx": round(ours.ratio, 3),
            "on the device": round(device.ratio, 3),
            "copies that overlap": overlapped(ours.text),
            "slots, MB": round(ours.slot_bytes / 1e6),
        }
        name = f"{place}: {method}, {arrays} arrays of {width}²"
        yield Row(name, values, bar=BAR if (place, method, arrays) in BARS else None, unit="")


def main() -> int:
    options = arguments(__doc__)
    return finish("offload", [*rows()], options, exact=True)


if __name__ == "__main__":
    sys.exit(main())
