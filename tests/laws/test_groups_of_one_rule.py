"""Groups of one optimizer with other hyperparameters: each has its own numbers.

Leaves of several shapes, and several of one shape, share traces and the numbers that follow from
hyperparameters; groups must not.
"""

from typing import Any

import jax
import numpy as np
import pytest

import gradtx
from gradtx.testing.laws import numbers
from gradtx.testing.problems import gradients

SHAPES = {"matrix": (2, 3), "like": (2, 3), "other": (4, 5), "vector": (3,), "longer": (5,)}
TREE = {
    group: {name: np.full(shape, 0.5, np.float32) for name, shape in SHAPES.items()}
    for group in ("one", "two", "three")
}
METHODS: dict[str, gradtx.GradientTransformation] = {
    "scale": gradtx.scale(2.0),
    "sgd": gradtx.sgd(0.1, momentum=0.9),
    "adamw": gradtx.adamw(0.1, weight_decay=0.1),
    "ademamix": gradtx.ademamix(0.1),
    "adagrad": gradtx.adagrad(0.1),
    "lion": gradtx.lion(0.1),
    "rmsprop": gradtx.rmsprop(0.1),
    "adafactor": gradtx.adafactor(0.1),
    "lamb": gradtx.lamb(0.1),
    "muon": gradtx.muon(0.1),
    "guard": gradtx.guard(gradtx.adamw(0.1)),
    "stored": gradtx.stored(gradtx.adamw(0.1), "bf16"),
    "offloaded": gradtx.offloaded(gradtx.adamw(0.1)),
}


def updates_of(members: dict[str, Any], is_jitted: bool) -> Any:
    """The updates of the second step of groups."""
    tx = gradtx.partition(members, [(f"^{name}/", name) for name in members])
    grads, update = gradients(TREE), jax.jit(tx.update) if is_jitted else tx.update
    _, state = update(grads, tx.init(TREE), TREE)
    return update(grads, state, TREE)[0]


@pytest.mark.parametrize("is_jitted", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_each_group_has_its_own_numbers(name: str, is_jitted: bool) -> None:
    """Three groups with all numbers, half and a quarter of them, beside three groups alike."""
    tx = METHODS[name]
    scaled = [
        gradtx.replace(tx, **{key: value * factor for key, value in numbers(tx).items()})
        for factor in (1, 0.5, 0.25)
    ]
    mixed = updates_of(dict(zip(TREE, scaled, strict=True)), is_jitted)
    for group, one in zip(TREE, scaled, strict=True):
        alike = updates_of(dict.fromkeys(TREE, one), is_jitted)
        for leaf, expected in alike[group].items():
            np.testing.assert_array_equal(mixed[group][leaf], expected, err_msg=f"{group}/{leaf}")
    assert not np.array_equal(mixed["one"]["matrix"], mixed["two"]["matrix"])
