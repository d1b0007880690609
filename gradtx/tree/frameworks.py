"""Which framework a parameter belongs to, by the classes of the containers around it."""

import functools
from typing import NamedTuple

from gradtx.tree.paths import Treedef

FRAMEWORKS = frozenset({"equinox", "flax"})
"""The top packages of containers that say how their arrays are stored."""


class Container(NamedTuple):
    """The innermost containers that hold a parameter."""

    framework: str = ""
    """The package of the nearest container that belongs to one; empty for plain dicts and lists."""
    layer: str = ""
    """The class that holds the array itself, if it is one of the framework's: `Linear`."""


@functools.lru_cache(maxsize=256)
def containers(treedef: Treedef) -> tuple[Container, ...]:
    """The container of every leaf of a structure, in its order."""
    return tuple(_below(treedef, Container()))


def _below(treedef: Treedef, around: Container) -> list[Container]:
    data = treedef.node_data()
    if data is None:
        return [around] * treedef.num_leaves
    inside = _container(data[0], around)
    return [one for child in treedef.children() for one in _below(child, inside)]


def _container(kind: type, around: Container) -> Container:
    """The container that a node of a class makes of the one around it."""
    framework = next((_package(base) for base in kind.__mro__ if _package(base) in FRAMEWORKS), "")
    if not framework:
        return around._replace(layer="")
    # A user's subclass may store its arrays in any layout; its name says nothing about it.
    return Container(framework, kind.__name__ if _package(kind) == framework else "")


def _package(kind: type) -> str:
    return kind.__module__.partition(".")[0]
