"""Steps of rules on matrices over the devices of a TPU, by XLA's counts and estimates.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m benchmarks.sharding [--slow]

Nothing runs: libtpu compiles every step for v5e:4x4 or v5e:16x16, and XLA:CPU that of large shapes
for 8 devices, in a minute where libtpu takes ten. The counts are exact and repeat.
"""

import functools
import math
import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import gradtx
from benchmarks.compilers import COLLECTIVE, CYCLES, collectives
from benchmarks.harness import Row, arguments, finish
from benchmarks.sharding_trees import TREES
from gradtx.tree.known_shardings import known_shardings

Spec = PartitionSpec
AXES = ("data", "model")
SIZES = {"f64": 8, "f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "s8": 1, "u8": 1, "pred": 1}
ARRAY = re.compile(r"(f64|f32|s32|u32|bf16|f16|s8|u8|pred)\[([\d,]*)\]")


class Layout(NamedTuple):
    """A mesh, and how parameters and the state are cut over it."""

    topology: str
    shape: tuple[int, ...]
    params: Callable[[str, Any], PartitionSpec]
    state: Callable[[str, Any], PartitionSpec]


class Counts(NamedTuple):
    """What XLA made of a step."""

    all_gathers: int
    all_to_alls: int
    all_reduces: int
    reduce_scatters: int
    permutes: int
    collective_bytes: int
    """Bytes that the collectives of one device return; the body of a loop counts once."""
    cycles: int
    temp_bytes: int
    gflop: float
    seconds: float
    """To compile."""


def is_output(path: str) -> bool:
    """Whether a matrix leads back to the residual stream, so that its rows are the wide side."""
    return path.endswith(("o", "down"))


def is_vector(path: str, leaf: Any) -> bool:
    return leaf.ndim < 2 or "norm" in path


def by_rows(path: str, leaf: Any) -> PartitionSpec:
    """Fully sharded: the rows of matrices over all devices, vectors whole."""
    if is_vector(path, leaf):
        return Spec()
    return Spec(*(None,) * (leaf.ndim - 2), ("data", "model"))


def by_both(path: str, leaf: Any) -> PartitionSpec:
    """Fully sharded and tensor parallel: inputs and outputs over one axis each."""
    if is_vector(path, leaf):
        return Spec()
    sides = ("model", "data") if is_output(path) else ("data", "model")
    return Spec(*(None,) * (leaf.ndim - 2), *sides)


def whole(path: str, leaf: Any) -> PartitionSpec:
    return Spec()


LAYOUTS = {
    "fsdp": Layout("v5e:4x4", (4, 4), by_rows, by_rows),
    "fsdp + tp": Layout("v5e:4x4", (4, 4), by_both, by_both),
    "zero-1": Layout("v5e:4x4", (4, 4), whole, by_rows),
    "fsdp, 8": Layout("cpu", (8, 1), by_rows, by_rows),
    "fsdp + tp, 256": Layout("v5e:16x16", (32, 8), by_both, by_both),
}


@functools.cache
def mesh_of(topology: str, shape: tuple[int, ...]) -> Mesh:
    if topology == "cpu":
        return Mesh(np.array(jax.devices("cpu")[: math.prod(shape)]).reshape(shape), AXES)
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    return Mesh(np.array(devices).reshape(shape), AXES)


def placed(tree: Any, mesh: Mesh, spec_of: Callable[[str, Any], PartitionSpec]) -> Any:
    """Shapes with shardings, by path."""

    def place(keys: Any, leaf: Any) -> jax.ShapeDtypeStruct:
        path = jax.tree_util.keystr(keys, simple=True, separator="/")
        sharding = NamedSharding(mesh, spec_of(path, leaf))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree_util.tree_map_with_path(place, tree)


def state_of(tx: Any, params: Any) -> Any:
    """The state's shapes, each slot cut along the axes that it has of its parameter."""
    shardings = gradtx.state_shardings(tx, params)
    return jax.tree.map(
        lambda leaf, cut: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=cut),
        jax.eval_shape(tx.init, params),
        shardings,
    )


def step_of(library: Any, tx: Any, cuts: Any) -> Callable[..., Any]:
    """One step. `cuts`, a tree of shardings, says how gradients and parameters are cut within it,
    as a training step or `gradtx.sharded` would; None: nobody says.
    """

    def step(params: Any, state: Any, grads: Any) -> Any:
        if cuts is None:
            updates, state = tx.update(grads, state, params)
            return library.apply_updates(params, updates), state
        cut, grads = jax.lax.with_sharding_constraint((params, grads), (cuts, cuts))
        with known_shardings(by_path(cuts)):
            updates, state = tx.update(grads, state, cut)
        return library.apply_updates(cut, updates), state

    return step


def by_path(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(keys, simple=True, separator="/"): leaf for keys, leaf in leaves}


def compiled_step(
    library: Any, tx: Any, tree: Any, layout: Layout, is_known: bool
) -> tuple[Any, float]:
    """The step compiled for the devices of a layout, and the seconds that it took."""
    mesh = mesh_of(layout.topology, layout.shape)
    params = placed(tree, mesh, layout.params)
    cut = placed(tree, mesh, layout.state)
    state = state_of(tx, cut)
    shardings, cuts, slots = (
        jax.tree.map(lambda leaf: leaf.sharding, one) for one in (params, cut, state)
    )
    step = jax.jit(
        step_of(library, tx, cuts if is_known else None),
        donate_argnums=(0, 1),
        out_shardings=(shardings, slots),
    )
    start = time.perf_counter()
    platform = "cpu" if layout.topology == "cpu" else "tpu"
    compiled = step.trace(params, state, params).lower(lowering_platforms=(platform,)).compile()
    return compiled, time.perf_counter() - start


def collective_bytes(text: str) -> int:
    """The bytes of the arrays that the collectives of a program return."""
    total = 0
    for line in text.splitlines():
        match = COLLECTIVE.search(line)
        if match:
            result = line[: match.start(1)].partition(" = ")[2]
            arrays = ARRAY.findall(result)
            if "-start" in line[match.end(1) : match.end(1) + 7] and len(arrays) > 1:
                arrays = arrays[len(arrays) // 2 :]  # operands come first, then results
            total += sum(
                SIZES[kind] * math.prod(int(size) for size in sizes.split(",") if size)
                for kind, sizes in arrays
            )
    return total


def counts(compiled: Any, seconds: float) -> Counts:
    text, kinds = compiled.as_text(), collectives(compiled)
    return Counts(
        kinds["all-gather"],
        kinds["all-to-all"],
        kinds["all-reduce"],
        kinds["reduce-scatter"],
        kinds["collective-permute"],
        collective_bytes(text),
        sum(map(int, CYCLES.findall(text))),
        compiled.memory_analysis().temp_size_in_bytes,
        compiled.cost_analysis()["flops"] / 1e9,
        round(seconds, 1),
    )


def measured(library: str, name: str, tree: str, layout: str, is_known: bool) -> Counts:
    tx = OPTIMIZERS[name](LIBRARIES[library])
    return counts(*compiled_step(LIBRARIES[library], tx, TREES[tree](), LAYOUTS[layout], is_known))


LIBRARIES: dict[str, Any] = {"gradtx": gradtx, "optax": optax}


def hidden_axes(params: Any) -> Any:
    """For Optax the axes of hidden matrices; None where AdamW acts, as gradtx chooses by itself."""

    def axes(keys: Any, leaf: Any) -> Any:
        path = jax.tree_util.keystr(keys, simple=True, separator="/")
        if is_vector(path, leaf) or path in ("embedding", "head"):
            return None
        return optax.contrib.MuonDimensionNumbers(leaf.ndim - 2, leaf.ndim - 1)

    return jax.tree_util.tree_map_with_path(axes, params)


def muon(library: Any) -> Any:
    if library is optax:
        return optax.contrib.muon(0.02, muon_weight_dimension_numbers=hidden_axes)
    return library.muon(0.02)


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "muon": muon,
    "soap": lambda library: library.soap(3e-3),
    "shampoo": lambda library: library.shampoo(3e-3),
    "adamw": lambda library: library.adamw(1e-3),
}

BARS = {"fsdp": 0.65, "fsdp + tp": 0.45, "zero-1": 0.65}
"""The most cycles of muon, as a part of those of `optax.contrib.muon`."""


def compared(tree: str, layout: str, fields: dict[str, float | None]) -> list[Row]:
    """Rows of counts of muon for both libraries: each field with its bar."""
    ours = measured("gradtx", "muon", tree, layout, is_known=True)
    theirs = measured("optax", "muon", tree, layout, is_known=False)
    rows: list[Row] = []
    for field, bar in fields.items():
        values = {"gradtx": getattr(ours, field), "optax": getattr(theirs, field)}
        ratio = values["gradtx"] / values["optax"] if values["optax"] else None
        rows.append(Row(f"muon, {tree}, {layout}: {field}", values, ratio, bar, unit=""))
    return rows


def alone(name: str, tree: str, layout: str, is_known: bool = True) -> list[Row]:
    """Rows of counts of gradtx, without a peer."""
    ours = measured("gradtx", name, tree, layout, is_known)._asdict()
    what = f"{name}, {tree}, {layout}" + ("" if is_known else ", shardings unknown")
    return [Row(f"{what}: {field}", {"gradtx": one}, unit="") for field, one in ours.items()]


FIELDS = dict.fromkeys(Counts._fields)


def main() -> int:
    options = arguments(__doc__, slow=False)
    rows = [
        row
        for layout, bar in BARS.items()
        for row in compared("by layer", layout, {**FIELDS, "cycles": bar})
    ]
    rows += compared("stacked", "fsdp + tp", FIELDS)
    for layout in BARS:
        rows += alone("muon", "by layer", layout, is_known=False)
    rows += alone("muon", "stacked, d = 2048", "fsdp + tp, 256")
    rows += compared("spd#978", "fsdp, 8", {**FIELDS, "collective_bytes": 1 / 8})
    if options.slow:  # each takes a minute or two to compile
        for name in ("soap", "shampoo"):
            rows += alone(name, "by layer", "fsdp")
    return finish("sharding", rows, options, exact=True)


if __name__ == "__main__":
    raise SystemExit(main())
