"""Two processes of four devices save and restore one checkpoint; one process restores it too."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import gradtx
from tests.support.bits import assert_same
from tests.support.places import ROOT
from tests.unit.interop.checkpoint_process import COUNT, SECONDS
from tests.unit.interop.checkpoint_runs import RUNS, place, run


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that both processes have written; they start once."""
    folder, port = tmp_path_factory.mktemp("processes"), str(free_port())
    flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ["XLA_FLAGS"])
    flags += " --xla_force_host_platform_device_count=4"
    module, logs = "tests.unit.interop.checkpoint_process", []
    children: list[subprocess.Popen[bytes]] = []
    try:
        for index in range(COUNT):
            logs.append(folder / f"{index}.log")
            with logs[-1].open("wb") as log:
                children.append(
                    subprocess.Popen(
                        [sys.executable, "-m", module, port, str(index), str(folder)],
                        stdout=log,
                        stderr=log,
                        cwd=ROOT,
                        env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)},
                    )
                )
        wait(children)
    finally:
        for child in children:
            child.kill()
            child.wait()
    tails = ["\n".join(log.read_text(errors="replace").splitlines()[-30:]) for log in logs]
    assert [child.returncode for child in children] == [0] * COUNT, "\n---\n".join(tails)
    return folder


def wait(children: list[subprocess.Popen[bytes]]) -> None:
    """Wait for all; where one fails the others would wait for it."""
    end = time.monotonic() + SECONDS
    while any(child.poll() is None for child in children) and time.monotonic() < end:
        if any(child.poll() for child in children):
            return
        time.sleep(0.02)


@pytest.mark.parametrize("shape", [(8,), (4, 2), (1,)])
@pytest.mark.parametrize("name", sorted(RUNS))
def test_one_process_restores_the_checkpoint_of_two(
    name: str, shape: tuple[int, ...], folder: Path
) -> None:
    axes = ("data", "model")[: len(shape)]
    mesh = jax.make_mesh(shape, axes, devices=jax.devices()[: int(np.prod(shape))])
    like = place(run(name), mesh, P(*axes))
    checkpointer = gradtx.Checkpointer(folder / name)
    again = checkpointer.load(like)
    assert checkpointer.steps() == [1, 2]
    assert_same(again, run(name))
    for leaf, target in zip(jax.tree.leaves(again), jax.tree.leaves(like), strict=True):
        assert not hasattr(target, "sharding") or leaf.sharding == target.sharding


TEXTS = {
    "save of a file": (
        "save: the array at 'w' is spread over several processes, and one process writes the "
        "file: use gradtx.Checkpointer, which every process calls",
    )
    * 2,
    "save by every process": (
        "no error",
        "save: process 1 of 2 would write the file of process 0: call save on process 0 alone, or "
        "use gradtx.Checkpointer, which every process calls",
    ),
    "load of a file": (
        "entry 'w' would be spread over several processes, and a file or dict restores on one: "
        "use gradtx.Checkpointer",
    )
    * 2,
    "another step": (
        "save: the processes disagree about the step: process 0 has 100, process 1 has 101: "
        "restore every process from one checkpoint, and save after the same step on each",
    )
    * 2,
    "another count": (
        "save: the processes disagree about 'count': process 0 has 100, process 1 has 101: "
        "restore every process from one checkpoint, and save after the same step on each",
    )
    * 2,
    "another folder": (
        "load: the processes disagree about the newest step: process 0 has none, process 1 has 7: "
        "give all the folder of one filesystem that they share, and one step=",
    )
    * 2,
    "steps": ("[]", "[]"),
    "damaged": ("another process", "this process"),
}


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_processes_say_the_same(name: str, folder: Path) -> None:
    texts = tuple(str(np.load(folder / f"{index}.npz")[name]) for index in range(COUNT))
    assert texts == TEXTS[name]
