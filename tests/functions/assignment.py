"""Assignment problems whose solution is unique, beside SciPy's solver."""

import jax.numpy as jnp
import numpy as np
import optax
import scipy.optimize

from gradtx import assignment
from tests.functions.row import Case, Function

_rng = np.random.default_rng(14)


def _pairs(cost_matrix):
    rows, columns = scipy.optimize.linear_sum_assignment(cost_matrix)
    return rows.astype(np.int32), columns.astype(np.int32)


def _by_row(function):
    """Optax's pairs, which are in another order."""

    def call(cost_matrix):
        rows, columns = function(cost_matrix)
        order = jnp.argsort(rows)
        return rows[order], columns[order]

    return call


_SHAPES = {"square": (9, 9), "wide": (4, 11), "tall": (11, 4), "one": (1, 1)}
CASES = {name: Case((_rng.normal(size=shape),)) for name, shape in _SHAPES.items()}
FUNCTIONS = {
    name: Function(
        call=getattr(assignment, name),
        reference=_pairs,
        peer=_by_row(getattr(optax.assignment, name)),
        cases=CASES,
        differentiable=(),
    )
    for name in ("hungarian_algorithm", "base_hungarian_algorithm")
}
