"""The folder of a run: checkpoints by step number, of which the last few stay."""

import contextlib
import difflib
import errno
import operator
import os
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from gradtx.definition.errors import GradtxError, StateError
from gradtx.interop.archive import read_file

Location = str | os.PathLike[str]
NAME = re.compile(r"step_(\d+)\.npz")
"""The name of a checkpoint in a folder."""
TEMPORARY = re.compile(r"\.step_(\d+)\.npz\.[0-9a-f]{8}\.tmp")
"""The name that `write_file` gives a file before it is whole."""


def latest_step(path: Location) -> int | None:
    """The step of the newest checkpoint in a folder, to resume a run; None without one.

    Args:
      path: the folder of `save(path, tree, step=...)`; it may not exist yet.

    >>> import gradtx, jax.numpy as jnp, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> gradtx.latest_step(folder)
    >>> gradtx.save(folder, {"w": jnp.ones(2)}, step=1000)
    >>> gradtx.latest_step(folder)
    1000

    See also: `save`, `load`.
    """
    return max(saved_steps(path), default=None)


def saved_steps(path: Location) -> dict[int, Path]:
    """The checkpoints of a folder by step; none where it does not exist."""
    folder = Path(path)
    if not folder.is_dir():
        return {}
    matches = ((NAME.fullmatch(file.name), file) for file in folder.iterdir())
    return {int(match[1]): file for match, file in matches if match is not None}


def new_checkpoint(path: Location, step: Any, keep: int | None) -> Path:
    """The file for the checkpoint of a step, in a folder that exists from now on.

    Raises:
      GradtxError: a step or a number of checkpoints that is none.
      StateError: the folder has a later step.
      OSError: the folder cannot be made.
    """
    number, folder = whole_number("save", "step", step, 0), Path(path)
    if keep is not None:
        whole_number("save", "keep", keep, 1)
    later = [one for one, file in saved_steps(path).items() if one > number and _is_whole(file)]
    if later:
        raise StateError(
            f"save: {os.fspath(path)!r} has step {max(later)}, which is later than step {number}: "
            f"load it and go on, delete what is later, or save into another folder"
        )
    _make_folder(path)
    return folder / f"step_{number}.npz"


def whole_number(call: str, name: str, value: Any, least: int) -> int:
    """A whole number, of Python's, NumPy's or JAX's.

    Raises:
      GradtxError: the value is not one, or less than the least.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if isinstance(value, bool | np.bool_) or number < least:
        raise GradtxError(f"{call}: {name} = {value!r} must be a whole number from {least} on")
    return number


def _make_folder(path: Location) -> None:
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "there is a file of that name" if Path(path).is_file() else error.strerror
        text = (
            f"save could not make the folder {os.fspath(path)!r}: {reason}; with step=, the path "
            f"is that of a folder"
        )
        raise OSError(error.errno, text) from None


def _is_whole(file: Path) -> bool:
    try:
        read_file(file)
    except (OSError, StateError):
        return False
    return True


def delete_older(path: Location, step: Any, keep: int | None) -> None:
    """Delete all but the last `keep` checkpoints, and files that a killed save left."""
    number = operator.index(step)
    files = saved_steps(path)
    old = [] if keep is None else sorted(files)[: -operator.index(keep)]
    unfinished = [
        file
        for file in Path(path).iterdir()
        if (match := TEMPORARY.fullmatch(file.name)) is not None and int(match[1]) < number
    ]
    for file in (*(files[one] for one in old), *unfinished):
        # What cannot be deleted, or is gone, does no harm to the new checkpoint.
        with contextlib.suppress(OSError):
            file.unlink()


def read_checkpoint(path: Location, step: Any) -> tuple[Path, dict[str, str], dict[str, Any]]:
    """The file, the dtypes and the arrays of a checkpoint: a file, or one of a folder.

    A damaged file of a folder is passed over, with a warning, for the last whole one.

    Raises:
      FileNotFoundError: there is no such file, folder or step.
      StateError: the file is damaged, or all files of the folder are.
    """
    target = Path(path)
    if step is None and not target.is_dir():
        if not target.exists():
            raise _no_file(target)
        return target, *read_file(path)
    files = saved_steps(path)
    if step is not None:
        number = whole_number("save", "step", step, 0)
        if number not in files:
            raise _no_step(target, number, files)
        return files[number], *read_file(files[number])
    return _newest_whole(target, files)


def _newest_whole(
    folder: Path, files: dict[int, Path]
) -> tuple[Path, dict[str, str], dict[str, Any]]:
    damaged = None
    for number in sorted(files, reverse=True):
        try:
            return files[number], *read_file(files[number])
        except FileNotFoundError:
            continue  # another process has saved and deleted since
        except StateError as error:
            damaged = damaged or error
            text = str(error).removesuffix("; load an earlier one")
            warnings.warn(f"load: {text}; an earlier one is read", stacklevel=4)
    raise damaged or _no_step(folder, None, files)


def _no_file(target: Path) -> FileNotFoundError:
    """The error of a path at which nothing is, with the names that are near."""
    folder = target.parent
    if not folder.is_dir():
        missing = folder
        while not missing.parent.is_dir():
            missing = missing.parent
        where = f"the folder {str(missing)!r} does not exist"
    else:
        names = sorted(one.name for one in folder.iterdir() if not one.name.startswith("."))
        near = difflib.get_close_matches(target.name, names) or names[:5]
        shown = ", ".join(map(repr, near)) or "nothing"
        where = f"the folder {str(folder)!r} has {shown}"
    text = (
        f"load: there is no file or folder {str(target)!r}: {where}; a first run starts without "
        f"load, if gradtx.latest_step(...) is None"
    )
    return FileNotFoundError(errno.ENOENT, text)


def _no_step(folder: Path, step: int | None, files: dict[int, Path]) -> FileNotFoundError:
    """The error of a folder without checkpoints, or without that of one step."""
    if not folder.is_dir():
        return _no_file(folder)
    if files:
        steps = ", ".join(map(str, sorted(files)))
        text = f"load: {str(folder)!r} has no step {step}; its steps are {steps}"
    else:
        text = (
            f"load: the folder {str(folder)!r} has no checkpoint: save(path, tree, step=...) "
            f"writes them, as step_1000.npz"
        )
    return FileNotFoundError(errno.ENOENT, text)
