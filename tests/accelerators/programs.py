"""What the compilers of TPU and GPU made of a step, from one compilation of each program.

A program is known by its text before it is compiled, and what is read of it is kept in
.jax_cache/accelerators: JAX's own cache cannot load a program for a device that is not there. An
empty JAX_COMPILATION_CACHE_DIR compiles anew.
"""

import functools
import hashlib
import importlib.metadata
import json
import os
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import jax

from benchmarks.compilers import TOPOLOGIES, Counts, counts, placed
from benchmarks.steps import LIBRARIES, OPTIMIZERS, jitted_step
from benchmarks.trees import TREES
from tests.support.places import ROOT

PACKAGES = ("jax", "jaxlib", "libtpu", "jax-cuda13-pjrt", "jax-cuda13-plugin", "nvidia-cuda-nvcc")
FOLDER = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache"))
KEPT = Path(FOLDER or os.devnull) / "accelerators"


class Program(NamedTuple):
    """A compiled step: what is counted in it, and its text."""

    counts: Counts
    text: str


def compiled_for(platform: str, step: Any, *args: Any) -> Program:
    """A jitted function compiled for the platform, or what is known of that program."""
    lowered = step.trace(*placed(args, platform)).lower(lowering_platforms=(platform,))
    path = KEPT / f"{key_of(platform, lowered.as_text())}.json.z"
    if keeps() and path.exists():
        found = json.loads(zlib.decompress(path.read_bytes()))
        return Program(Counts(**found["counts"]), found["text"])
    compiled = lowered.compile()
    program = Program(counts(platform, compiled), compiled.as_text())
    if keeps():
        write(path, program)
    return program


def keeps() -> bool:
    return FOLDER != ""


def key_of(platform: str, text: str) -> str:
    """The compilers, the device, their flags, and the program."""
    described = [platform, str(TOPOLOGIES[platform]), versions(), text]
    flags = [os.environ.get(name, "") for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")]
    return hashlib.sha256("\n".join([*described, *flags]).encode()).hexdigest()


@functools.cache
def versions() -> str:
    return str({name: importlib.metadata.version(name) for name in PACKAGES})


def write(path: Path, program: Program) -> None:
    """Whole or not at all: two workers may write at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    own = path.with_suffix(f".{os.getpid()}")
    kept = {"counts": program.counts._asdict(), "text": program.text}
    own.write_bytes(zlib.compress(json.dumps(kept).encode(), 1))
    own.replace(path)


@functools.cache
def measured(platform: str, tree_name: str, optimizer: str, library_name: str) -> Counts:
    """The step of an optimizer of a library on one of the trees."""
    library, tree = LIBRARIES[library_name], TREES[tree_name]()
    tx = OPTIMIZERS[optimizer](library)
    step, state = jitted_step(library, tx), jax.eval_shape(tx.init, tree)
    return compiled_for(platform, step, tree, state, tree).counts
