"""What a worker compiles, it compiles once: tests are shared out by method, programs are kept.

A plugin of pytest, which `tests/conftest.py` registers.
"""

import ctypes
import gc
import os
import resource
import sys
from collections.abc import Generator
from typing import Any

import jax
import pytest

from tests.support.places import ROOT

CLEARED_ABOVE, AT_MOST = 1500, 1900
"""MB that a worker holds before it forgets its compiled programs, some 1.5 MB each: between two
methods or files, and within one.
"""


def keep_programs() -> None:
    """Compiled programs stay in .jax_cache, for other workers, and until the next run.

    The environment may name another folder; an empty JAX_COMPILATION_CACHE_DIR keeps none.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(ROOT / ".jax_cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What compiles the same programs runs in the same worker."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(chosen_group(item)))


def chosen_group(item: pytest.Item) -> str:
    """The maker of a method, scale_by_x with x, where a test has one under `name`; or its file."""
    from tests.methods import METHODS  # not before the flags of XLA are set

    name = getattr(getattr(item, "callspec", None), "params", {}).get("name")
    if isinstance(name, str) and name in METHODS:
        return name.split("/")[0].removeprefix("scale_by_")
    return item.nodeid.split("::")[0]


def pytest_collection_finish() -> None:
    """What is there before the first test stays until the last: no collection need look at it.

    Programs make few cycles, and collections took a twentieth of the time: they are made rare.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, Any, Any]:
    """A worker that is large forgets its programs."""
    found = yield
    same = nextitem is not None and group_of(item) == group_of(nextitem)
    if resident() > (AT_MOST if same else CLEARED_ABOVE):
        forget()
    return found


def group_of(item: pytest.Item) -> str:
    marker = item.get_closest_marker("xdist_group")
    return item.nodeid.split("::")[0] if marker is None else marker.args[0]


def resident() -> int:
    """MB that this process holds now; 0 where no /proc tells."""
    try:
        with open("/proc/self/statm") as pages:
            return int(pages.read().split()[1]) * resource.getpagesize() >> 20
    except OSError:
        return 0


def forget() -> None:
    """Compiled programs are let go, and their memory is given back."""
    jax.clear_caches()
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
