"""Print as JSON the call path of one cold update, from `tx.update` to the rule of Adam.

It runs as a script of its own: the working tree on PYTHONPATH decides which gradtx it records.
"""

import json
import pathlib
import sys
from types import CodeType, FrameType
from typing import Any

import jax
import jax.numpy as jnp

import gradtx

PACKAGE = str(pathlib.Path(gradtx.__file__).parent)
RULE = str(pathlib.Path(PACKAGE, "optimizers", "adam.py"))


def optimizer(name: str) -> gradtx.GradientTransformation:
    """Build one of the two optimizers whose call paths are measured."""
    if name == "adamw":
        return gradtx.adamw(1e-3)
    return gradtx.guard(gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3)))


def forget() -> None:
    """Empty jax's caches, and every `functools` cache of gradtx's modules."""
    jax.clear_caches()
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "gradtx":
            for cached in vars(module).values():
                if callable(empty := getattr(cached, "cache_clear", None)):
                    empty()


class Recorder:
    """A profile function that notes gradtx's functions, and the stack at the rule's first call."""

    def __init__(self) -> None:
        self.entered: set[CodeType] = set()
        self.stack: list[str] = []

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(PACKAGE):
            return
        self.entered.add(code)
        if not self.stack and code.co_filename == RULE:
            self.stack = stack_of(frame)


def stack_of(frame: FrameType | None) -> list[str]:
    """Name gradtx's frames, from the outermost to this one."""
    names: list[str] = []
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(PACKAGE):
            names.append(f"{code.co_filename.removeprefix(PACKAGE + '/')}:{code.co_name}")
        frame = frame.f_back
    return names[::-1]


def record(name: str) -> dict[str, Any]:
    """Run one cold update of three leaves, and describe its call path."""
    params = {"a": jnp.ones((2, 3)), "b": jnp.ones(3), "c": jnp.ones(())}
    tx = optimizer(name)
    state, recorder = tx.init(params), Recorder()
    forget()
    sys.setprofile(recorder)
    try:
        tx.update(params, state, params)
    finally:
        sys.setprofile(None)
    if not recorder.stack:
        raise RuntimeError(f"the update of {name} entered no function of {RULE}")
    named = [code for code in recorder.entered if not code.co_name.startswith("<")]
    files = {code.co_filename for code in recorder.entered}
    return {"stack": recorder.stack, "files": len(files), "functions": len(named)}


if __name__ == "__main__":
    print(json.dumps(record(sys.argv[1])))
