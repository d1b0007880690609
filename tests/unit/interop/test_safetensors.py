"""Safetensors files: bit for bit, readable by the library alone, whole at every moment."""

import builtins
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import gradtx
from tests.support.bits import assert_same

PARAMS = {"dense": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.ones(3, jnp.bfloat16)}}
TREES: dict[str, Any] = {
    "a run": {"params": PARAMS, "state": gradtx.adamw(1e-3).init(PARAMS), "step": 7},
    "int8": gradtx.stored(gradtx.adamw(1e-3), "int8").init({"w": jnp.ones((32, 32))}),
    "dtypes": {
        str(np.dtype(dtype)): jnp.arange(4).astype(dtype)
        for dtype in (jnp.bool_, jnp.int4, jnp.uint16, jnp.float8_e4m3fn, jnp.float16, "complex64")
    },
    "keys": {"key": jax.random.key(3), "rbg": jax.random.key(3, impl="rbg")},
    "no elements": {"none": jnp.zeros((0, 2)), "scalar": np.float64(2)},
    "columns first": {"w": np.asfortranarray(np.arange(6.0).reshape(2, 3))},
}


@pytest.mark.parametrize("name", sorted(TREES))
def test_a_tree_returns_bit_for_bit(name: str, tmp_path: Path) -> None:
    gradtx.save_safetensors(tmp_path / "file", TREES[name])
    again = gradtx.load_safetensors(tmp_path / "file", TREES[name])
    assert_same(again, TREES[name])
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_the_library_reads_paths_and_we_read_its_files(tmp_path: Path) -> None:
    gradtx.save_safetensors(tmp_path / "ours", TREES["a run"])
    flat = gradtx.flatten_state(TREES["a run"])
    assert_same(load_file(tmp_path / "ours"), {path: np.asarray(one) for path, one in flat.items()})
    save_file({"model.w": np.ones(2, np.float32)}, tmp_path / "theirs")
    like, rename = {"w": jnp.zeros(2)}, {"model.w": "w"}
    assert gradtx.load_safetensors(tmp_path / "theirs", like, rename=rename)["w"].tolist() == [1, 1]


def test_a_changed_model(tmp_path: Path) -> None:
    gradtx.save_safetensors(tmp_path / "file", PARAMS)
    like = {"dense": PARAMS["dense"], "new": jnp.ones(2)}
    assert_same(gradtx.load_safetensors(tmp_path / "file", like, missing="init"), like)


def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    gradtx.save_safetensors(file, PARAMS)
    with pytest.raises(FileNotFoundError):
        gradtx.load_safetensors(tmp_path / "none", PARAMS)
    with pytest.raises(FileNotFoundError, match=r"save could not write .*; nothing is written"):
        gradtx.save_safetensors(tmp_path / "none" / "file", PARAMS)
    with pytest.raises(gradtx.StateError, match=r"^the checkpoint does not fit: there is no 'w'"):
        gradtx.load_safetensors(file, {"w": jnp.ones(2)})
    key = {"key": jax.random.key(3, impl="rbg")}
    gradtx.save_safetensors(tmp_path / "key", key)
    with pytest.raises(gradtx.StateError, match=r"^entry 'key' is a random key key<rbg>"):
        gradtx.load_safetensors(tmp_path / "key", {"key": jax.random.key(3, impl="unsafe_rbg")})
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(gradtx.StateError, match=r"^'.*file' is not a complete safetensors file: "):
        gradtx.load_safetensors(file, PARAMS)
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("safetensors"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    text = "needs safetensors: install it with pip install gradtx[safetensors]"
    with pytest.raises(gradtx.MissingExtraError, match=rf"^load_safetensors {text[:30]}"):
        gradtx.load_safetensors(file, PARAMS)
    with pytest.raises(gradtx.MissingExtraError) as caught:
        gradtx.save_safetensors(file, PARAMS)
    assert str(caught.value) == f"save_safetensors {text}"
