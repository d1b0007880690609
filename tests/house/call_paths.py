"""Count the frames, files and functions of gradtx that one cold update enters."""

import functools
import json
import os
import pathlib
import subprocess
import sys
from typing import Any, NamedTuple

SCRIPT = pathlib.Path(__file__).parent / "frames.py"


class CallPath(NamedTuple):
    """One update: frames of gradtx at the rule, files and functions that the update enters."""

    frames: int
    files: int
    functions: int


@functools.cache
def recorded(root: pathlib.Path, optimizer: str) -> dict[str, Any]:
    """Record one cold update in a process of its own, with the gradtx of a root folder."""
    command = [sys.executable, "-P", str(SCRIPT), optimizer]
    variables = {**os.environ, "PYTHONPATH": str(root.resolve()), "JAX_PLATFORMS": "cpu"}
    ended = subprocess.run(
        command, cwd=root, env=variables, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise RuntimeError(f"the update of {optimizer} failed in {root}:\n{ended.stderr}")
    return json.loads(ended.stdout)


def adamw_path(root: pathlib.Path) -> CallPath:
    """Count the call path from `tx.update` to the rule of `adamw(1e-3)`, both included.

    Every frame of gradtx counts; a comprehension has one in Python 3.11 and none since 3.12. A file
    or a function counts once, however often the update enters it; comprehensions and lambdas do
    not count. The definition and the state exist before; all caches are empty.
    """
    path = recorded(root, "adamw")
    return CallPath(len(path["stack"]), path["files"], path["functions"])


def guard_path(root: pathlib.Path) -> CallPath:
    """Count the same for `guard(chain(clip_by_global_norm(1.0), adamw(1e-3)))`."""
    path = recorded(root, "guard")
    return CallPath(len(path["stack"]), path["files"], path["functions"])
