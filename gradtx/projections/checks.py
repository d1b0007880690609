"""Checks of the arguments of projections: sets that are empty."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from gradtx.definition.errors import HyperparamError
from gradtx.definition.show import show
from gradtx.projections.vectors import Leaves

LARGEST = 2**16
"""The number of entries up to which an array is read: a check must cost less than its function."""


def known(value: Any) -> np.ndarray | None:
    """A value that can be read before the program runs; None for a traced or a large one."""
    if isinstance(value, Tracer) or np.size(value) > LARGEST:
        return None
    if isinstance(value, jax.Array) and not value.is_fully_addressable:
        return None
    return np.asarray(value)


def check_radius(name: str, scale: Any) -> None:
    """Raise where a set is empty because its radius is below 0."""
    radius = known(scale)
    if radius is not None and np.any(radius < 0):
        raise HyperparamError(
            f"{name}: scale = {show(scale)} is below 0, so that the set is empty: give a radius of "
            f"0 or more"
        )


def check_bounds(leaves: Leaves, lowers: Sequence[Any], uppers: Sequence[Any]) -> None:
    """Raise where a box is empty because a lower bound is above an upper one."""
    for number, (lower, upper) in enumerate(zip(lowers, uppers, strict=True)):
        low, high = known(lower), known(upper)
        if low is not None and high is not None and np.any(low > high):
            raise HyperparamError(
                f"{leaves.name}: lower = {show(lower)} is above upper = {show(upper)}"
                f"{leaves.at(number)}, so that the box is empty: exchange them"
            )


def check_normal(leaves: Leaves, normals: Sequence[Any], is_empty: Any, why: str) -> None:
    """Raise where the normal vector is 0 and the set is therefore empty."""
    bound, arrays = known(is_empty), [known(one) for one in normals]
    if bound is None or not np.any(bound) or any(one is None for one in arrays):
        return
    if not any(np.any(one) for one in arrays if one is not None):
        raise HyperparamError(
            f"{leaves.name}: a is 0 and b {why} 0, so that no point fulfils the condition: give a "
            f"vector that is not 0"
        )
