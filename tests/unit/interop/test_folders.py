"""Checkpoints in folders that cannot be written, on full disks, and by two writers at once."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.support.bits import assert_same


def broken(number: int) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number), "a file of the system")

    return fail


@pytest.mark.parametrize("step", ["open", "write", "fsync", "replace"])
@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, OSError), (errno.EROFS, OSError), (errno.EACCES, PermissionError)],
)
def test_a_save_that_the_system_refuses_says_one_sentence(
    step: str,
    number: int,
    kind: type[OSError],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tests run as root, whom no folder refuses, so the system's error is put in its place."""
    file, like = tmp_path / "run.npz", {"w": jnp.zeros(3)}
    gradtx.save(file, like)
    with monkeypatch.context() as patch:
        if step == "open":
            patch.setattr(Path, "open", broken(number))
        elif step == "write":
            patch.setattr(np.lib.format, "write_array", broken(number))
        else:
            patch.setattr(os, step, broken(number))
        with pytest.raises(kind) as caught:
            gradtx.save(file, {"w": jnp.ones(3)})
    assert caught.value.errno == number and caught.value.__suppress_context__
    assert caught.value.strerror == (
        f"save could not write {str(file)!r}: {os.strerror(number)}; the last checkpoint there is "
        f"whole: save where the folder {str(tmp_path)!r} exists, is writable and has room"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["run.npz"]
    assert_same(like, gradtx.load(file, like))


def test_a_disk_that_is_full_says_one_sentence(tmp_path: Path) -> None:
    """`/dev/full` refuses every write, as a full disk does; here under the temporary's name."""
    tree, real = {"w": np.ones(10**5)}, Path.open

    def full(path: Path, *_: Any, **__: Any) -> IO[Any]:
        return real(Path("/dev/full"), "wb")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(OSError, match=r"save could not write '.*': No space left on device; "):
            gradtx.save(tmp_path / "run.npz", tree)


def test_a_missing_folder_and_one_that_is_a_file_say_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    cases: list[tuple[Path, type[OSError], int]] = [
        (tmp_path / "missing" / "run.npz", FileNotFoundError, errno.ENOENT),
        (tmp_path / "file" / "run.npz", NotADirectoryError, errno.ENOTDIR),
        (tmp_path / "folder", IsADirectoryError, errno.EISDIR),
    ]
    for file, kind, number in cases:
        with pytest.raises(kind) as caught:
            gradtx.save(file, {"w": 1})
        room = f"save where the folder {str(file.parent)!r} exists, is writable and has room"
        step = "give step= to save into this folder, or the name of a file in it"
        assert caught.value.strerror == (
            f"save could not write {str(file)!r}: {os.strerror(number)}; nothing is written: "
            f"{step if kind is IsADirectoryError else room}"
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_two_writers_at_once_leave_the_file_of_one(tmp_path: Path) -> None:
    """Every read between their writes finds one whole checkpoint, and nothing else remains."""
    file, errors = tmp_path / "run.npz", list[BaseException]()
    like = {"arrays": [np.zeros(20_000, int) for _ in range(3)]}

    def write(number: int) -> None:
        try:
            for step in range(20):
                full = [np.full(20_000, number + step) for _ in range(3)]
                gradtx.save(file, {"arrays": full})
        except BaseException as error:
            errors.append(error)

    gradtx.save(file, like)
    writers = [threading.Thread(target=write, args=(100 * number,)) for number in (1, 2)]
    for one in writers:
        one.start()
    while any(one.is_alive() for one in writers):
        arrays = gradtx.load(file, like)["arrays"]
        assert len({int(array[0]) for array in arrays}) == 1
        assert all((array == array[0]).all() for array in arrays)
    for one in writers:
        one.join()
    assert not errors
    assert [path.name for path in tmp_path.iterdir()] == ["run.npz"]
