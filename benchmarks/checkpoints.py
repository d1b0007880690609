"""Checkpoints of a sharded run beside plain Orbax: time to save and to restore, and bytes.

AdamW on matrices of 4,096 columns, cut over eight virtual devices of the CPU, `--megabytes` in all
(1,000 is the size of the bar). Both sides write into one folder: `gradtx.Checkpointer`, and
`CheckpointManager` of Orbax with `StandardSave`. "blocks": until `save` returns; "saves": until
everything is on the disk; "restores": onto the shardings of the run. `gradtx.save` is timed beside
them, as one file."""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

import gradtx
from benchmarks.harness import Row, arguments, compared, finish, interleave, seconds

DEVICES, COLUMNS, LEAVES = 8, 4096, 10
BAR = 1.1
"""The time of gradtx in units of plain Orbax's, at most; and bytes."""


def run(megabytes: int) -> dict[str, Any]:
    """Parameters and state of AdamW with random numbers, which no compression makes smaller."""
    rows = megabytes * 2**20 // (3 * 4 * COLUMNS * LEAVES) // DEVICES * DEVICES
    mesh = jax.make_mesh((DEVICES,), ("data",))
    cut, generator = NamedSharding(mesh, PartitionSpec("data")), np.random.default_rng(0)
    tx = gradtx.adamw(1e-3)
    params = {f"layer{n}": jnp.zeros((rows, COLUMNS)) for n in range(LEAVES)}

    def filled(leaf: Any) -> Any:
        if leaf.ndim == 0:
            return jnp.zeros(leaf.shape, leaf.dtype)
        return jax.device_put(generator.standard_normal(leaf.shape, np.float32), cut)

    shapes = jax.eval_shape(lambda: {"params": params, "state": tx.init(params)})
    return jax.block_until_ready(jax.tree.map(filled, shapes))


class Gradtx:
    """`Checkpointer`, in a folder of its own."""

    def __init__(self, folder: Path, tree: Any):
        self.folder, self.tree, self.step = folder, tree, 0
        self.checkpointer = gradtx.Checkpointer(folder, keep=1)

    def save(self) -> None:
        self.step += 1
        self.checkpointer.save(self.tree, step=self.step)

    def wait(self) -> None:
        self.checkpointer.wait()

    def restore(self) -> Any:
        return self.checkpointer.load(self.tree)


class Orbax:
    """Orbax's own manager, with the tree as it is."""

    def __init__(self, folder: Path, tree: Any):
        import orbax.checkpoint as ocp

        self.ocp, self.folder, self.tree, self.step = ocp, folder, tree, 0
        options = ocp.CheckpointManagerOptions(max_to_keep=1)
        self.manager = ocp.CheckpointManager(folder, options=options)
        self.like = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), tree
        )

    def save(self) -> None:
        self.step += 1
        self.manager.save(self.step, args=self.ocp.args.StandardSave(self.tree))

    def wait(self) -> None:
        self.manager.wait_until_finished()

    def restore(self) -> Any:
        return self.manager.restore(self.step, args=self.ocp.args.StandardRestore(self.like))


def blocked(side: Any) -> float:
    """The seconds until `save` returns; the write before has ended."""
    elapsed = seconds(side.save)
    side.wait()
    return elapsed


def saved(side: Any) -> float:
    start = time.perf_counter()
    side.save()
    side.wait()
    return time.perf_counter() - start


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def rows_of(sides: Mapping[str, Any], runs: int) -> list[Row]:
    def timed(measure: Callable[[Any], float]) -> dict[str, list[float]]:
        calls = {name: lambda side=side: measure(side) for name, side in sides.items()}
        return interleave(calls, runs, warmup=1)

    rows = [
        compared("blocks", timed(blocked), "orbax"),
        compared("saves", timed(saved), "orbax", BAR),
        compared("restores", timed(lambda side: seconds(side.restore)), "orbax", BAR),
    ]
    sizes = {name: size(side.folder) for name, side in sides.items()}
    ratio = sizes["gradtx"] / sizes["orbax"]
    return [*rows, Row("on the disk", sizes, ratio, 1.001, "B")]


def main() -> int:
    jax.config.update("jax_num_cpu_devices", DEVICES)
    options = arguments(__doc__, megabytes=1000)
    tree, folder = run(int(options.megabytes)), Path(tempfile.mkdtemp())
    try:
        sides = {"gradtx": Gradtx(folder / "gradtx", tree), "orbax": Orbax(folder / "orbax", tree)}
        rows = rows_of(sides, options.runs)
        file = [seconds(gradtx.save, folder / "run.npz", tree) for _ in range(3)]
        rows.append(Row("gradtx.save, one file", {"gradtx": sorted(file)[1]}))
    finally:
        shutil.rmtree(folder)
    return finish("checkpoints", rows, options)


if __name__ == "__main__":
    sys.exit(main())
