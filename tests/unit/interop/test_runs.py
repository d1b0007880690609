"""The folder of a run: the last n checkpoints by step, the newest whole one is read."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.interop import runs
from tests.support.places import ROOT

LIKE = {"w": np.zeros(3), "step": 0}


def tree(step: int) -> dict[str, Any]:
    return {"w": np.full(3, float(step)), "step": step}


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def saved(folder: Path, *steps: int, keep: int | None = 3) -> Path:
    for step in steps:
        gradtx.save(folder, tree(step), step=step, keep=keep)
    return folder


def test_the_last_n_stay_and_the_newest_is_loaded(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "a"
    assert gradtx.latest_step(run) is None
    saved(run, 0, 5, 90, 100, 1000)
    # By number: as texts, step_90 would be behind step_1000.
    assert names(run) == ["step_100.npz", "step_1000.npz", "step_90.npz"]
    assert gradtx.latest_step(run) == 1000
    assert gradtx.load(run, LIKE)["step"] == 1000
    assert gradtx.load(str(run), LIKE, step=90)["w"].tolist() == [90.0] * 3
    saved(run, 1001, keep=1)
    assert names(run) == ["step_1001.npz"]
    saved(run, 1002, 1003, 1004, 1005, keep=None)
    assert len(names(run)) == 5


def test_a_step_may_be_a_count_of_jax_and_is_replaced(tmp_path: Path) -> None:
    tx, w = gradtx.sgd(0.1), jnp.ones(2)
    state = tx.update(w, tx.init(w), w)[1]
    for value in (1.0, 2.0):
        gradtx.save(tmp_path, {"w": np.full(1, value)}, step=state.count)
    assert names(tmp_path) == ["step_1.npz"]
    assert gradtx.load(tmp_path, {"w": np.zeros(1)})["w"].tolist() == [2.0]


def test_other_files_of_the_folder_stay(tmp_path: Path) -> None:
    others = ["log.csv", "step_1.txt", "best_step_1.npz", ".step_x.npz.tmp"]
    for name in others:
        (tmp_path / name).write_text("mine")
    saved(tmp_path, 1, 2, keep=1)
    assert names(tmp_path) == sorted([*others, "step_2.npz"])


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_killed_while_saving_the_last_whole_one_is_read(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, 1, 2, keep=2)

    def killed(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if where == "write":
            patch.setattr(np.lib.format, "write_array", killed)
        else:
            patch.setattr(os, where, killed)
        # A process that is killed deletes no file.
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        gradtx.save(tmp_path, tree(3), step=3, keep=2)
    left, *whole = names(tmp_path)
    assert left.startswith(".step_3.npz.") and whole == ["step_1.npz", "step_2.npz"]
    assert gradtx.load(tmp_path, LIKE)["step"] == 2
    saved(tmp_path, 3, keep=2)
    assert left in names(tmp_path)  # of the same step: another writer may be at it
    saved(tmp_path, 4, keep=2)
    assert names(tmp_path) == ["step_3.npz", "step_4.npz"]


LOOP = """
import itertools, sys
import numpy as np
import gradtx
for step in itertools.count(1):
    tree = {"arrays": [np.full(200_000, step) for _ in range(4)]}
    gradtx.save(sys.argv[1], tree, step=step, keep=2)
    print(step, flush=True)
"""


def test_a_process_that_is_killed_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    like = {"arrays": [np.zeros(200_000, int) for _ in range(4)]}
    process = subprocess.Popen(
        [sys.executable, "-c", LOOP, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    for _ in range(5):
        last = int(process.stdout.readline())
    time.sleep(0.003)  # in the middle of a save
    process.send_signal(signal.SIGKILL)
    rest = process.communicate()[0].split()
    last = int(rest[-1]) if rest else last  # pyright: ignore[reportPossiblyUnboundVariable]
    step = gradtx.latest_step(tmp_path)
    assert step in (last, last + 1)
    arrays = gradtx.load(tmp_path, like)["arrays"]
    assert all((array == step).all() for array in arrays)


def test_a_new_checkpoint_is_whole_before_an_old_one_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, 1, keep=1)
    seen = []
    real = runs.delete_older

    def spy(path: Any, step: Any, keep: Any) -> None:
        seen.append((names(tmp_path), gradtx.load(tmp_path, LIKE)["step"]))
        real(path, step, keep)

    monkeypatch.setattr("gradtx.interop.checkpoints.delete_older", spy)
    saved(tmp_path, 2, keep=1)
    assert seen == [(["step_1.npz", "step_2.npz"], 2)] and names(tmp_path) == ["step_2.npz"]


def test_a_damaged_newest_file_is_passed_over_with_a_warning(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    (tmp_path / "step_2.npz").write_bytes(b"half")
    text = (
        f"load: '{tmp_path}/step_2.npz' is not a complete checkpoint of gradtx.save: it is not a "
        f"complete zip archive; an earlier one is read"
    )
    with pytest.warns(UserWarning) as warned:
        assert gradtx.load(tmp_path, LIKE)["step"] == 1
    assert str(warned[0].message) == text and warned[0].filename == __file__
    with pytest.raises(gradtx.StateError, match=r"step_2\.npz' is not a complete"):
        gradtx.load(tmp_path, LIKE, step=2)
    saved(tmp_path, 2)  # the run goes on behind step 1
    assert gradtx.load(tmp_path, LIKE)["step"] == 2
    for one in tmp_path.iterdir():
        one.write_bytes(b"half")
    with (
        pytest.warns(UserWarning),
        pytest.raises(gradtx.StateError, match=r"step_2\.npz' is not a complete"),
    ):
        gradtx.load(tmp_path, LIKE)


def said(kind: type[Exception], call: Any) -> str:
    with pytest.raises(kind) as caught:
        call()
    return getattr(caught.value, "strerror", None) or str(caught.value)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    run = saved(tmp_path / "runs" / "a", 800, 900)
    first = "a first run starts without load, if gradtx.latest_step(...) is None"
    assert said(FileNotFoundError, lambda: gradtx.load(tmp_path / "runs" / "b", LIKE)) == (
        f"load: there is no file or folder '{tmp_path}/runs/b': the folder '{tmp_path}/runs' has "
        f"'a'; {first}"
    )
    file = tmp_path / "out" / "x" / "run.npz"
    assert said(FileNotFoundError, lambda: gradtx.load(file, LIKE)) == (
        f"load: there is no file or folder '{file}': the folder "
        f"'{tmp_path}/out' does not exist; {first}"
    )
    assert said(FileNotFoundError, lambda: gradtx.load(run / "step_80.npz", LIKE)) == (
        f"load: there is no file or folder '{run}/step_80.npz': the folder '{run}' has "
        f"'step_800.npz', 'step_900.npz'; {first}"
    )
    assert said(FileNotFoundError, lambda: gradtx.load(run, LIKE, step=850)) == (
        f"load: '{run}' has no step 850; its steps are 800, 900"
    )
    assert said(FileNotFoundError, lambda: gradtx.load(tmp_path, LIKE)) == (
        f"load: the folder '{tmp_path}' has no checkpoint: save(path, tree, step=...) writes "
        f"them, as step_1000.npz"
    )
    with pytest.raises(FileNotFoundError) as caught:
        gradtx.load(tmp_path / "none", LIKE, step=3)
    assert caught.value.errno == errno.ENOENT


def test_what_does_not_fit_names_the_file_of_the_folder(tmp_path: Path) -> None:
    saved(tmp_path, 7)
    assert said(gradtx.StateError, lambda: gradtx.load(tmp_path, {"v": 0})).startswith(
        f"'{tmp_path}/step_7.npz': the checkpoint does not fit: there is no 'v', and 'step' (and "
        f"1 more) is unexpected"
    )


def test_a_later_step_in_the_folder_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, 100)
    assert said(gradtx.StateError, lambda: gradtx.save(tmp_path, tree(1), step=1)) == (
        f"save: '{tmp_path}' has step 100, which is later than step 1: load it and go on, delete "
        f"what is later, or save into another folder"
    )
    assert names(tmp_path) == ["step_100.npz"]


@pytest.mark.parametrize(
    ("step", "keep", "text"),
    [
        (-1, 3, "save: step = -1 must be a whole number from 0 on"),
        (1.5, 3, "save: step = 1.5 must be a whole number from 0 on"),
        (True, 3, "save: step = True must be a whole number from 0 on"),
        (1, 0, "save: keep = 0 must be a whole number from 1 on"),
        (1, "3", "save: keep = '3' must be a whole number from 1 on"),
    ],
)
def test_a_step_or_keep_that_is_no_number_is_refused(
    step: Any, keep: Any, text: str, tmp_path: Path
) -> None:
    assert said(gradtx.GradtxError, lambda: gradtx.save(tmp_path, LIKE, step=step, keep=keep)) == (
        text
    )


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    file = tmp_path / "run.npz"
    gradtx.save(file, LIKE)
    assert said(FileExistsError, lambda: gradtx.save(file, LIKE, step=1)) == (
        f"save could not make the folder '{file}': there is a file of that name; with step=, the "
        f"path is that of a folder"
    )
