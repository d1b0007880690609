"""Checkpoints: a tree as a dict of named arrays, and as one file that is written atomically."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, SupportsIndex

from gradtx.definition.errors import StateError, StructureError
from gradtx.definition.types import PyTree
from gradtx.interop.archive import check_name, write_file
from gradtx.interop.checkpoint_leaves import (
    check_key,
    check_leaf,
    check_process,
    host_array,
    named_leaves,
    plain_leaf,
    restored_leaf,
)
from gradtx.interop.matching import Names, StateMatch
from gradtx.interop.restoring import Missing, fill_tree, match_entries
from gradtx.interop.runs import Location, delete_older, new_checkpoint, read_checkpoint


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
    return {path: plain_leaf(path, leaf) for path, leaf in named_leaves(state).items()}


def restore_state(
    like: Any,
    flat: Mapping[str, Any],
    *,
    missing: Missing = "error",
    rename: Names | None = None,
) -> Any:
    """Restore a state from the dict of `flatten_state`, bit for bit.

    The result has the structure of `like` and the numbers of `flat`. Each array goes to the devices
    of its counterpart in `like`, if that is sharded or committed to a device. Paths of version 0.2,
    which show the `chain` inside a builder (`slots/chain/scale_by_adam/mu`), are read too.

    A member whose path changed because another one came beside or around it, a clip for example,
    receives its old slots. Where a keyword of `chain` or a label of `partition` has replaced the
    rule's own name, `rename=` says so.

    With `missing="init"`, a definition or model may have changed in any way: a new layer, a removed
    wrapper, another shape. Each leaf whose entry the checkpoint lacks remains as it is in `like`. A
    wrapper that counts the updates of its member begins at the restored count. Python's logger
    `gradtx` lists all of it as a warning, and `match_state` before.

    Args:
      like: a tree of the same structure, shapes and dtypes: a state, or `jax.eval_shape(tx.init,
        params)`, which allocates nothing; with `missing="init"` a state, `tx.init(params)`.
      flat: arrays by path.
      missing: "error": each leaf needs an entry of its shape, and each entry a leaf. "init": leaves
        without one remain as in `like`, and entries without a leaf are dropped.
      rename: by the old segments of a path, the new ones; either may be several, `"opt/adam"`. Each
        is replaced once per path, wherever it is: `{"encoder/dense": "encoder/proj"}` renames the
        layer in every slot, and a new name of "" removes the segments.

    Raises:
      StateError: entries are missing, unexpected, or of another shape or dtype; nothing is cast or
        dropped silently. `rename` matches no entry, or brings two entries to one path.
      GradtxError: `missing` is neither of the two.

    >>> import gradtx, jax, jax.numpy as jnp
    >>> tx, w = gradtx.sgd(0.1, momentum=0.9), jnp.ones(2)
    >>> _, state = tx.update(w, tx.init(w), w)
    >>> flat = gradtx.flatten_state(state)
    >>> again = gradtx.restore_state(jax.eval_shape(tx.init, w), flat)
    >>> again.slots["trace"].trace.tolist(), int(again.count)
    ([1.0, 1.0], 1)
    >>> clipped = gradtx.chain(gradtx.clip_by_global_norm(1.0), tx)
    >>> gradtx.restore_state(clipped.init(w), flat).trace.tolist()
    [1.0, 1.0]

    See also: `flatten_state`, `match_state`, `load`.
    """
    return restored(like, flat, missing, rename)


def match_state(like: Any, flat: Mapping[str, Any], *, rename: Names | None = None) -> StateMatch:
    """List the entries that `restore_state(missing="init")` restores, initializes and drops.

    When: before a run goes on with another definition or model. When not: to restore; nothing is
    restored here.

    Args:
      like: as for `restore_state`.
      flat: arrays by path, or structs of their shapes.
      rename: as for `restore_state`.

    Returns:
      A `StateMatch`: `restored` and `initialized` by path in `like`, `dropped` by path in `flat`.

    Raises:
      StateError: `rename` matches no entry, or brings two entries to one path.

    >>> import gradtx, jax.numpy as jnp
    >>> old = gradtx.flatten_state(gradtx.adam(0.1).init({"a": jnp.ones(2)}))
    >>> new = gradtx.lion(0.1).init({"a": jnp.ones(2)})
    >>> print(gradtx.match_state(new, old, rename={"scale_by_adam": "scale_by_lion"}))
    restored 2, 1 of them from another path:
      slots/scale_by_lion/mu/a <- slots/scale_by_adam/mu/a
    initialized 0:
    dropped 1:
      slots/scale_by_adam/nu/a

    See also: `restore_state`, `load`.
    """
    return match_entries(like, named_leaves(like), flat, "init", rename, quiet=True)


def restored(
    like: Any,
    flat: Mapping[str, Any],
    missing: Missing,
    rename: Names | None,
    dtypes: Mapping[str, str] | None = None,
) -> Any:
    """The arrays of a dict in the structure of `like`; `dtypes` say which were random keys."""
    expected = named_leaves(like)
    match = match_entries(like, expected, flat, missing, rename)
    for path, name in match.restored.items():
        check_key(path, expected[path], (dtypes or {}).get(name, ""))
    leaves = {
        path: restored_leaf(path, expected[path], flat[name])
        for path, name in match.restored.items()
    }
    return fill_tree(like, leaves, expected)


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

    When: one process that holds all arrays. When not: arrays sharded over several hosts, or writes
    that the training must not wait for; use `Checkpointer`.

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
        `ShapeDtypeStruct`, a donated array), or its path cannot name an entry. An array is spread
        over several processes, or a process other than 0 saves.
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
    named = named_leaves(tree)
    for name, leaf in named.items():
        check_name(name)
        check_leaf(name, leaf)
    check_process(named)
    dtypes = {name: str(getattr(leaf, "dtype", "")) for name, leaf in named.items()}
    file = path if step is None else new_checkpoint(path, step, keep)
    # A generator: only one array is on the host at any moment.
    write_file(file, dtypes, ((name, host_array(name, leaf)) for name, leaf in named.items()))
    if step is not None:
        delete_older(path, step, keep)


def load(
    path: Location,
    like: Any,
    *,
    step: SupportsIndex | None = None,
    missing: Missing = "error",
    rename: Names | None = None,
) -> Any:
    """Load a checkpoint of `save`, bit for bit: a file, or the newest one of a folder.

    Files of version 0.2 load too, as for `restore_state`. A damaged file of a folder is passed
    over, with a warning, for the last whole one.

    Args:
      path: the file, or the folder of `save(path, tree, step=...)`.
      like: a tree of the same structure, shapes and dtypes, as for `restore_state`.
      step: the step whose checkpoint of the folder is read; None: the newest.
      missing: "error", or "init" where definition or model have changed, as for `restore_state`.
      rename: by the old segments of a path, the new ones, as for `restore_state`.

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
        return restored(like, arrays, missing, rename, saved)
    except StateError as error:
        if file == Path(path):
            raise
        raise StateError(f"{str(file)!r}: {error}") from None
