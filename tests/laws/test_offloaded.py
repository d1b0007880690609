"""State in host memory: every transformation steps from it, and leaves it where it was."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import gradtx
from gradtx.engine import offload
from gradtx.testing.problems import extras, gradients, parameters
from tests.methods import METHODS
from tests.support.pairs import MAKERS
from tests.support.wrappers import ON_A_MESH, WRAPPERS, Wrappers

HOST = jax.memory.Space.Host


def spaces(types: Any) -> list[Any]:
    return [one.memory_space for one in types]


NAMES = [name for name in MAKERS if name != "offloaded"]
"""One offloaded is around all members."""


@pytest.mark.parametrize("name", NAMES)
def test_slots_stay_in_host_memory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `init` every slot with axes is on the host, and after two steps the same ones are."""
    monkeypatch.setattr(offload, "SMALLEST", 0)  # so that small leaves are divided into bundles
    plain = METHODS[name].tx
    params = parameters()
    if not any(leaf.ndim for leaf in jax.tree.leaves(jax.eval_shape(plain.init, params))):
        return  # a state of scalars alone has nothing to offload
    tx = gradtx.offloaded(plain)
    grads = gradients(params)
    extra = extras(tx, params, grads)

    def step(state: Any) -> Any:
        return functools.partial(tx.update, **extra)(grads, state, params)[1]

    first = jax.make_jaxpr(lambda: tx.init(params))().out_avals
    later = jax.make_jaxpr(lambda: step(step(tx.init(params))))().out_avals
    assert spaces(first) == [HOST if one.ndim else jax.memory.Space.Device for one in first]
    assert spaces(later) == spaces(first)


AROUND: Wrappers = {
    **{name: wrap for name, wrap in WRAPPERS.items() if name != "flatten"},
    **ON_A_MESH,
    "sharded, padded": lambda tx: gradtx.sharded(tx, "data", pad_size=1),
    "transfer": lambda tx: gradtx.transfer(tx, 8, width=16),
}
"""`flatten` makes one array of all, at a path of its own."""
TREE = {"w": jnp.ones((8, 4)), "b": jnp.ones(8), "odd": jnp.ones((7, 9))}


@pytest.mark.parametrize("kind", [jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit])
@pytest.mark.parametrize("name", AROUND)
def test_slots_inside_a_wrapper_stay_in_host_memory(
    name: str, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of Adam, whatever the wrapper does with them, and no others."""
    monkeypatch.setattr(offload, "SMALLEST", 0)
    tx, grads = AROUND[name](gradtx.offloaded(gradtx.adamw(0.1))), gradients(TREE)
    extra = extras(tx, TREE, grads)

    def step(state: Any) -> Any:
        return functools.partial(tx.update, **extra)(grads, state, TREE)[1]

    def train() -> tuple[Any, Any]:
        first = tx.init(TREE)
        return first, step(step(first))

    with jax.set_mesh(jax.make_mesh((8,), ("data",), axis_types=(kind,))):
        closed, states = jax.make_jaxpr(train, return_shape=True)()
    paths = [[*gradtx.flatten_state(state)] for state in states]
    assert paths[0] == paths[1]
    for path, one in zip([*paths[0], *paths[1]], closed.out_avals, strict=True):
        assert (one.memory_space == HOST) == ("scale_by_adam/" in path), path
