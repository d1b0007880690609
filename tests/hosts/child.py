"""One of the processes: `python -m tests.hosts.child PORT INDEX COUNT FOLDER` runs every case."""

import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from tests.hosts.cases import CASES, run
from tests.hosts.questions import QUESTIONS
from tests.support.workers import keep_programs

SECONDS = 600
"""A process ends by itself after this time, even where its parent was killed."""


def main(port: str, index: str, count: str, folder: str) -> None:
    signal.alarm(SECONDS)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    address = f"127.0.0.1:{port}"
    jax.distributed.initialize(
        address, int(count), int(index), coordinator_bind_address=address, initialization_timeout=60
    )
    keep_programs()
    results: dict[str, np.ndarray] = {}
    devices = jax.device_count()
    for name, case in sorted(CASES.items()):
        results |= answer(name, lambda case=case: run(case, devices))
    for name, (question, _) in sorted(QUESTIONS.items()):
        results |= answer(name, lambda question=question: {"text": np.asarray(question())})
    np.savez(Path(folder) / f"{index}.npz", allow_pickle=False, **results)
    jax.distributed.shutdown()


def answer(name: str, call: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays of a case under its name, or its error as a text."""
    print(name, flush=True)  # the last line of a process that hangs
    try:
        return {f"{name}|{key}": array for key, array in call().items()}
    except Exception:
        return {f"{name}|error": np.asarray(traceback.format_exc())}


if __name__ == "__main__":
    main(*sys.argv[1:])
