"""Factors by path, and stacked layers."""

import functools
from typing import Any

import jax

import gradtx
from gradtx.engine.selector import PerLeaf
from gradtx.tree.paths import is_none
from tests.methods.row import Method, rate
from tests.oracles import core, groups, norms
from tests.oracles.compose import after, descend, each


def by_place(end: str) -> float:
    """A factor by the last character of a path, in a list the place of the array."""
    return 0.5 ** int(end) if end.isdigit() else 0.5


def first_of(axes: int, params: Any) -> PerLeaf:
    """A mask as a function of the parameters: the first array of some axes, if there is one."""
    leaves = jax.tree.leaves(params, is_leaf=is_none)
    places = [n for n, leaf in enumerate(leaves) if getattr(leaf, "ndim", None) == axes]
    return PerLeaf(n in places[:1] for n in range(len(leaves)))


vectors, blocks = functools.partial(first_of, 1), functools.partial(first_of, 3)


METHODS: dict[str, Method] = {
    "multiply_by_path": Method(
        gradtx.multiply_by_path({r"^(?!1|2|dense/k)": 0.25}, otherwise=0.5),
        groups.multiply(0.25, 0.5, 0.5, 0.25),
        breaks=("leaf_order",),  # the names of the leaves decide
    ),
    "multiply_by_path/functions": Method(
        gradtx.chain(gradtx.sgd(rate), gradtx.multiply_by_path({r"(.?)$": by_place})),
        after(descend(each(core.identity), rate), groups.multiply(1.0, 0.5, 0.25, 0.125)),
    ),
    "layerwise_decay": Method(
        gradtx.layerwise_decay(gradtx.sgd(0.1), 0.5, stacked=vectors),
        after(
            descend(each(core.identity), 0.1),
            groups.multiply(1.0, [0.0625, 0.125, 0.25, 0.5], 1.0, 1.0),
        ),
        breaks=("leaf_order",),  # the names of the leaves decide
    ),
    "stacked": Method(
        gradtx.stacked(gradtx.scale_by_trust_ratio(0.3, 0.5, 0.1), vectors),
        groups.by_layer({1: 0}, norms.trust_ratio, min_norm=0.3, coefficient=0.5, eps=0.1),
    ),
    "stacked/factored": Method(
        gradtx.stacked(gradtx.adafactor(rate, 2, weight_decay_rate=0.01), blocks, axis=1),
        groups.by_layer({3: 1}, norms.adafactor, eta=rate, least=2, decay=0.01),
    ),
}
