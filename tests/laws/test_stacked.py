"""Stacked layers: every method sees each layer of a stack as it sees an array of its own.

Three layers in one array per parameter, beside the same layers as three trees: two steps, in
float64, so that no sum cancels to the rounding of float32.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.testing.problems import extras
from tests.methods import METHODS
from tests.support.pairs import MAKERS

SHAPES = {"bias": (5,), "kernel": (4, 5), "scalar": ()}
LAYERS = 3
DIFFERENT = {
    "add_noise": "random numbers depend on the path",
    "differentially_private_aggregate": "noise; its gradients have an axis of examples in front",
    "dion": "the first basis is random",
    "dpsgd": "noise; its gradients have an axis of examples in front",
    "flatten": "its member sees one vector, which has no layers",
    "hutchinson_estimator_diag_hessian": "random probes depend on the path",
    "layerwise_decay": "its factors depend on the shape and the path",
    "noisy_sgd": "random numbers depend on the path",
    "psgd_kron": "random probes depend on the path",
    "qk_clip": "its logits are those of one module, by path",
    "scale_by_dion": "the first basis is random",
    "scale_by_psgd_kron": "random probes depend on the path",
    "scale_by_sophia": "random probes depend on the path",
    "sophia": "random probes depend on the path",
    "stacked": "its pattern fits the arrays of its own row",
    "stored": "random rounding depends on the path, and scales of blocks span layers",
    "transfer": "its factors depend on the shape and the path",
}
"""Why a method need not be equal."""
NAMES = [name for name in MAKERS if name not in DIFFERENT]


def layer(generator: Any, scale: float) -> dict[str, Any]:
    return {name: scale * generator.normal(size=shape) for name, shape in SHAPES.items()}


def tree(seed: int, scales: tuple[float, ...] = (1.0, 0.1, 10.0)) -> dict[str, Any]:
    """Layers of different sizes, and a matrix outside of them."""
    generator = np.random.default_rng(seed)
    return {
        "layers": [layer(generator, scale) for scale in scales],
        "out": generator.normal(size=(5, 2)),
    }


def as_stack(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "layers": jax.tree.map(lambda *each: jnp.stack(each), *found["layers"])}


def history(tx: Any, trees: list[Any]) -> list[Any]:
    """The updates of some steps."""
    params, *grads = [jax.tree.map(jnp.asarray, one) for one in trees]
    state, found = tx.init(params), []
    for grad in grads:
        updates, state = tx.update(grad, state, params, **extras(tx, params, grad))
        params = gradtx.apply_updates(params, updates)
        found.append(updates)
    return found


def largest_difference(name: str) -> float:
    """The largest difference of the two, relative to the largest entry of its array."""
    tx, trees = METHODS[name].tx, [tree(seed) for seed in range(3)]
    apart = [as_stack(one) for one in history(tx, trees)]
    together = history(gradtx.stacked(tx, r"^layers/"), [as_stack(one) for one in trees])
    pairs = jax.tree.leaves(jax.tree.map(lambda u, v: (u, v), apart, together), is_leaf=is_pair)
    # NumPy's maximum of a nan is nan, and no bound holds for it.
    return float(np.max([jnp.max(abs(u - v)) / jnp.max(abs(u) + 1e-30) for u, v in pairs]))


def is_pair(node: Any) -> bool:
    return isinstance(node, tuple)


@pytest.mark.parametrize("name", NAMES)
def test_each_layer_of_a_stack_is_as_an_array_of_its_own(name: str) -> None:
    with jax.enable_x64(True):
        assert largest_difference(name) <= 1e-9
