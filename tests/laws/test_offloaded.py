"""State in host memory: every transformation steps from it, and leaves it where it was."""

import functools
from typing import Any

import jax
import pytest

import gradtx
from gradtx.engine import offload
from gradtx.testing.problems import extras, gradients, parameters
from tests.methods import METHODS
from tests.support.pairs import MAKERS

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
