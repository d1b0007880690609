"""Functions of trees."""

import numpy as np
import optax

import gradtx
from tests.functions.row import Case, Function

_x = np.linspace(-2.0, 3.0, 12).reshape(3, 4)


def _global_norm(tree):
    return np.sqrt(sum(np.sum(np.abs(leaf) ** 2) for leaf in tree.values()))


FUNCTIONS = {
    "global_norm": Function(
        call=gradtx.global_norm,
        reference=_global_norm,
        peer=optax.tree.norm,
        cases={"tree": Case(({"a": _x, "b": _x[0]},))},
    ),
}
