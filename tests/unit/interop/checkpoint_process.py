"""One of two processes: `python -m tests.unit.interop.checkpoint_process PORT INDEX FOLDER`."""

import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx
from tests.unit.interop.checkpoint_runs import RUNS, place, run

COUNT = 2
SECONDS = 240
"""A process ends by itself after this time, even where its parent was killed."""


def main(port: str, index: str, folder: str) -> None:
    signal.alarm(SECONDS)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    address = f"127.0.0.1:{port}"
    jax.distributed.initialize(
        address, COUNT, int(index), coordinator_bind_address=address, initialization_timeout=60
    )
    texts: dict[str, str] = {}
    for name in sorted(RUNS):
        save_and_restore(Path(folder) / name, name)
    mistakes(Path(folder), int(index), texts)
    arrays: Any = {name: np.array(one) for name, one in texts.items()}
    np.savez(Path(folder) / f"{index}.npz", **arrays)
    jax.distributed.shutdown()


def save_and_restore(folder: Path, name: str) -> None:
    """Save a run cut over (8,), restore it cut over (2, 4), and compare the bits."""
    rows, cells = jax.make_mesh((8,), ("data",)), jax.make_mesh((2, 4), ("data", "model"))
    tree = place(run(name), rows, P("data"))
    with gradtx.Checkpointer(folder) as checkpointer:
        for step in (1, 2):
            checkpointer.save(tree, step=step)
        checkpointer.wait()
        for target in (place(run(name), cells, P("model", "data")), tree):
            again = checkpointer.load(target)
            for leaf, expected in zip(jax.tree.leaves(again), jax.tree.leaves(target), strict=True):
                same_shards(leaf, expected)


def same_shards(leaf: Any, expected: Any) -> None:
    if not isinstance(expected, jax.Array):
        assert leaf == expected
        return
    assert leaf.sharding == expected.sharding
    for one, other in zip(leaf.addressable_shards, expected.addressable_shards, strict=True):
        assert np.asarray(one.data).tobytes() == np.asarray(other.data).tobytes()


def mistakes(folder: Path, index: int, texts: dict[str, str]) -> None:
    """The texts of errors: every process raises, none waits for another."""
    mesh = jax.make_mesh((8,), ("data",))
    cut = jax.device_put(np.arange(8.0, dtype=np.float32), NamedSharding(mesh, P("data")))
    checkpointer = gradtx.Checkpointer(folder / "mistakes")
    own = gradtx.Checkpointer(folder / f"own {index}")
    tree, count = {"w": cut}, {"count": jnp.int32(100 + index)}
    calls: dict[str, Callable[[], Any]] = {
        "save of a file": lambda: gradtx.save(folder / "run.npz", tree),
        "save by every process": lambda: gradtx.save(folder / f"{index}.npz", {"w": np.ones(2)}),
        "load of a file": lambda: gradtx.restore_state(tree, {"w": np.ones(8, np.float32)}),
        "another step": lambda: checkpointer.save(tree, step=100 + index),
        "another count": lambda: checkpointer.save(tree | count, step=100),
        "another folder": lambda: own.load(tree),
    }
    if index:
        (folder / "own 1" / "7" / "default").mkdir(parents=True)
    for name, call in calls.items():
        try:
            call()
            texts[name] = "no error"
        except gradtx.GradtxError as error:
            texts[name] = str(error)
    texts["steps"] = str(checkpointer.steps())
    texts["damaged"] = damaged_on_one(folder / "damaged", index)


def damaged_on_one(folder: Path, index: int) -> str:
    """Both processes pass over a step that only one of them cannot read."""
    mesh = jax.make_mesh((8,), ("data",))
    numbers = np.random.default_rng(0).normal(size=(8, 8192)).astype(np.float32)
    cut = jax.device_put(numbers, NamedSharding(mesh, P("data")))
    with gradtx.Checkpointer(folder) as checkpointer:
        checkpointer.save({"w": cut}, step=1)
        checkpointer.save({"w": cut * 2}, step=2)
        checkpointer.wait()
        if index == 0:  # the shards of process 1, which process 0 does not read
            files = list((folder / "2" / "default" / "ocdbt.process_1" / "d").iterdir())
            assert sum(file.stat().st_size for file in files) > numbers.nbytes // 4
            for file in files:
                file.unlink()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            again = checkpointer.load({"w": cut})
    same_shards(again["w"], cut)
    texts = [str(one.message) for one in caught if "earlier one is read" in str(one.message)]
    return "another process" if "another process cannot read it" in texts[0] else "this process"


if __name__ == "__main__":
    main(*sys.argv[1:])
