"""The roles of the leaves of a tree, and a warning where a role is a guess."""

import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import Protocol, runtime_checkable

import numpy as np

from gradtx.definition.errors import RoleWarning
from gradtx.engine.selector import Leaves, Selector
from gradtx.tree.roles import Role, roles_of

PACKAGE = str(Path(__file__).parent.parent)


@runtime_checkable
class Explained(Protocol):
    """A function of the parameters that labels them, and can say why."""

    def reasons(self, leaves: Leaves) -> Sequence[str | None]:
        """For every leaf the reason of its label; None for None leaves."""
        ...

    def doubts(self, leaves: Leaves) -> str | None:
        """The leaves whose labels are guesses, in one sentence; None: there are none."""
        ...


def leaf_roles(leaves: Leaves) -> tuple[Role | None, ...]:
    """The role of every leaf; None for None leaves."""
    shapes = [None if value is None else tuple(np.shape(value)) for value in leaves.values]
    return roles_of(leaves.treedef, leaves.paths, tuple(shapes))


def warn_of_doubts(selectors: Iterable[Selector], leaves: Leaves) -> None:
    """Warn once of every set of leaves whose group is a guess."""
    # By identity, since routes may be lists, which have no hash.
    labels = {id(one.where): one.where for one in selectors if isinstance(one.where, Explained)}
    texts = dict.fromkeys(one.doubts(leaves) for one in labels.values())
    for text in filter(None, texts):
        warnings.warn(text, RoleWarning, stacklevel=depth_of_caller())


def depth_of_caller() -> int:
    """How many frames above `warn_of_doubts` the caller of gradtx is."""
    frame: FrameType | None = sys._getframe(1)
    depth = 1
    while frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame, depth = frame.f_back, depth + 1
    return depth
