"""`Checkpointer`: named arrays by Orbax, asynchronous, onto other meshes, whole or passed over."""

import gc
import inspect
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx
from tests.support.bits import assert_same
from tests.support.places import ROOT

TX = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3))


def mesh(*shape: int) -> Mesh:
    names = ("data", "model")[: len(shape)]
    return Mesh(np.array(jax.devices()[: int(np.prod(shape))]).reshape(shape), names)


def parameters() -> dict[str, Any]:
    generator = np.random.default_rng(0)
    return {
        "dense": {"kernel": jnp.asarray(generator.normal(size=(8, 16)), jnp.float32)},
        "bias": jnp.asarray(generator.normal(size=16), jnp.bfloat16),
    }


def run(tx: Any = TX) -> dict[str, Any]:
    """A run after one step, so that every slot has numbers."""
    params = parameters()
    updates, state = tx.update(jax.tree.map(jnp.sin, params), tx.init(params), params)
    return {"params": gradtx.apply_updates(params, updates), "state": state, "step": 1}


def cut(tree: Any, sharding: NamedSharding) -> Any:
    """The matrices of a tree cut by a sharding, other arrays whole on its mesh."""
    whole = NamedSharding(sharding.mesh, P())
    return jax.tree.map(
        lambda leaf: (
            jax.device_put(leaf, sharding if leaf.ndim == 2 else whole)
            if isinstance(leaf, jax.Array)
            else leaf
        ),
        tree,
    )


def saved(folder: Path, tree: Any, *steps: int) -> None:
    with gradtx.Checkpointer(folder) as checkpointer:
        for step in steps:
            checkpointer.save(tree, step=step)


def loaded(folder: Path, like: Any, **options: Any) -> Any:
    return gradtx.Checkpointer(folder).load(like, **options)


# Bit for bit --------------------------------------------------------------------------------------

STATES: dict[str, Callable[[], Any]] = {
    "chain": run,
    "int8": lambda: run(gradtx.stored(gradtx.adamw(1e-3), "int8")),
    "packed16": lambda: run(gradtx.stored(gradtx.adamw(1e-3), "packed16")),
    "guard": lambda: run(gradtx.guard(gradtx.accumulate(gradtx.adamw(1e-3), 2))),
    "partition": lambda: run(
        gradtx.partition({"a": gradtx.lion(0.1), "b": gradtx.sgd(0.1)}, [("bias", "a"), ("", "b")])
    ),
    "keys": lambda: {"key": jax.random.key(7), "other": jax.random.key(1, impl="rbg")},
    "numbers": lambda: {"int": 3, "float": 0.1, "bool": True, "complex": 1j, "np": np.arange(3)},
    "no elements": lambda: {"none": jnp.zeros((0, 3), jnp.bfloat16), "one": jnp.ones(1)},
    "dtypes": lambda: {
        str(dtype): jnp.arange(4).astype(dtype)
        for dtype in (jnp.bool_, jnp.int4, jnp.uint8, jnp.float8_e4m3fn, jnp.float16, jnp.complex64)
    },
    "one array": lambda: jnp.arange(3.0),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(STATES))
def test_a_tree_returns_bit_for_bit(name: str, tmp_path: Path) -> None:
    tree = STATES[name]()
    saved(tmp_path, tree, 5)
    again = loaded(tmp_path, tree)
    assert_same(again, tree)
    assert jax.tree.map(type, again) == jax.tree.map(type, tree)


@pytest.mark.parametrize("spec", [P("data", "model"), P("model"), P(None, ("data", "model"))])
@pytest.mark.parametrize("shape", [(4, 2), (2, 4), (8,), (1,), (2, 1)])
def test_onto_another_mesh(shape: tuple[int, ...], spec: P, tmp_path: Path) -> None:
    tree = run()
    saved(tmp_path, cut(tree, NamedSharding(mesh(4, 2), spec)), 1)
    names = ("data", "model")[: len(shape)]
    like = cut(tree, NamedSharding(mesh(*shape), P(*names)))
    again = loaded(tmp_path, like)
    assert_same(again, tree)
    for leaf, target in zip(jax.tree.leaves(again), jax.tree.leaves(like), strict=True):
        assert not hasattr(target, "sharding") or leaf.sharding == target.sharding


def test_shardings_come_from_the_argument_by_leaf_or_folder(tmp_path: Path) -> None:
    tree = run()
    saved(tmp_path, tree, 1)
    rows, whole = NamedSharding(mesh(8), P("data")), NamedSharding(mesh(8), P())
    shardings = {"params": {"dense": rows}, "state": whole}
    like = jax.eval_shape(lambda: {k: v for k, v in tree.items() if k != "step"}) | {"step": 0}
    again = loaded(tmp_path, like, shardings=shardings)
    assert_same(again, tree)
    assert again["params"]["dense"]["kernel"].sharding == rows
    assert again["state"].mu["bias"].sharding == whole
    assert not again["params"]["bias"].committed


def test_state_shardings_say_where_a_state_goes(tmp_path: Path) -> None:
    """From shapes and shardings of the parameters alone: no array of the run exists before."""
    tree = run()
    saved(tmp_path, tree, 1)
    rows = NamedSharding(mesh(8), P("data"))
    structs = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=rows), tree["params"]
    )
    shardings = {"state": gradtx.state_shardings(TX, structs)}
    like = {"params": structs, "state": jax.eval_shape(TX.init, structs), "step": 0}
    again = loaded(tmp_path, like, shardings=shardings)
    assert_same(again, tree)
    assert again["state"].nu["dense"]["kernel"].sharding.is_equivalent_to(rows, 2)


@pytest.mark.filterwarnings("ignore:Sharding info not provided")  # plain Orbax, asked for nothing
def test_entries_have_paths_that_are_readable_without_gradtx(tmp_path: Path) -> None:
    tree = run()
    saved(tmp_path, tree, 20)
    with ocp.CheckpointManager(tmp_path) as manager:
        plain = manager.restore(20, args=ocp.args.PyTreeRestore())
    flat = gradtx.flatten_state(tree)
    assert set(plain) == set(flat) and "state/slots/adamw/scale_by_adam/mu/bias" in plain
    assert_same({path: np.asarray(one) for path, one in plain.items()}, jax.device_get(flat))


def test_a_checkpoint_of_plain_orbax_is_read(tmp_path: Path) -> None:
    tree = run()
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(3, args=ocp.args.StandardSave(tree))
    assert_same(loaded(tmp_path, tree), tree)


def test_a_changed_definition_takes_the_words_of_restore_state(tmp_path: Path) -> None:
    tree = run(gradtx.adamw(1e-3))
    saved(tmp_path, tree, 3)
    like = jax.eval_shape(TX.init, tree["params"])
    moved = loaded(tmp_path, {"params": tree["params"], "state": like, "step": 0})
    assert_same(moved["state"].mu, tree["state"].mu)
    larger = tree["params"] | {"new": jnp.ones(3)}
    new = {"weights": larger, "state": TX.init(larger)}
    again = loaded(tmp_path, new, missing="init", rename={"params": "weights"})
    assert_same(again["weights"], larger)
    assert_same(again["state"].mu["dense"], tree["state"].mu["dense"])


# Asynchronous, the last n, whole ------------------------------------------------------------------


def test_a_step_may_donate_what_is_being_saved(tmp_path: Path) -> None:
    step = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    with gradtx.Checkpointer(tmp_path) as checkpointer:
        for number in range(3):
            x = jax.device_put(
                jnp.full((512, 512), number + 5.0), NamedSharding(mesh(8), P("data"))
            )
            checkpointer.save({"x": x}, step=number)
            jax.block_until_ready(step(step(x)))
        checkpointer.wait()
        for number in range(3):
            again = checkpointer.load({"x": np.zeros((512, 512), np.float32)}, step=number)
            assert np.unique(again["x"]).tolist() == [number + 5.0]


def test_the_last_steps_stay(tmp_path: Path) -> None:
    checkpointer = gradtx.Checkpointer(tmp_path / "run", keep=2)
    assert checkpointer.latest_step() is None and checkpointer.steps() == []
    for step in (1, 20, 300):
        checkpointer.save({"w": jnp.full(2, step)}, step=np.int32(step))
    checkpointer.wait()
    assert checkpointer.steps() == [20, 300] and checkpointer.latest_step() == 300
    assert checkpointer.load({"w": jnp.zeros(2, int)}, step=20)["w"].tolist() == [20, 20]
    checkpointer.close()
    assert repr(checkpointer) == f"Checkpointer('{tmp_path}/run', keep=2)"


def test_a_reader_leaves_an_unfinished_write_alone(tmp_path: Path) -> None:
    saved(tmp_path, {"w": jnp.ones(2)}, 1)
    (half := tmp_path / "2.orbax-checkpoint-tmp").mkdir()
    assert loaded(tmp_path, {"w": jnp.zeros(2)})["w"].tolist() == [1, 1]
    assert half.exists()
    saved(tmp_path, {"w": jnp.ones(2)}, 3)  # the writer of the run deletes what a killed one left
    assert not half.exists()


KILLED = """
import sys, jax, jax.numpy as jnp, numpy as np, gradtx
folder = sys.argv[1]
checkpointer = gradtx.Checkpointer(folder)
for step in range(1, 1000):
    arrays = {str(n): np.random.default_rng(n).normal(size=(512, 512)) + step for n in range(16)}
    checkpointer.save(arrays, step=step)
    print(step, flush=True)
"""


def test_a_process_killed_while_it_writes_leaves_the_step_before(tmp_path: Path) -> None:
    """Killed while a folder of an unfinished step exists; 32 MB take a while to write."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(3):
        process.stdout.readline()
    deadline = time.monotonic() + 60
    while not (half := list(tmp_path.glob("*.orbax-checkpoint-tmp*"))):
        assert time.monotonic() < deadline
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert half
    step = gradtx.Checkpointer(tmp_path).latest_step()
    assert step is not None and step >= 2
    like = {str(n): np.zeros((512, 512)) for n in range(16)}
    again = loaded(tmp_path, like)
    for n in range(16):
        expected = np.random.default_rng(n).normal(size=(512, 512)) + step
        np.testing.assert_array_equal(again[str(n)], expected)


def truncate(folder: Path) -> None:
    """Cut the largest file of a step in half, as a full disk or a broken copy does."""
    largest = max(
        (one for one in folder.rglob("*") if one.is_file()), key=lambda f: f.stat().st_size
    )
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": truncate,
    "no metadata": lambda folder: (folder / "default" / "_METADATA").unlink(),
    "broken metadata": lambda folder: (folder / "default" / "_METADATA").write_text('{"tree_'),
    "no arrays": lambda folder: shutil.rmtree(folder / "default"),
    "no data": lambda folder: shutil.rmtree(next(folder.rglob("ocdbt.process_0"))),
}  # fmt: skip


@pytest.fixture
def reads_end() -> Iterator[None]:
    """Wait until no read that failed is left, so that no later test is charged with its end.

    TensorStore's reads of other shards end after Orbax has closed their event loop, and Python
    reports them when it collects their coroutines.
    """
    yield
    last = time.monotonic() + 30
    while unfinished_reads():
        assert time.monotonic() < last, "a read of a damaged step does not end"
        time.sleep(0.01)


def unfinished_reads() -> int:
    gc.collect()
    return sum(map(inspect.iscoroutine, gc.get_objects()))


@pytest.mark.usefixtures("reads_end")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", sorted(DAMAGES))
def test_a_damaged_step_is_passed_over(name: str, tmp_path: Path) -> None:
    tree = {
        "w": jax.device_put(jnp.arange(4096.0).reshape(64, 64), NamedSharding(mesh(8), P("data")))
    }
    saved(tmp_path, tree, 1, 2)
    DAMAGES[name](tmp_path / "2")
    text = rf"load: step 2 of '{tmp_path}' is not a whole checkpoint \(.*\); an earlier one is read"
    with pytest.warns(UserWarning, match=text):
        assert_same(loaded(tmp_path, tree), tree)
    with pytest.raises(gradtx.StateError, match=r"^step 2 of .* is not a whole checkpoint"):
        loaded(tmp_path, tree, step=2)
    saved(tmp_path, tree, 2)  # the run goes on from step 1, and reaches step 2 again
    assert_same(loaded(tmp_path, tree, step=2), tree)
    assert len(list(tmp_path.glob("2.damaged-*"))) == 1  # nothing of the user's is deleted
