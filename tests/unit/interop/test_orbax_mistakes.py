"""`Checkpointer` says in one sentence what does not fit, before it reads or writes an array."""

import builtins
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx
from tests.support.places import ROOT
from tests.unit.interop.test_orbax import loaded, mesh, run, saved


def text_of(error: type[Exception], call: Callable[[], Any]) -> str:
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


def test_another_definition_is_refused_by_path(tmp_path: Path) -> None:
    tree = run()
    saved(tmp_path, tree, 1)
    other = tree | {"state": gradtx.sgd(0.1, momentum=0.9).init(tree["params"])}
    assert text_of(gradtx.StateError, lambda: loaded(tmp_path, other)).startswith(
        "the checkpoint does not fit: there is no 'state/slots/trace/trace/bias' (and 1 more), and "
        "'state/slots/adamw/scale_by_adam/mu/bias' (and 3 more) is unexpected. Make `like`"
    )
    shape = tree["params"] | {"bias": jnp.ones(4, jnp.bfloat16)}
    assert text_of(gradtx.StateError, lambda: loaded(tmp_path, tree | {"params": shape})) == (
        "entry 'params/bias' has shape (16,), expected (4,): this state was made for other "
        "parameters"
    )


def test_a_mesh_that_cannot_hold_an_array_is_named(tmp_path: Path) -> None:
    saved(tmp_path, {"w": jnp.ones((6, 4))}, 1)
    text = text_of(
        gradtx.StateError,
        lambda: loaded(
            tmp_path, {"w": jnp.ones((6, 4))}, shardings=NamedSharding(mesh(4), P("data"))
        ),
    )
    assert text == (
        "entry 'w' of shape (6, 4) cannot be cut by P('data',) over the mesh (data=4): pass "
        "shardings= whose axes divide the shape, or leave the array whole with PartitionSpec()"
    )


def test_a_sharding_of_no_leaf_is_named(tmp_path: Path) -> None:
    saved(tmp_path, {"weight": jnp.ones(4)}, 1)
    shardings = {"wieght": NamedSharding(mesh(4), P())}
    assert text_of(
        gradtx.StructureError,
        lambda: loaded(tmp_path, {"weight": jnp.ones(4)}, shardings=shardings),
    ) == (
        "load: shardings have the path 'wieght', and `like` has not; did you mean 'weight'?"
    )  # fmt: skip


def test_another_version_is_named(tmp_path: Path) -> None:
    saved(tmp_path, {"w": jnp.ones(4)}, 1)
    file = tmp_path / "1" / "default" / "_METADATA"
    metadata = json.loads(file.read_text())
    metadata["custom_metadata"]["gradtx"]["format"] = 99
    file.write_text(json.dumps(metadata))
    assert text_of(gradtx.StateError, lambda: loaded(tmp_path, {"w": jnp.ones(4)})) == (
        f"step 1 of '{tmp_path}': its format is 99, this version reads 1: read it with the version "
        f"of gradtx that wrote it"
    )


def test_keys_of_another_kind_are_refused(tmp_path: Path) -> None:
    saved(tmp_path, {"key": jax.random.key(0, impl="rbg")}, 1)
    like = {"key": jax.random.key(0, impl="unsafe_rbg")}
    assert text_of(gradtx.StateError, lambda: loaded(tmp_path, like)).startswith(
        "entry 'key' is a random key key<rbg>, expected "
    )


def test_steps_that_are_none(tmp_path: Path) -> None:
    like = {"w": jnp.ones(4)}
    assert text_of(FileNotFoundError, lambda: loaded(tmp_path / "none", like)) == (
        f"[Errno 2] load: the folder '{tmp_path}/none' has no complete step; a first run starts "
        f"without load, if checkpointer.latest_step() is None"
    )
    saved(tmp_path, like, 1, 2)
    assert text_of(FileNotFoundError, lambda: loaded(tmp_path, like, step=7)) == (
        f"[Errno 2] load: '{tmp_path}' has no step 7; its steps are 1, 2"
    )
    assert text_of(gradtx.StateError, lambda: saved(tmp_path, like, 2)) == (
        f"save: '{tmp_path}' has step 2, and step 2 is not later: load it and go on, delete it, or "
        f"save into another folder"
    )
    assert text_of(gradtx.GradtxError, lambda: saved(tmp_path, like, -1)) == (
        "save: step = -1 must be a whole number from 0 on"
    )
    assert text_of(gradtx.GradtxError, lambda: gradtx.Checkpointer(tmp_path, keep=0)) == (
        "Checkpointer: keep = 0 must be a whole number from 1 on"
    )


def test_leaves_that_cannot_be_saved(tmp_path: Path) -> None:
    x = jnp.ones(3)
    jax.jit(lambda x: x + 1, donate_argnums=0)(x)
    assert text_of(gradtx.StructureError, lambda: saved(tmp_path, {"w": x}, 1)) == (
        "save: the array at 'w' was donated and has no numbers: save it before the step that "
        "receives it"
    )
    assert text_of(gradtx.StructureError, lambda: saved(tmp_path, {"w": "text"}, 1)).startswith(
        "the leaf at 'w' is a str"
    )
    assert gradtx.Checkpointer(tmp_path).steps() == []


def test_without_orbax_the_error_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("orbax"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert text_of(gradtx.MissingExtraError, lambda: gradtx.Checkpointer(tmp_path)) == (
        "Checkpointer needs orbax-checkpoint: install it with pip install gradtx[orbax]"
    )


def test_orbax_is_not_imported_before_it_is_used() -> None:
    code = "import sys, gradtx; gradtx.save, gradtx.adamw; print('orbax' in sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert out.stdout.strip() == "False"
