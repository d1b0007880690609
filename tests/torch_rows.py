"""The definitions that move parameters as the optimizers of torch and of pytorch_optimizer do, recorded by tests/traces/record_torch.py."""

import pathlib
from typing import Any

import numpy as np

import gradtx

TRACES = np.load(pathlib.Path(__file__).parent / "traces" / "torch.npz")

TORCH: dict[str, Any] = {
    "sgd": gradtx.sgd(0.1),
    "sgd/momentum": gradtx.sgd(0.1, momentum=0.9),
    "sgd/nesterov": gradtx.sgd(0.1, momentum=0.9, nesterov=True),
    "adagrad": gradtx.adagrad(0.1, initial_accumulator_value=0.0, eps=1e-10, eps_in_sqrt=False),
    "rmsprop": gradtx.rmsprop(0.01, decay=0.99, eps=1e-8, eps_in_sqrt=False),
    "rmsprop/centered": gradtx.rmsprop(0.01, decay=0.9, eps=1e-2, eps_in_sqrt=False, centered=True, momentum=0.9),
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
}
"""By the name of the trace: `optimizer`, or `optimizer/variant`."""


def torch_trace(name: str) -> list[list[np.ndarray]]:
    """The parameters after every step, leaf by leaf."""
    leaves = [TRACES[f"{name}/{leaf}"] for leaf in range(4)]
    return [list(step) for step in zip(*leaves, strict=True)]
