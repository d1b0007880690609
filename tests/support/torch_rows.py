"""The definitions that move parameters as the optimizers of torch and of pytorch_optimizer do,
recorded by tests/traces/record_torch.py.
"""

from typing import Any

import numpy as np

import gradtx
from tests.support.places import TRACES

RECORDED = np.load(TRACES / "torch.npz")

TORCH: dict[str, Any] = {
    "sgd": gradtx.sgd(0.1),
    "sgd/momentum": gradtx.sgd(0.1, momentum=0.9),
    "sgd/nesterov": gradtx.sgd(0.1, momentum=0.9, nesterov=True),
    "adagrad": gradtx.adagrad(0.1, initial_accumulator_value=0.0, eps=1e-10, eps_in_sqrt=False),
    "rmsprop": gradtx.rmsprop(0.01, decay=0.99, eps=1e-8, eps_in_sqrt=False),
    "rmsprop/centered": gradtx.rmsprop(
        0.01, decay=0.9, eps=1e-2, eps_in_sqrt=False, centered=True, momentum=0.9
    ),
    "adam": gradtx.adam(0.01),
    "adam/l2": gradtx.adam(0.01, weight_decay=0.1, decay_form="l2"),
    "adamw": gradtx.adamw(0.01, b2=0.99, weight_decay=0.1),
    "lion": gradtx.lion(0.01, weight_decay=0.1),
    "amsgrad": gradtx.amsgrad(0.01, b2=0.9, max_after_bias_correction=False),
    "adamax": gradtx.adamax(0.01),
    "grams": gradtx.grams(0.01, eps=1e-6, weight_decay=0.1),
    "stable_adamw": gradtx.stable_adamw(0.01, weight_decay=0.1),
    "adan": gradtx.adan(0.01, eps_root=0.0, difference_weight=0.92),
    "yogi": gradtx.yogi(0.01),
    "adabelief": gradtx.adabelief(0.01),
    "ademamix": gradtx.ademamix(0.01),
    "nadam": gradtx.nadam(0.01, momentum_decay=0.004),
    "radam": gradtx.radam(0.01, b2=0.99, eps=0.0),
    "adadelta": gradtx.adadelta(1.0),
    "rprop": gradtx.rprop(0.01),
    "adafactor": gradtx.adafactor(0.01, min_dim_size_to_factor=1, eps=0.0),
    "came": gradtx.came(0.01, weight_decay=0.1),
    "tiger": gradtx.tiger(0.01, weight_decay=0.1),
    "madgrad": gradtx.madgrad(0.01),
    "fromage": gradtx.fromage(0.01),
    "prodigy": gradtx.prodigy(1.0, eps=0.0),
    "schedule_free_sgd": gradtx.schedule_free_sgd(0.1),
}
"""By the name of the trace: `optimizer`, or `optimizer/variant`."""

TORCH_MUON: dict[str, Any] = {
    "muon": gradtx.muon(
        0.1,
        "jordan",
        weight_decay=0.1,
        bias_correction=False,
        dimensions=[("0", "out in")],
        routes=[("3", "adam")],
    ),
    "muon/match_rms": gradtx.muon(
        0.1,
        "jordan",
        weight_decay=0.1,
        bias_correction=False,
        dimensions=[("0", "out in")],
        routes=[("3", "adam")],
        scaling="match_rms_adamw",
    ),
}
"""On the first array alone, a matrix; torch iterates in bfloat16, whatever the dtype."""


def torch_trace(name: str) -> list[list[np.ndarray]]:
    """The parameters after every step, leaf by leaf."""
    leaves = [RECORDED[f"{name}/{leaf}"] for leaf in range(4)]
    return [list(step) for step in zip(*leaves, strict=True)]
