"""Checkpoints as safetensors files: named arrays that other libraries read without pickle."""

import json
from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np

from gradtx.definition.errors import MissingExtraError, StateError
from gradtx.definition.types import PyTree
from gradtx.interop.archive import raw_bits, replace_file, typed_array
from gradtx.interop.checkpoint_leaves import check_leaf, check_process, host_array, named_leaves
from gradtx.interop.checkpoints import restored
from gradtx.interop.matching import Names
from gradtx.interop.restoring import Missing

MARK = "gradtx"
"""The entry of a file's metadata with the dtypes that the format has no name for."""


def save_safetensors(path: str | PathLike[str], tree: PyTree) -> None:
    """Save a tree of arrays as a safetensors file, atomically.

    Each array is stored under its path, as `flatten_state` names it. Dtypes that the format's
    reader for NumPy lacks (float8, int4) are stored as raw bits, and random keys as key data.

    When: weights or states for another library, a hub or a server. When not: a run that resumes;
    `save` numbers its files and keeps the last ones, and `Checkpointer` writes asynchronously.

    Args:
      path: the file; an existing one is replaced. `.safetensors` is customary, and not added.
      tree: arrays and Python numbers, for example `params` or `{"params": params, "state": state}`.

    Raises:
      MissingExtraError: safetensors is not installed.
      StructureError: two leaves have the same path, or a leaf holds no numbers.
      OSError: the folder does not exist or is read-only, or the disk is full; the old file does
        not change.

    >>> import gradtx, jax.numpy as jnp, pathlib, tempfile
    >>> from gradtx.interop.safetensors import load_safetensors, save_safetensors
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "weights.safetensors"
    >>> save_safetensors(file, {"dense": {"kernel": jnp.arange(3.0)}})
    >>> load_safetensors(file, {"dense": {"kernel": jnp.zeros(3)}})
    {'dense': {'kernel': Array([0., 1., 2.], dtype=float32)}}

    See also: `load_safetensors`, `save`, `flatten_state`.
    """
    library = _import_safetensors("save_safetensors")
    named = named_leaves(tree)
    for name, leaf in named.items():
        check_leaf(name, leaf)
    check_process(named)
    arrays = {name: host_array(name, leaf) for name, leaf in named.items()}
    kinds = {name: str(leaf.dtype) for name, leaf in named.items() if hasattr(leaf, "dtype")}
    foreign = {name: kind for name, kind in kinds.items() if kind != _plain_name(arrays[name])}
    # The library writes the memory as it is: an array must lie in the order of its rows.
    plain = {name: np.asarray(_portable(array), order="C") for name, array in arrays.items()}
    metadata = {MARK: json.dumps({"dtypes": foreign})}
    replace_file(path, lambda file: library.save_file(plain, file.name, metadata=metadata))


def load_safetensors(
    path: str | PathLike[str],
    like: Any,
    *,
    missing: Missing = "error",
    rename: Names | None = None,
) -> Any:
    """Load a safetensors file into the structure of `like`, bit for bit.

    Files of other libraries are read too; `rename` brings their names to paths.

    Args:
      path: the file.
      like: a tree of the same structure, shapes and dtypes, as for `restore_state`.
      missing: "error", or "init" where definition or model have changed, as for `restore_state`.
      rename: by the old segments of a path, the new ones, as for `restore_state`.

    Raises:
      MissingExtraError: safetensors is not installed.
      FileNotFoundError: the file does not exist.
      StateError: the file is damaged, or does not fit `like`; the error names the path.

    >>> import gradtx, jax.numpy as jnp, numpy as np, pathlib, tempfile
    >>> from gradtx.interop.safetensors import load_safetensors, save_safetensors
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "other.safetensors"
    >>> save_safetensors(file, {"fc.weight": np.ones(2, np.float32)})
    >>> load_safetensors(file, {"fc": {"w": jnp.zeros(2)}}, rename={"fc.weight": "fc/w"})
    {'fc': {'w': Array([1., 1.], dtype=float32)}}

    See also: `save_safetensors`, `load`, `restore_state`.
    """
    library = _import_safetensors("load_safetensors")
    with open(path, "rb"):  # the system's error where the file does not exist
        pass
    try:
        flat, dtypes = _read(library, path)
    # The library has one class for every fault of a file, and NumPy others.
    except Exception as error:
        raise StateError(
            f"{str(path)!r} is not a complete safetensors file: {str(error).rstrip('.')}; load "
            f"another one"
        ) from None
    return restored(like, flat, missing, rename, dtypes)


def _read(
    library: Any, path: str | PathLike[str]
) -> tuple[dict[str, np.ndarray], Mapping[str, str]]:
    """The arrays of a file in their original dtypes, and the dtypes that the file names."""
    from safetensors import safe_open  # pyright: ignore  # its types are in Rust

    with safe_open(path, "numpy") as file:
        metadata = file.metadata() or {}
    dtypes = json.loads(metadata.get(MARK, '{"dtypes": {}}'))["dtypes"]
    arrays = library.load_file(path)
    return {
        name: typed_array(name, array, dtypes.get(name, "")) for name, array in arrays.items()
    }, dtypes


def _portable(array: np.ndarray) -> np.ndarray:
    """An array in a dtype of the format: bfloat16 is one, other foreign dtypes are raw bits."""
    return array if array.dtype.name == "bfloat16" else raw_bits(array)


def _plain_name(array: np.ndarray) -> str:
    return str(_portable(array).dtype)


def _import_safetensors(call: str) -> Any:
    try:
        import safetensors.numpy  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingExtraError(
            f"{call} needs safetensors: install it with pip install gradtx[safetensors]"
        ) from None
    return safetensors.numpy
