"""Checkpoints: bit for bit, told what does not fit, whole at every moment, and a killed run that
goes on as if it had not been.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import gradtx
from gradtx.definition.errors import StateError, StructureError
from gradtx.testing.problems import parameters
from tests.methods import FIRST, METHODS
from tests.support.bits import assert_same
from tests.support.places import ROOT

ADAMW = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3))


class Odd(NamedTuple):
    key: Any
    value: Any
    nothing: None


def odd() -> dict[str, Any]:
    """Every kind of leaf that a tree may have."""
    bits = jnp.array(
        [0x7FC1, 0xFF80, 0x8000, 1], jnp.uint16
    )  # a nan with a payload, -inf, -0, the smallest
    return {
        "bfloat16": jax.lax.bitcast_convert_type(bits, jnp.bfloat16),
        "float8": jnp.array([1.5, -2.0], jnp.float8_e4m3fn),
        "float16": jnp.array([[1.0, jnp.nan]], jnp.float16),
        "complex": jnp.array([1 + 2j], jnp.complex64),
        "int4": jnp.array([-8, 7], jnp.int4),
        "int": jnp.array(-(2**31), jnp.int32),
        "bool": jnp.array([True, False]),
        "empty": jnp.zeros((0, 3)),
        "numpy": np.arange(3.0),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "numbers": (3, 2.5, True, 1j),
        "odd": Odd(
            jax.random.key(7),
            [jax.random.split(jax.random.key(1, impl="rbg"), 3), jax.random.PRNGKey(2)],
            None,
        ),
        "": {"file": jnp.ones(1), "Φ θ": jnp.ones(2)},
        "none": {},
    }


def test_names_are_paths() -> None:
    state = ADAMW.init({"dense": {"kernel": jnp.ones((2, 3))}})
    assert list(gradtx.flatten_state(state)) == [
        "count",
        "slots/adamw/scale_by_adam/mu/dense/kernel",
        "slots/adamw/scale_by_adam/nu/dense/kernel",
    ]
    assert gradtx.flatten_state(jnp.ones(3)).keys() == {""}
    assert gradtx.flatten_state(state)["count"] is state.count


@pytest.mark.parametrize("abstract", [False, True])
def test_every_kind_of_leaf_comes_back_to_the_bit(abstract: bool, tmp_path: Path) -> None:
    tree = odd()
    like = jax.tree.map(
        lambda leaf: (
            jax.eval_shape(lambda: leaf) if abstract and isinstance(leaf, jax.Array) else leaf
        ),
        tree,
    )
    assert_same(tree, gradtx.restore_state(like, gradtx.flatten_state(tree)))
    gradtx.save(tmp_path / "odd", tree)
    assert_same(tree, gradtx.load(str(tmp_path / "odd"), like))
    assert_same({}, gradtx.restore_state({}, {}))


@pytest.mark.parametrize("name", FIRST)
def test_states_of_every_method(name: str) -> None:
    tx, params = METHODS[name].tx, parameters()
    state = tx.init(params)
    flat = {path: np.asarray(array) for path, array in gradtx.flatten_state(state).items()}
    assert_same(state, gradtx.restore_state(jax.eval_shape(tx.init, params), flat))


OTHERS = {
    "masked": gradtx.masked(gradtx.adam(0.1, mu_dtype="bfloat16"), r"kernel$"),
    "partition": gradtx.partition(
        {"a": gradtx.sgd(0.1, 0.9), "b": gradtx.adam(0.1)}, [("bias$", "a"), (".*", "b")]
    ),
    "tunable": gradtx.tunable(gradtx.adam(0.1), "learning_rate"),
    "noise": gradtx.add_noise(0.1, 0.5, jax.random.key(3)),
    "optax": optax.adamw(0.1),
    "optax in a chain": gradtx.chain(
        gradtx.clip(1.0), gradtx.GradientTransformation(*optax.adam(0.1))
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_states(name: str, tmp_path: Path) -> None:
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3), "step": jnp.array(3), "none": None}
    state = OTHERS[name].init(params)
    gradtx.save(tmp_path / "state.npz", (params, state))
    assert_same(
        (params, state),
        gradtx.load(tmp_path / "state.npz", jax.eval_shape(lambda: (params, state))),
    )


def test_the_file_is_one_that_numpy_reads(tmp_path: Path) -> None:
    gradtx.save(tmp_path / "run.npz", {"w": jnp.arange(3.0), "half": jnp.ones(2, jnp.bfloat16)})
    assert [path.name for path in tmp_path.iterdir()] == ["run.npz"]
    with np.load(tmp_path / "run.npz", allow_pickle=False) as file:
        assert set(file.files) == {"__gradtx__", "w", "half"}
        assert file["w"].tolist() == [0, 1, 2] and file["half"].dtype == np.uint16


def test_arrays_go_where_those_of_like_are() -> None:
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    placed = {
        "w": jax.device_put(jnp.arange(8.0), sharding),
        "v": jax.device_put(jnp.ones(2), jax.devices()[3]),
        "u": jnp.ones(2),
    }
    for like in (
        placed,
        {**placed, "w": jax.ShapeDtypeStruct((8,), jnp.float32, sharding=sharding)},
    ):
        found = gradtx.restore_state(
            like, {name: np.asarray(leaf) for name, leaf in placed.items()}
        )
        assert found["w"].sharding == sharding and found["w"].tolist() == list(range(8))
        assert found["v"].devices() == {jax.devices()[3]}
        assert not found["u"].committed


def test_a_restored_tree_is_its_own() -> None:
    flat = {"w": np.ones(64, np.float32)}
    found = gradtx.restore_state({"w": jnp.zeros(64)}, flat)
    flat["w"][:] = 5
    assert found["w"].tolist() == [1.0] * 64


W = {"dense": {"kernel": jnp.ones((2, 3))}, "head": jnp.ones(3, jnp.bfloat16)}


def changed(**entries: Any) -> dict[str, Any]:
    flat = {
        **gradtx.flatten_state(W),
        **{name.replace("__", "/"): value for name, value in entries.items()},
    }
    return {name: value for name, value in flat.items() if value is not None}


FIT = "Make `like` with the definition and the parameters that were saved"
CASES: dict[str, tuple[dict[str, Any], Any, str]] = {
    "missing": (changed(head=None), W, f"the checkpoint does not fit: there is no 'head'. {FIT}"),
    "several missing": (
        {},
        W,
        "the checkpoint does not fit: there is no 'dense/kernel' (and 1 more)",
    ),
    "another slot": (
        {"slots/params_ema/ema/w": jnp.ones(1)},
        {"slots": {"trace": {"trace": {"w": jnp.ones(1)}}}},
        f"there is no 'slots/trace/trace/w', and 'slots/params_ema/ema/w' is unexpected. {FIT}",
    ),
    "unexpected": (
        changed(tail=jnp.ones(1)),
        W,
        f"the checkpoint does not fit: 'tail' is unexpected. {FIT}",
    ),
    "renamed": (
        changed(head=None, heads=jnp.ones(1)),
        W,
        f"there is no 'head', and 'heads' is unexpected. {FIT}, or restore what still fits with "
        "missing='init'; if 'heads' is meant for it, pass rename={'heads': 'head'}",
    ),
    "shape": (
        changed(dense__kernel=jnp.ones((3, 2))),
        W,
        "entry 'dense/kernel' has shape (3, 2), expected (2, 3): this state was made "
        "for other parameters",
    ),
    "dtype": (
        changed(head=jnp.ones(3)),
        W,
        "entry 'head' is f32[3], expected bf16[3]: cast the entry of the flat dict, or "
        "make `like` with that dtype",
    ),
    "number": ({"n": np.float32(1.5)}, {"n": 3}, "entry 'n' is f32[], expected a Python int"),
    "key": (
        {"key": jnp.zeros(4, jnp.uint32)},
        {"key": jax.random.key(0)},
        "entry 'key' has shape (4,), expected (2,)",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_does_not_fit_is_told_by_path(name: str) -> None:
    flat, like, text = CASES[name]
    with pytest.raises(StateError) as caught:
        gradtx.restore_state(like, flat)
    assert text in str(caught.value)
    assert ("pass rename=" in str(caught.value)) == (name == "renamed")


def test_what_cannot_be_saved_is_told(tmp_path: Path) -> None:
    with pytest.raises(StructureError, match="two leaves have the same path 'a/b'; rename a key"):
        gradtx.flatten_state({"a/b": 1, "a": {"b": 2}})
    with pytest.raises(
        StructureError,
        match="the leaf at 'name' is a str; a checkpoint holds arrays and Python numbers",
    ):
        gradtx.save(tmp_path / "run.npz", {"name": "a text"})
    with pytest.raises(
        StructureError, match="a leaf has the path '__gradtx__', which save reserves for itself"
    ):
        gradtx.save(tmp_path / "run.npz", {"__gradtx__": 1})
    with pytest.raises(FileNotFoundError):
        gradtx.save(tmp_path / "no folder" / "run.npz", {"w": 1})
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_checkpoints_are_told(tmp_path: Path) -> None:
    file, tree = tmp_path / "run.npz", {"w": jnp.arange(100.0)}
    gradtx.save(file, tree)
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(np.float32(50).tobytes())] ^= 1
    for content in (b"", whole[: len(whole) // 2], whole[:-1], bytes(flipped), b"some text"):
        file.write_bytes(content)
        with pytest.raises(
            StateError,
            match=r"run\.npz' is not a complete checkpoint of gradtx\.save: .*; load an "
            r"earlier one",
        ):
            gradtx.load(file, tree)
    np.savez(file, w=np.arange(100.0))
    with pytest.raises(StateError, match="it has no entry '__gradtx__'"):
        gradtx.load(file, tree)
    with file.open("wb") as opened:
        np.save(opened, np.arange(100.0))
    with pytest.raises(StateError, match="it is not a complete zip archive"):
        gradtx.load(file, tree)
    with pytest.raises(FileNotFoundError):
        gradtx.load(tmp_path / "other.npz", tree)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    gradtx.save(tmp_path / "key", {"key": jax.random.key(0, impl="rbg")})
    with pytest.raises(
        StateError,
        match=r"entry 'key' is a random key key<rbg>, expected key<urbg>\[\]: make `like` "
        r"with keys of that kind",
    ):
        gradtx.load(tmp_path / "key", {"key": jax.random.key(0, impl="unsafe_rbg")})


@pytest.mark.parametrize("broken", ["write", "fsync", "replace"])
def test_a_save_that_fails_leaves_the_last_checkpoint(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.npz"
    gradtx.save(file, {"w": jnp.zeros(3)})

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    if broken == "write":
        monkeypatch.setattr(np.lib.format, "write_array", fail)
    else:
        monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="no space left"):
        gradtx.save(file, {"w": jnp.ones(3)})
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["run.npz"]
    assert gradtx.load(file, {"w": jnp.zeros(3)})["w"].tolist() == [0, 0, 0]


SAVER = """
import sys, numpy as np, gradtx
for step in range(10**6):
    gradtx.save(sys.argv[1], {"step": step, "arrays": [np.full(200_000, step) for _ in range(4)]})
    if step == 0: print("saved", flush=True)
"""


@pytest.mark.parametrize("wait", [0.0, 0.05, 0.151])
def test_a_process_killed_while_it_saves_leaves_a_whole_checkpoint(
    wait: float, tmp_path: Path
) -> None:
    """The saver does nothing but save, so that the signal finds it saving."""
    file = tmp_path / "run.npz"
    child = subprocess.Popen(
        [sys.executable, "-c", SAVER, str(file)], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert child.stdout is not None and child.stdout.readline() == b"saved\n"
    time.sleep(wait)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    found = gradtx.load(file, {"step": 0, "arrays": [np.zeros(200_000, int) for _ in range(4)]})
    assert all((array == found["step"]).all() for array in found["arrays"])
    gradtx.save(file, {"step": -1})
    assert gradtx.load(file, {"step": 0}) == {"step": -1}
