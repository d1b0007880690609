"""Checkpoints of Orbax: asynchronous, of arrays cut over many hosts, restored onto another mesh."""

import errno
import os
import secrets
import warnings
from typing import Any, Self, SupportsIndex

import jax
import numpy as np

from gradtx.definition.errors import GradtxError, MissingExtraError, StateError
from gradtx.definition.types import PyTree
from gradtx.interop.agreement import all_agree, check_agreement
from gradtx.interop.checkpoint_leaves import named_leaves
from gradtx.interop.matching import Names
from gradtx.interop.orbax_entries import (
    Plan,
    Saved,
    checked_plan,
    entries_of,
    leaves_of,
    local_counts,
    restored_tree,
    saved_entries,
    target_shardings,
)
from gradtx.interop.restoring import Missing, fill_tree, match_entries
from gradtx.interop.runs import Location, whole_number
from gradtx.tree.paths import path_text

ITEM = "default"
"""The folder of the arrays within that of a step, as `CheckpointManager` names it."""
NO_DAMAGE = (GradtxError, MemoryError, NameError, ImportError, jax.errors.JaxRuntimeError)
"""Errors that say nothing of the files; Orbax and TensorStore raise any other class, bare
`Exception` included, where files are missing or damaged.
"""


class Checkpointer:
    """Save and restore sharded checkpoints with Orbax, asynchronously and on many hosts.

    `save` returns once the arrays are copied to the host; a thread writes them while the training
    continues. A step that is complete is a folder `1000`, in which every array has its path as
    name: `ocp.CheckpointManager(folder).restore(1000)` reads it without gradtx. Of the steps that
    are complete, the last `keep` stay. A process that is killed while it writes leaves the step
    before, and `load` takes the newest whole one.

    Arrays may be cut over any mesh, of one process or many. `load` restores them onto another mesh,
    another number of devices or hosts: `like` says where each array goes, or `shardings`.

    When: several hosts, large states, or writes that the training must not wait for. When not: one
    process and a small model; `gradtx.save` writes one file that NumPy reads.

    On several processes each one makes a `Checkpointer` of the same folder, which all of them can
    read and write, and calls the same methods. An array that a process holds by itself is saved
    from process 0; whole numbers of that kind, the count of a state for example, must agree.

    Args:
      folder: the folder of the run, which `save` makes where it does not exist. Orbax takes
        addresses of cloud storage too, `gs://bucket/run`.
      keep: the number of steps to keep, 1 or more; None: all.

    Raises:
      MissingExtraError: orbax-checkpoint is not installed.
      GradtxError: `keep` is not a whole number of 1 or more.

    >>> import gradtx, jax, jax.numpy as jnp, tempfile
    >>> tx, params = gradtx.adam(0.1), {"w": jnp.arange(3.0)}
    >>> run = {"params": params, "state": tx.init(params)}
    >>> folder = tempfile.mkdtemp()
    >>> with gradtx.Checkpointer(folder, keep=2) as checkpointer:
    ...     for step in (100, 200, 300):
    ...         checkpointer.save(run, step=step)
    ...     checkpointer.wait()
    ...     print(checkpointer.steps())
    ...     again = checkpointer.load(jax.eval_shape(lambda: run))
    [200, 300]
    >>> again["params"]["w"].tolist(), int(again["state"].count)
    ([0.0, 1.0, 2.0], 0)

    See also: `save`, `load`, `restore_state`.
    """

    def __init__(self, folder: Location, *, keep: int | None = 3):
        self._orbax: Any = _import_orbax()
        self._folder = _absolute(folder)
        self._keep = None if keep is None else whole_number("Checkpointer", "keep", keep, 1)
        self._manager: Any = None

    def __repr__(self) -> str:
        return f"Checkpointer({self._folder!r}, keep={self._keep})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def save(self, tree: PyTree, *, step: SupportsIndex) -> None:
        """Begin to save a tree of arrays; the training may donate them at once.

        Waits for the write before, if that still runs, and raises what went wrong in it.

        Args:
          tree: for example `{"params": params, "state": state}`; Python numbers stay numbers.
          step: the number of the step, 0 or more, later than those in the folder.

        Raises:
          StateError: the folder has this step or a later one; processes disagree about the step or
            a count.
          StructureError: a leaf holds no numbers, or was donated.
          GradtxError: the step is not a whole number of 0 or more.
        """
        number = whole_number("save", "step", step, 0)
        arrays, metadata = entries_of(tree)
        # Before anything is written: later each process would wait for the others in vain.
        counts = {repr(path): value for path, value in local_counts(tree).items()}
        cure = "restore every process from one checkpoint, and save after the same step on each"
        check_agreement("save", {"the step": number, **counts}, cure)
        self._check_later(number)
        args = self._orbax.args.PyTreeSave(arrays, custom_metadata=metadata)
        self._writer().save(number, args=args)

    def _check_later(self, number: int) -> None:
        """Raise where a whole step of this number or a later one exists; rename damaged ones."""
        for later in [one for one in self.steps() if one >= number]:
            if all_agree(self._is_whole(later)):
                raise StateError(
                    f"save: {self._folder!r} has step {later}, and step {number} is not later: "
                    f"load it and go on, delete it, or save into another folder"
                )
            self._set_aside(later)

    def _set_aside(self, number: int) -> None:
        """Rename a damaged step: it is in the way, and only the user may delete it."""
        if jax.process_index() == 0:
            folder = self._path(number)
            folder.rename(folder.with_name(f"{number}.damaged-{secrets.token_hex(4)}"))
        all_agree(True)  # the others wait
        if self._manager is not None:
            self._manager.reload()

    def _is_whole(self, number: int) -> bool:
        """Whether every array of a step can be read; only a step in the way is asked for."""
        try:
            saved = self._saved(number)
            whole = {name: name for name in saved.structs}
            self._read(number, Plan(saved, whole, saved.structs, {}))
        except NO_DAMAGE:
            raise
        except Exception:
            return False
        return True

    def _writer(self) -> Any:
        """Orbax's manager of the folder, made at the first save: readers change nothing there."""
        if self._manager is None:
            options = self._orbax.CheckpointManagerOptions(
                max_to_keep=self._keep, create=True, cleanup_tmp_directories=True
            )
            self._manager = self._orbax.CheckpointManager(self._folder, options=options)
        return self._manager

    def wait(self) -> None:
        """Wait until everything is written; raise what went wrong meanwhile."""
        if self._manager is not None:
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait, and end the threads; `with Checkpointer(...)` does it."""
        if self._manager is not None:
            self._manager.close()
            self._manager = None

    def steps(self) -> list[int]:
        """The steps that are complete, in order."""
        if "://" not in self._folder and not os.path.isdir(self._folder):
            return []
        return sorted(self._orbax.utils.checkpoint_steps(self._folder))

    def latest_step(self) -> int | None:
        """The newest step that is complete, to resume a run; None without one."""
        return max(self.steps(), default=None)

    def load(
        self,
        like: Any,
        *,
        step: SupportsIndex | None = None,
        shardings: Any = None,
        missing: Missing = "error",
        rename: Names | None = None,
    ) -> Any:
        """Restore the newest whole step, bit for bit, onto the devices that are asked for.

        A checkpoint that plain Orbax wrote of such a tree is read too. A damaged step is passed
        over, with a warning, for the last whole one.

        Args:
          like: a tree of the same structure, shapes and dtypes: arrays or structs, for example
            `jax.eval_shape(tx.init, params)`. A leaf with a sharding says where its array goes.
          step: the step to read; None: the newest.
          shardings: a tree of shardings like `like`, for example that of `state_shardings`, or for
            whole folders of it: `{"params": sharding}`; None, or no sharding for a leaf: its own.
          missing: "error", or "init" where definition or model have changed, as for
            `restore_state`.
          rename: by the old segments of a path, the new ones, as for `restore_state`.

        Raises:
          FileNotFoundError: the folder has no step, or not this one.
          StateError: the step is damaged or of another version, or does not fit `like`; a mesh
            cannot hold an array; processes see different steps.
          StructureError: a path of `shardings` is not in `like`.
        """
        self.wait()
        expected = named_leaves(like)
        targets = target_shardings(expected, shardings)
        damaged = None
        for number in self._candidates(step):
            saved, error = self._attempt(lambda n=number: self._saved(n))
            values = None
            if saved is not None:
                match = match_entries(like, expected, saved.structs, missing, rename)
                plan = checked_plan(saved, match, expected, targets)
                values, error = self._attempt(lambda n=number, plan=plan: self._read(n, plan))
            if values is not None:
                return fill_tree(like, values, expected)
            damaged = damaged or self._damaged(number, error)
            if step is None:
                text = str(self._damaged(number, error)).partition("; load an earlier one")[0]
                warnings.warn(f"load: {text}; an earlier one is read", stacklevel=2)
        raise damaged or _no_step(self._folder, step, self.steps())

    def _candidates(self, step: SupportsIndex | None) -> list[int]:
        """The steps to try, the newest first; every process has the same ones."""
        steps = self.steps()
        number = -1 if step is None else whole_number("load", "step", step, 0)
        cure = "give all the folder of one filesystem that they share, and one step="
        latest = {"the newest step": max(steps, default=-1), "step=": number}
        check_agreement("load", latest, cure)
        if step is None:
            return sorted(steps, reverse=True)
        return [number] if number in steps else []

    def _attempt(self, read: Any) -> tuple[Any, Exception | None]:
        """The result of a read, or None where it failed on this process or another."""
        try:
            result, error = read(), None
        except NO_DAMAGE:
            raise
        except Exception as damage:
            result, error = None, damage
        return (result if all_agree(error is None) else None), error

    def _damaged(self, number: int, error: Exception | None) -> StateError:
        reason = "another process cannot read it"
        if error is not None:
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
        return StateError(
            f"step {number} of {self._folder!r} is not a whole checkpoint ({reason}); load an "
            f"earlier one with step="
        )

    def _saved(self, number: int) -> Saved:
        """The entries of a step; nothing but metadata is read."""
        metadata = self._handler().metadata(self._item(number))
        try:
            return saved_entries(metadata.tree, metadata.custom_metadata)
        except StateError as error:
            raise StateError(f"step {number} of {self._folder!r}: {error}") from None

    def _read(self, number: int, plan: Plan) -> dict[str, Any]:
        """The leaves of a step by path; every process reads its own parts alone."""
        tree = restored_tree(plan)
        args = self._orbax.args.PyTreeRestore(
            jax.tree.map(lambda _: 0, tree),
            restore_args=jax.tree_util.tree_map_with_path(
                lambda path, _: self._restore_args(path_text(path), plan), tree
            ),
            partial_restore=True,
        )
        return leaves_of(plan, self._handler().restore(self._item(number), args=args))

    def _restore_args(self, name: str, plan: Plan) -> Any:
        """How Orbax restores one entry: in parts onto a mesh, or whole on each host."""
        sharding = plan.sharding(name)
        if sharding is None:
            return self._orbax.RestoreArgs(restore_type=np.ndarray)
        struct = plan.saved.structs[name]
        return self._orbax.ArrayRestoreArgs(
            sharding=sharding, global_shape=struct.shape, dtype=struct.dtype
        )

    def _handler(self) -> Any:
        # Without a manager around it: that one would wait for processes whose read has failed.
        return self._orbax.PyTreeCheckpointHandler()

    def _item(self, number: int) -> Any:
        """The folder of the arrays of a step."""
        return self._path(number) / ITEM

    def _path(self, number: int) -> Any:
        """The folder of a step, as a path of Orbax's kind."""
        from etils import epath  # which Orbax requires

        return epath.Path(self._folder) / str(number)


def _import_orbax() -> Any:
    try:
        import orbax.checkpoint
    except ImportError:
        raise MissingExtraError(
            "Checkpointer needs orbax-checkpoint: install it with pip install gradtx[orbax]"
        ) from None
    return orbax.checkpoint


def _absolute(folder: Location) -> str:
    """The folder as Orbax requires it: absolute, or the address of a bucket."""
    text = os.fspath(folder)
    return text if "://" in text else os.path.abspath(text)


def _no_step(folder: str, step: SupportsIndex | None, steps: list[int]) -> FileNotFoundError:
    if steps:
        text = f"load: {folder!r} has no step {step}; its steps are {', '.join(map(str, steps))}"
    else:
        text = (
            f"load: the folder {folder!r} has no complete step; a first run starts without load, "
            f"if checkpointer.latest_step() is None"
        )
    return FileNotFoundError(errno.ENOENT, text)
