"""Factors by path, and stacked layers."""

import gradtx
from tests.methods.row import Method, flat, rate
from tests.oracles import core, groups, norms
from tests.oracles.compose import after, descend, each


def by_place(end: str) -> float:
    """A factor by the last character of a path, in a list the place of the array."""
    return 0.5 ** int(end) if end.isdigit() else 0.5


METHODS: dict[str, Method] = {
    "multiply_by_path": Method(
        gradtx.multiply_by_path({r"^(?![12k])": 0.25}, otherwise=3.0),
        groups.multiply(0.25, 3.0, 3.0, 0.25),
    ),
    "multiply_by_path/functions": Method(
        gradtx.chain(gradtx.sgd(rate), gradtx.multiply_by_path({r"(.?)$": by_place})),
        after(descend(each(core.identity), rate), groups.multiply(1.0, 0.5, 0.25, 0.125)),
    ),
    "multiply_by_path/along": Method(
        gradtx.multiply_by_path({r"^1$|bias$": gradtx.along([4.0, 1.0, 0.0, 2.0])}, rate),
        groups.multiply(rate, [4.0, 1.0, 0.0, 2.0], rate, rate),
    ),
    "layerwise_decay": Method(
        gradtx.layerwise_decay(gradtx.sgd(0.1), 0.5, stacked=flat),
        after(
            descend(each(core.identity), 0.1),
            groups.multiply(1.0, [0.0625, 0.125, 0.25, 0.5], 1.0, 1.0),
        ),
    ),
    "stacked": Method(
        gradtx.stacked(gradtx.scale_by_trust_ratio(0.3, 0.5, 0.1), flat),
        groups.by_layer({1: 0}, norms.trust_ratio, min_norm=0.3, coefficient=0.5, eps=0.1),
    ),
    "stacked/factored": Method(
        gradtx.stacked(gradtx.adafactor(rate, 2, weight_decay_rate=0.01), r"^3$|kernel$", axis=1),
        groups.by_layer({3: 1}, norms.adafactor, eta=rate, least=2, decay=0.01),
    ),
}
