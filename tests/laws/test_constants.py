"""Parameters that a compiled function closes over are constants of its trace, and no tracers."""

from typing import Any

import jax
import pytest

import gradtx
from gradtx.testing.problems import extras, gradients
from tests.methods import METHODS
from tests.support.meshes import parameters
from tests.support.pairs import MAKERS
from tests.support.wrappers import WRAPPERS

CASES: dict[str, gradtx.GradientTransformation] = {
    **{name: METHODS[name].tx for name in MAKERS},
    **{f"{name} of adamw": wrap(gradtx.adamw(1e-3)) for name, wrap in WRAPPERS.items()},
    "sharded of adamw": gradtx.sharded(gradtx.adamw(1e-3), "data"),
}


def types(tree: Any) -> Any:
    return jax.tree.map(jax.typeof, tree)


@pytest.mark.parametrize("name", CASES)
def test_init_and_update_of_constants(name: str) -> None:
    """The types are those of arguments."""
    tx, params = CASES[name], parameters()
    grads = gradients(params)
    extra = extras(tx, params, grads)

    def step(params: Any, grads: Any) -> Any:
        state = tx.init(params)
        return state, tx.update(grads, state, params, **extra)

    with jax.set_mesh(jax.make_mesh((4, 2), ("data", "x"))):
        constant = jax.eval_shape(lambda: step(params, grads))
        traced = jax.eval_shape(step, params, grads)
    assert types(constant) == types(traced)
