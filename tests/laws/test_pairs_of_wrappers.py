"""Every pair of wrappers: they build and step, and the state stays what it was; or one sentence
refuses them.
"""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import gradtx
from gradtx.testing.problems import extras, gradients
from tests.support.wrappers import ON_A_MESH, TX, WRAPPERS, Wrappers

CODECS = ("int8", "packed16")
"""A codec with blocks, and one with two slots in one; each costs a second."""
PAIRED: Wrappers = {
    **{
        name: wrap
        for name, wrap in WRAPPERS.items()
        if not name.startswith("stored") or name.endswith(CODECS)
    },
    **ON_A_MESH,
    "offloaded": gradtx.offloaded,
    "transfer": lambda tx: gradtx.transfer(tx, 8, "spectral", width=16),
}
TREE = {"w": jnp.ones((8, 4)), "v": jnp.ones((8, 4)), "b": jnp.ones(8)}


def facts(types: Any) -> list[Any]:
    return [(one.shape, one.dtype, one.memory_space) for one in types]


@pytest.mark.parametrize("outside", PAIRED)
def test_pairs(outside: str) -> None:
    """Around Muon, whose rules on matrices and on entries both have slots."""
    grads = gradients(TREE)
    with jax.set_mesh(jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))):
        for inside, wrap in PAIRED.items():
            try:
                tx = PAIRED[outside](wrap(gradtx.muon(0.1)))
                first, later = states(tx, grads)
            except gradtx.GradtxError as error:
                assert str(error).count("\n") == 0, (outside, inside)
                continue
            assert first == later, (outside, inside)


def states(tx: TX, grads: Any) -> tuple[list[Any], list[Any]]:
    """The types of the state after `init`, and after two steps."""
    extra = extras(tx, TREE, grads)

    def train(params: Any) -> Any:
        first = state = tx.init(params)
        for _ in range(2):
            _, state = tx.update(grads, state, params, **extra)
        return first, state

    closed, (first, later) = jax.make_jaxpr(train, return_shape=True)(TREE)
    assert [*gradtx.flatten_state(first)] == [*gradtx.flatten_state(later)]
    count = len(jax.tree.leaves(first))
    return facts(closed.out_avals[:count]), facts(closed.out_avals[count:])
