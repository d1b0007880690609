"""Every pair of wrappers: they build and step, and the state stays what it was; or one sentence
refuses them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import gradtx
from gradtx.testing.problems import extras, gradients
from tests.support.wrappers import WRAPPERS

TX = gradtx.GradientTransformation

CODECS = ("int8", "packed16")
"""A codec with blocks, and one with two slots in one; each costs a second."""
PAIRED: dict[str, Callable[[TX], TX]] = {
    **{
        name: wrap
        for name, wrap in WRAPPERS.items()
        if not name.startswith("stored") or name.endswith(CODECS)
    },
    "anchor_gradient": lambda tx: gradtx.anchor_gradient(tx, 4, 1, 0.5),
    "before a scale": lambda tx: gradtx.chain(tx, gradtx.scale(0.5)),
    "behind a clip": lambda tx: gradtx.chain(gradtx.clip_by_global_norm(1.0), tx),
    "behind a decay": lambda tx: gradtx.chain(gradtx.add_decayed_weights(0.1), tx),
    "ema_nesterov": gradtx.ema_nesterov,
    "freeze": lambda tx: gradtx.selective_transform(tx, freeze_mask="^b$"),
    "gpa": gradtx.gpa,
    "multiply_by_path": lambda tx: gradtx.chain(tx, gradtx.multiply_by_path({"w": 0.5})),
    "offloaded": gradtx.offloaded,
    "outer": lambda tx: gradtx.outer(tx, gradtx.sgd(0.7), every=2),
    "partition": lambda tx: gradtx.partition(
        {"one": tx, "other": gradtx.sgd(0.1)}, [("[wv]", "one"), (".*", "other")]
    ),
    "sam": lambda tx: gradtx.sam(tx, gradtx.sgd(0.1), sync_period=2),
    "schedule_free": lambda tx: gradtx.schedule_free(tx, 0.1),
    "sharded": lambda tx: gradtx.sharded(tx, "data"),
    "stacked": lambda tx: gradtx.stacked(tx, "w"),
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
