"""Suggestions for misspelt names, and for the names that other libraries use."""

import difflib
import enum
import re
from collections.abc import Collection
from typing import Any

SPELLINGS: dict[str, tuple[str, ...]] = {
    "lr": ("learning_rate",),
    "max_lr": ("peak_value",),
    "betas": ("b1", "b2"),
    "beta": ("b1",),
    "beta1": ("b1",),
    "beta2": ("b2",),
    "wd": ("weight_decay",),
    "lambda": ("weight_decay",),
    "lambda_": ("weight_decay",),
    "lambd": ("weight_decay",),
    "epsilon": ("eps",),
    "alpha": ("decay",),
    "gamma": ("decay_rate",),
    "T_max": ("decay_steps",),
    "max_grad_norm": ("max_norm",),
    "every_k_schedule": ("every",),
    "every_k": ("every",),
    "k": ("every",),
    "accumulation_steps": ("every",),
    "gradient_accumulation_steps": ("every",),
    "StepLR": ("exponential_decay",),
    "MultiStepLR": ("piecewise_constant_schedule",),
    "ExponentialLR": ("exponential_decay",),
    "LinearLR": ("linear_schedule",),
    "PolynomialLR": ("polynomial_schedule",),
    "CosineAnnealingLR": ("cosine_decay_schedule",),
    "CosineAnnealingWarmRestarts": ("sgdr_schedule",),
    "OneCycleLR": ("cosine_onecycle_schedule",),
    "SequentialLR": ("join_schedules",),
    "GradScaler": ("dynamic_loss_scale",),
    "AveragedModel": ("params_average", "params_ema"),
    "ExponentialMovingAverage": ("params_ema",),
    "clip_grad_value_": ("clip",),
    "EMA": ("params_ema",),
    "optim": ("adamw", "sgd"),
    "adamw_8bit": ("stored", "adamw"),
    "muon_with_adam": ("muon",),
    "adam_lr": ("adam_learning_rate",),
    "wsd": ("phases", "warmup_stable_decay_schedule"),
    "one_cycle": ("cosine_onecycle_schedule",),
    "cosine_annealing": ("cosine_decay_schedule",),
    "layerwise": ("layerwise_decay", "multiply_by_path"),
    "llrd": ("masked", "scale"),
    "lora": ("freeze", "partition"),
    "train_step": ("make_step",),
    "TrainState": ("make_step",),
    "checkpoint": ("save", "load"),
    "save_checkpoint": ("save",),
    "load_checkpoint": ("load",),
    "restore_checkpoint": ("load",),
    "bf16": ("bfloat16",),
    "f16": ("float16",),
    "fp16": ("float16",),
    "f32": ("float32",),
    "fp32": ("float32",),
    "f64": ("float64",),
    "fp64": ("float64",),
}
"""Names of PyTorch, Keras and papers, and short names of dtypes, each with its names in gradtx."""


UPDATE = (
    "call updates, state = tx.update(grads, state, params), or build a step with "
    "gradtx.make_step(loss_fn, tx)"
)
GROUPS = "give each group its transformation with gradtx.partition({name: tx}, rules)"
METHODS: dict[str, dict[str, str]] = {
    "transformations": {
        "step": UPDATE,
        "apply": UPDATE,
        "apply_gradients": UPDATE,
        "minimize": UPDATE,
        "zero_grad": "gradients are values that jax.grad returns, and nothing adds them up",
        "param_groups": GROUPS,
        "add_param_group": GROUPS,
        "state": "the state is a value of its own, state = tx.init(params)",
        "state_dict": "save the state that update returned, gradtx.save(path, state)",
        "load_state_dict": "load a state with gradtx.load(path, tx.init(params))",
        "lr": 'read gradtx.hyperparams(tx)["learning_rate"]',
    },
    "schedules": {
        "step": "a schedule has no state, the count of the optimizer's state drives it",
        "get_last_lr": "call schedule(state.count), or read gradtx.hyperparams(tx, state)",
    },
}
"""Methods of PyTorch and Keras, by the kind of definition, each with the way to do it here."""


def suggest(name: str, known: Collection[str]) -> str:
    """Propose the known name that was probably meant, as part of a message; "" without one.

    >>> suggest("AdamW", ["adam", "adamw"]), suggest("betas", ["b1", "b2", "eps"])
    ("; did you mean 'adamw'?", "; did you mean 'b1' and 'b2'?")
    """
    names = [one for one in SPELLINGS.get(name, ()) if one in known] or _nearest(name, known)
    return f"; did you mean {' and '.join(map(repr, names))}?" if names else ""


def _nearest(name: str, known: Collection[str]) -> list[str]:
    """Find the nearest name; case and underscores do not count: `AdamMini` is `adam_mini`."""
    plain = {plain_name(one): one for one in known}
    return [plain[one] for one in difflib.get_close_matches(plain_name(name), plain, n=1)]


def plain_name(name: str) -> str:
    """A name without what people spell in different ways: case and separators."""
    return re.sub(r"[\s_-]", "", name).lower()


def label_text(label: Any) -> str:
    """A label as a name in paths: an Enum by its name, anything else as it prints."""
    if isinstance(label, str):
        return str.__str__(label)  # the value of an Enum that is also a text
    return label.name if isinstance(label, enum.Enum) else str(label)


def is_number_text(value: Any) -> bool:
    """Whether a value is the text of a number, as YAML reads 1e-3."""
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return isinstance(value, str)
