"""The runner of processes says what failed, ends the others, and looks for another port."""

import time
from pathlib import Path

import pytest

from tests.hosts.processes import TRIES, ChildError, PortError, run_processes

BROKEN = "tests.hosts.broken"


def folder(tmp_path: Path, name: str) -> Path:
    path = tmp_path / name
    path.mkdir()
    return path


def test_the_output_of_a_failed_process_is_in_the_error_and_the_other_one_is_ended(
    tmp_path: Path,
) -> None:
    start = time.monotonic()
    with pytest.raises(ChildError) as caught:
        run_processes(folder(tmp_path, "fails"), BROKEN)
    text = str(caught.value)
    assert text.startswith("the processes ended with [None, 1] (None: still running):\n--- 0.log\n")
    assert text.endswith("--- 1.log\nprocess 1 of 2\nno such device")
    assert time.monotonic() - start < 30  # process 0 would sleep for 60 s


def test_processes_that_hang_are_ended(tmp_path: Path) -> None:
    with pytest.raises(ChildError, match=r"^not ended after 0\.5 s:\n--- 0\.log"):
        run_processes(folder(tmp_path, "hang"), BROKEN, seconds=0.5)


def test_a_port_that_is_taken_is_tried_again(tmp_path: Path) -> None:
    path = folder(tmp_path, "taken")
    with pytest.raises(PortError, match="Address already in use"):
        run_processes(path, BROKEN)
    assert len((path / "tries1").read_text().split()) == TRIES
