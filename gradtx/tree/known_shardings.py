"""How arrays are cut over a mesh, as far as a trace can know it.

A program whose axes are automatic does not see how its arguments are cut: XLA decides it later.
Who knows says so by path, within `with known_shardings(...)`: a training step that sees its
arguments, or a wrapper that cuts the parameters itself.
"""

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import jax
from jax.core import Tracer
from jax.sharding import NamedSharding

_SHARDINGS: ContextVar[Mapping[str, NamedSharding]] = ContextVar("shardings")
NONE: Mapping[str, NamedSharding] = {}


@contextlib.contextmanager
def known_shardings(shardings: Mapping[str, NamedSharding]) -> Iterator[None]:
    """Let the rules of a trace know how the leaves are cut, by path."""
    token = _SHARDINGS.set({**_SHARDINGS.get(NONE), **shardings})
    try:
        yield
    finally:
        _SHARDINGS.reset(token)


@contextlib.contextmanager
def without_shardings() -> Iterator[None]:
    """Trace a function of other arrays at these paths, such as one replica of each."""
    token = _SHARDINGS.set(NONE)
    try:
        yield
    finally:
        _SHARDINGS.reset(token)


def said_shardings() -> Mapping[str, NamedSharding]:
    """How leaves are cut by path, within `known_shardings`."""
    return _SHARDINGS.get(NONE)


def known_sharding(array: Any, path: str | None = None) -> NamedSharding | None:
    """How an array is cut: as was said of its path, as its type says, or as it is.

    None where nobody knows before XLA has decided it.
    """
    said = None if path is None else _SHARDINGS.get(NONE).get(path)
    if said is not None:
        return said
    if isinstance(array, Tracer):
        sharding = jax.typeof(array).sharding
        return sharding if sharding.mesh.explicit_axes else None
    sharding = getattr(array, "sharding", None)
    return sharding if isinstance(sharding, NamedSharding) else None
