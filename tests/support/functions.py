"""Calls of the public functions of tests/functions, and their distance from the reference."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tests.functions import FUNCTIONS
from tests.functions.row import Case, Function


def cast(tree: Any, dtype: Any) -> Any:
    """The arrays of `tree`, the floats and complex numbers among them in a precision."""

    def leaf(value):
        if not isinstance(value, np.ndarray | np.generic):
            return value
        if np.issubdtype(value.dtype, np.complexfloating):
            return jnp.asarray(value, np.result_type(dtype, np.complex64))
        return jnp.asarray(value, dtype if np.issubdtype(value.dtype, np.floating) else None)

    return jax.tree.map(leaf, tree)


def called(function, row: Function, case: Case, dtype: Any) -> Any:
    args, kwargs = cast((case.args, dict(case.kwargs)), dtype)
    return function(*args, **kwargs)


def differ(found: Any, right: Any) -> float:
    """The largest deviation, relative to the largest entry (at least 1e-3)."""
    assert jax.tree.structure(found) == jax.tree.structure(right)
    worst = 0.0
    leaves = [list(map(np.asarray, jax.tree.leaves(tree))) for tree in (found, right)]
    for ours, theirs in zip(*leaves, strict=True):
        assert ours.shape == theirs.shape
        if not np.issubdtype(theirs.dtype, np.inexact):
            np.testing.assert_array_equal(ours, theirs)
            continue
        finite = np.isfinite(theirs)
        np.testing.assert_array_equal(ours[~finite], theirs[~finite])
        size = max(1e-3, float(np.max(np.abs(theirs[finite]), initial=0.0)))
        gap = np.max(np.abs(ours[finite] - theirs[finite]), initial=0.0)
        worst = max(worst, float(gap) / size)
    return worst


class Deviations(NamedTuple):
    """How far a function is from its reference, and from Optax's; None: there is none."""

    wide: float
    narrow: float
    optax: float | None


@functools.cache
def deviations(name: str, case: str) -> Deviations:
    """The deviations of one case in float64 and float32, and from Optax in float64."""
    row, chosen = FUNCTIONS[name], FUNCTIONS[name].cases[case]
    right = row.reference(*chosen.args, **chosen.kwargs)
    optax = None
    with jax.enable_x64(True):
        ours = called(row.call, row, chosen, jnp.float64)
        if row.peer is not None:
            with jax.numpy_rank_promotion("allow"):
                optax = differ(ours, called(row.peer, row, chosen, jnp.float64))
        wide = differ(ours, right)
    return Deviations(wide, differ(called(row.call, row, chosen, jnp.float32), right), optax)
