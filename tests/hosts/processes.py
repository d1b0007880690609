"""Start the processes of `tests.hosts.child`, wait for them, and read what they write."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from tests.support.places import ROOT

COUNT = 2
DEVICES = 8
"""The devices of all processes together."""
SECONDS = 600
TRIES = 3
TAKEN = re.compile("address already in use|failed to bind", re.IGNORECASE)
COUNT_FLAG = re.compile(r"--xla_force_host_platform_device_count=\d+")


class ChildError(Exception):
    """A process failed, or took too long."""


class PortError(ChildError):
    """Another program took the port first."""


def run_processes(
    folder: Path, module: str = "tests.hosts.child", seconds: float = SECONDS
) -> list[dict[str, np.ndarray]]:
    """The results of each process, on a port that no other program took first."""
    for _ in range(TRIES - 1):
        with contextlib.suppress(PortError):
            return _run_once(folder, module, seconds)
    return _run_once(folder, module, seconds)


def _run_once(folder: Path, module: str, seconds: float) -> list[dict[str, np.ndarray]]:
    port, logs = free_port(), [folder / f"{index}.log" for index in range(COUNT)]
    children: list[subprocess.Popen[bytes]] = []
    try:
        for index, log in enumerate(logs):
            command = [sys.executable, "-m", module, str(port), str(index), str(COUNT), str(folder)]
            with log.open("wb") as output:
                children.append(
                    subprocess.Popen(
                        command, stdout=output, stderr=output, env=environment(), cwd=ROOT
                    )
                )
        _wait(children, logs, seconds)
    finally:
        for child in children:
            child.kill()
            child.wait()
    return [dict(np.load(folder / f"{index}.npz")) for index in range(COUNT)]


def _wait(children: list[subprocess.Popen[bytes]], logs: list[Path], seconds: float) -> None:
    """Wait for all; where one fails the others would wait for it, so raise at once."""
    end = time.monotonic() + seconds
    while any(child.poll() is None for child in children):
        if time.monotonic() > end:
            raise ChildError(f"not ended after {seconds} s:\n" + _tails(logs))
        if any(child.poll() for child in children):
            break
        time.sleep(0.02)
    statuses = [child.poll() for child in children]
    if any(statuses):
        text = f"the processes ended with {statuses} (None: still running):\n{_tails(logs)}"
        raise (PortError if TAKEN.search(text) else ChildError)(text)


def _tails(logs: list[Path]) -> str:
    """The last lines that each process wrote."""
    return "\n".join(
        f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-40:])
        for log in logs
    )


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def environment() -> dict[str, str]:
    """That of this process, with fewer devices: equal flags make equal programs."""
    flags = COUNT_FLAG.sub("", os.environ.get("XLA_FLAGS", ""))
    count = f"--xla_force_host_platform_device_count={DEVICES // COUNT}"
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "XLA_FLAGS": f"{flags} {count}", "PYTHONPATH": path}
