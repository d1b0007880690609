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
    "bf16": ("bfloat16",),
    "f16": ("float16",),
    "fp16": ("float16",),
    "f32": ("float32",),
    "fp32": ("float32",),
    "f64": ("float64",),
    "fp64": ("float64",),
}
"""Names of PyTorch, Keras and papers, and short names of dtypes, each with its names in gradtx."""


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
