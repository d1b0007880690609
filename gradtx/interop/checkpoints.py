"""Checkpoints: a tree as a dict of named arrays, and as one file that is written atomically."""

import difflib
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradtx.definition.errors import StateError, StructureError
from gradtx.definition.show import show_array, show_type
from gradtx.definition.types import PyTree
from gradtx.interop.archive import check_name, is_number_dtype, write_file
from gradtx.interop.migrations import migrate
from gradtx.interop.runs import Location, delete_older, new_checkpoint, read_checkpoint
from gradtx.tree.paths import path_text, repeated

KEYS = ("threefry2x32", "rbg", "unsafe_rbg")
"""The kinds of random keys in JAX."""


def flatten_state(state: Any) -> dict[str, Any]:
    """Flatten a state into a dict from path to array.

    A path is for example `slots/scale_by_adam/mu/dense/kernel`. The function works on parameters
    and any other tree of arrays. The arrays are those of the tree, not copies. A random key becomes
    its key data, and a Python number an array. None has no entry, for example the slots of a masked
    leaf.

    When: checkpoints of another library (safetensors, Orbax, a database), inspection of a state, or
    moving slots between definitions whose members have other names. When not: one process that
    writes one file; use `save`.

    Args:
      state: a state, or any tree of arrays.

    Returns:
      A dict from path to array, in the order of the leaves.

    Raises:
      StructureError: two leaves have the same path.

    >>> import gradtx, jax.numpy as jnp
    >>> state = gradtx.adamw(1e-3).init({"dense": {"kernel": jnp.ones((2, 3))}})
    >>> for name, array in gradtx.flatten_state(state).items():
    ...     print(name, array.shape)
    count ()
    slots/scale_by_adam/mu/dense/kernel (2, 3)
    slots/scale_by_adam/nu/dense/kernel (2, 3)

    See also: `restore_state`, `save`.
    """
    return {path: _plain(path, leaf) for path, leaf in _named(state).items()}


def restore_state(like: Any, flat: Mapping[str, Any]) -> Any:
    """Restore a state from the dict of `flatten_state`, bit for bit.

    The result has the structure of `like` and the numbers of `flat`. Each array goes to the devices
    of its counterpart in `like`, if that is sharded or committed to a device. Paths of version 0.2,
    which show the `chain` inside a builder (`slots/chain/scale_by_adam/mu`), are read too.

    Args:
      like: a tree of the same structure, shapes and dtypes: a state, or `jax.eval_shape(tx.init,
        params)`, which allocates nothing.
      flat: arrays by path.

    Raises:
      StateError: entries are missing, unexpected, or of another shape or dtype; nothing is cast or
        dropped silently.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> tx, w = gradtx.sgd(0.1, momentum=0.9), jnp.ones(2)
    >>> _, state = tx.update(w, tx.init(w), w)
    >>> flat = gradtx.flatten_state(state)
    >>> again = gradtx.restore_state(jax.eval_shape(tx.init, w), flat)
    >>> again.slots["trace"].trace.tolist(), int(again.count)
    ([1.0, 1.0], 1)

    See also: `flatten_state`, `load`.
    """
    expected = _named(like)
    flat = migrate(flat, expected.keys())
    _check_names(list(expected), list(flat))
    leaves = [_restored(path, leaf, flat[path]) for path, leaf in expected.items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def save(
    path: Location, tree: PyTree, *, step: SupportsIndex | None = None, keep: int | None = 3
) -> None:
    """Save a checkpoint: write a tree of arrays into one file, atomically.

    With `step`, the path is the folder of a run: the file is `step_1000.npz` in it, and the last
    `keep` checkpoints stay. Older ones are deleted when the new one is whole; `load(path, like)`
    takes the newest.

    At every moment the file is complete, either the old or the new one. `save` writes it under
    another name in the same folder, `.NAME.xxxxxxxx.tmp`, forces it to the disk, and renames it. If
    the process is killed meanwhile, the last checkpoint does not change, and at most such a file
    remains, which you may delete.

    The file is an uncompressed `.npz` with one entry per path, as `flatten_state` names them. It
    stores bfloat16 and other dtypes that NumPy lacks as raw bits, and random keys as key data. None
    has no entry.

    When: one process that holds all arrays. When not: arrays sharded over several hosts; use Orbax.

    Args:
      path: the file; an existing one is replaced. `.npz` is customary, and not added. With `step`,
        a folder, which is made where it does not exist.
      tree: for example `{"params": params, "state": state, "step": 100}`; Python numbers stay
        Python numbers.
      step: the number of the step, 0 or more; None: the path is a file.
      keep: the number of checkpoints to keep, 1 or more, of those with a step; None: all.

    Raises:
      StateError: the folder has a later step, of another run for example.
      StructureError: two leaves have the same path, a leaf holds no numbers (a text, an object, a
        `ShapeDtypeStruct`, a donated array), or its path cannot name an entry.
      OSError: the folder does not exist or is read-only, or the disk is full; the old file does
        not change.
      GradtxError: a step or `keep` is not a whole number in its range.

    >>> import gradtx, jax.numpy as jnp, tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "run.npz"
    >>> tree = {"params": {"w": jnp.array([1.0, 2.5], jnp.bfloat16)}, "step": 7}
    >>> gradtx.save(file, tree)
    >>> gradtx.load(file, tree)
    {'params': {'w': Array([1, 2.5], dtype=bfloat16)}, 'step': 7}
    >>> folder = file.parent / "run"
    >>> for step in (100, 200, 300):
    ...     gradtx.save(folder, {"w": jnp.full(2, step)}, step=step, keep=2)
    >>> sorted(one.name for one in folder.iterdir())
    ['step_200.npz', 'step_300.npz']

    See also: `load`, `latest_step`, `flatten_state`.
    """
    if isinstance(tree, str | PathLike):
        raise StructureError(
            f"save: the tree is the path {str(tree)!r}: the arguments are swapped, write "
            f"save(path, tree)"
        )
    named = _named(tree)
    for name, leaf in named.items():
        check_name(name)
        _check_leaf(name, leaf)
    dtypes = {name: str(getattr(leaf, "dtype", "")) for name, leaf in named.items()}
    file = path if step is None else new_checkpoint(path, step, keep)
    # A generator: only one array is on the host at any moment.
    write_file(file, dtypes, ((name, _on_host(name, leaf)) for name, leaf in named.items()))
    if step is not None:
        delete_older(path, step, keep)


def load(path: Location, like: Any, *, step: SupportsIndex | None = None) -> Any:
    """Load a checkpoint of `save`, bit for bit: a file, or the newest one of a folder.

    Files of version 0.2 load too, as for `restore_state`. A damaged file of a folder is passed
    over, with a warning, for the last whole one.

    Args:
      path: the file, or the folder of `save(path, tree, step=...)`.
      like: a tree of the same structure, shapes and dtypes, as for `restore_state`.
      step: the step whose checkpoint of the folder is read; None: the newest.

    Raises:
      FileNotFoundError: there is no such file, folder or step.
      StateError: `save` did not write it, it is damaged, or it does not fit `like`; the error names
        the path.

    >>> import gradtx, jax, jax.numpy as jnp, tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "run.npz"
    >>> tx, params = gradtx.adam(0.1), {"w": jnp.ones(3)}
    >>> gradtx.save(file, {"params": params, "state": tx.init(params)})
    >>> run = gradtx.load(file, {"params": params, "state": jax.eval_shape(tx.init, params)})
    >>> int(run["state"].count), run["params"]["w"].tolist()
    (0, [1.0, 1.0, 1.0])

    See also: `save`, `latest_step`, `restore_state`.
    """
    file, saved, arrays = read_checkpoint(path, step)
    try:
        return _fitted(like, saved, arrays)
    except StateError as error:
        if file == Path(path):
            raise
        raise StateError(f"{str(file)!r}: {error}") from None


def _fitted(like: Any, saved: Mapping[str, str], arrays: Mapping[str, Any]) -> Any:
    """The arrays of a file in the structure of `like`."""
    expected = _named(like)
    dtypes, flat = migrate(saved, expected.keys()), migrate(arrays, expected.keys())
    for name, leaf in expected.items():
        dtype = dtypes.get(name, "")
        # Kinds of keys may share one shape of key data, so that only the dtype tells them apart.
        if dtype.startswith("key<") and name in flat and dtype != str(getattr(leaf, "dtype", "")):
            raise StateError(
                f"entry {name!r} is a random key {dtype}, expected {_shown(leaf)}: make `like` "
                "with keys of that kind"
            )
    return restore_state(like, flat)


def _named(tree: PyTree) -> dict[str, Any]:
    """Every leaf of a tree by its path."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    named = [(path_text(path), leaf) for path, leaf in leaves]
    if (twice := repeated(tuple(path for path, _ in named))) is not None:
        raise StructureError(
            f"two leaves have the same path {twice!r}; rename a key, so that every path is unique"
        )
    return dict(named)


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(path: str, leaf: Any) -> Any:
    """A leaf as an ordinary array."""
    _check_leaf(path, leaf, abstract=True)
    if _is_key(leaf):
        return jax.random.key_data(leaf)
    return leaf if hasattr(leaf, "dtype") else np.asarray(leaf)


def _check_leaf(path: str, leaf: Any, abstract: bool = False) -> None:
    """Raise where a leaf is neither an array of numbers nor a Python number."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        if not abstract:
            raise StructureError(
                f"the leaf at {path!r} is a ShapeDtypeStruct, which has no numbers: save the tree "
                "of arrays, and pass the structs to load as `like`"
            )
    elif isinstance(leaf, Tracer):
        if not abstract:
            raise StructureError(
                f"the leaf at {path!r} is traced: call save outside of jit, grad, vmap and scan"
            )
    elif not _is_number(leaf):
        raise StructureError(
            f"the leaf at {path!r} is {_described(leaf)}; a checkpoint holds arrays and Python "
            "numbers"
        )


def _is_number(leaf: Any) -> bool:
    if not hasattr(leaf, "dtype"):
        # A subclass, an Enum for example, would come back as a plain number.
        return type(leaf) in (bool, int, float, complex) and not np.asarray(leaf).dtype.hasobject
    return _is_key(leaf) or is_number_dtype(np.dtype(leaf.dtype))


def _described(leaf: Any) -> str:
    if type(leaf) is int:
        return "a Python int of more than 64 bits"
    dtype = getattr(leaf, "dtype", None)
    return show_type(leaf) + (f" of dtype {dtype}" if dtype is not None else "")


def _on_host(path: str, leaf: Any) -> np.ndarray:
    try:
        return np.asarray(_plain(path, leaf))
    except RuntimeError as error:
        raise StructureError(
            f"the array at {path!r} cannot be read: {str(error).rstrip('.')}; save an array before "
            "it is donated, and one that is spread over hosts with Orbax"
        ) from None


def _check_names(expected: Sequence[str], names: Sequence[str]) -> None:
    """Raise where entries are missing or unexpected."""
    missing = [name for name in expected if name not in set(names)]
    unexpected = [name for name in names if name not in set(expected)]
    if not missing and not unexpected:
        return
    parts = [f"there is no {_first(missing)}"] if missing else []
    parts += [f"{_first(unexpected)} is unexpected"] if unexpected else []
    near = _nearest(missing[0], unexpected) if missing else None
    advice = f"; if {near!r} is meant for it, rename the entry of the flat dict" if near else ""
    raise StateError(
        f"the checkpoint does not fit: {', and '.join(parts)}. Make `like` with the definition and "
        f"the parameters that were saved{advice}"
    )


def _nearest(name: str, others: Sequence[str]) -> str | None:
    """The entry that a new name replaced, probably; None where no name is similar.

    Folders and leaves that two names share say nothing about the part that differs.
    """
    near = difflib.get_close_matches(name, others, n=1, cutoff=0.0)
    if not near:
        return None
    ours, theirs = name.split("/"), near[0].split("/")
    for _ in range(2):  # the leading names, then the trailing ones
        while ours and theirs and ours[0] == theirs[0]:
            ours, theirs = ours[1:], theirs[1:]
        ours, theirs = ours[::-1], theirs[::-1]
    ratio = difflib.SequenceMatcher(None, "/".join(ours), "/".join(theirs)).ratio()
    return near[0] if ratio >= 0.5 or not ours or not theirs else None


def _first(names: Sequence[str]) -> str:
    more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    return f"{names[0]!r}{more}"


def _restored(path: str, like: Any, value: Any) -> Any:
    """Check one leaf, and move it to the devices of its counterpart."""
    if not hasattr(like, "dtype"):
        return _number(path, like, value)
    value = value if hasattr(value, "dtype") else np.asarray(value)
    expected = jax.eval_shape(jax.random.key_data, like) if _is_key(like) else like
    if value.shape != expected.shape:
        shapes = f"{tuple(value.shape)}, expected {tuple(expected.shape)}"
        raise StateError(
            f"entry {path!r} has shape {shapes}: this state was made for other parameters"
        )
    if value.dtype != expected.dtype:
        raise StateError(
            f"entry {path!r} is {show_array(value)}, expected {show_array(expected)}: cast the "
            "entry of the flat dict, or make `like` with that dtype"
        )
    if isinstance(like, np.ndarray | np.generic):
        return np.array(value)
    # A copy, so that the arrays of the dict may change afterwards.
    array = value if isinstance(value, jax.Array) else jnp.array(value)
    array = jax.random.wrap_key_data(array, impl=_impl(like)) if _is_key(like) else array
    return _placed(array, like)


def _number(path: str, like: Any, value: Any) -> Any:
    array = np.asarray(value)
    if array.shape or type(array.item()) is not type(like):
        raise StateError(
            f"entry {path!r} is {_shown(array)}, expected a Python {type(like).__name__}"
        )
    return array.item()


def _placed(value: jax.Array, like: Any) -> jax.Array:
    sharding = getattr(like, "sharding", None)
    # An uncommitted array has no devices of its own choice: JAX may move it.
    if sharding is None or not getattr(like, "committed", True):
        return value
    return jax.device_put(value, sharding)


def _impl(like: Any) -> str:
    return next(
        name
        for name in KEYS
        if jax.eval_shape(lambda name=name: jax.random.key(0, impl=name)).dtype == like.dtype
    )


def _shown(leaf: Any) -> str:
    return show_array(leaf) if hasattr(leaf, "dtype") else f"a Python {type(leaf).__name__}"
