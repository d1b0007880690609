"""Words that users search for, and the pages that answer them: one of them is among the first.

A page that does not exist is left out, and a word without any page is an error.
"""

from typing import NamedTuple

FIRST = 5
"""How far down the list a reader looks."""


class Word(NamedTuple):
    """A query, with the pages that answer it."""

    query: str
    pages: tuple[str, ...]


WORDS = [
    Word(
        "equinox",
        (
            "recipes/equinox",
            "downstream",
            "faq",
        ),
    ),
    Word(
        "LoRA",
        (
            "recipes/lora",
            "recipes/fine_tuning",
        ),
    ),
    Word(
        "gradient accumulation",
        (
            "recipes/gradient_accumulation",
            "concepts",
            "api/wrappers",
        ),
    ),
    Word(
        "learning rate finder",
        (
            "api/logging",
            "getting_started",
            "choose",
        ),
    ),
    Word(
        "nan",
        (
            "faq",
            "concepts",
            "api/wrappers",
        ),
    ),
    Word(
        "exponential moving average",
        (
            "recipes/ema_swa",
            "concepts",
            "api/wrappers",
        ),
    ),
    Word(
        "mixed precision",
        (
            "recipes/mixed_precision",
            "storage",
            "concepts",
        ),
    ),
    Word(
        "loss scaling",
        (
            "recipes/mixed_precision",
            "concepts",
            "api/wrappers",
        ),
    ),
    Word(
        "warmup",
        (
            "schedules",
            "api/schedules",
        ),
    ),
    Word(
        "cooldown",
        (
            "schedules",
            "api/schedules",
        ),
    ),
    Word(
        "layer-wise learning rate decay",
        (
            "recipes/layerwise_decay",
            "recipes/fine_tuning",
        ),
    ),
    Word(
        "parameter groups",
        (
            "recipes/parameter_groups",
            "api/parameter_groups",
            "concepts",
        ),
    ),
    Word(
        "weight decay mask",
        (
            "concepts",
            "faq",
            "api/parameter_groups",
        ),
    ),
    Word(
        "freeze",
        (
            "recipes/fine_tuning",
            "api/parameter_groups",
            "concepts",
        ),
    ),
    Word(
        "fine-tuning",
        (
            "recipes/fine_tuning",
            "recipes/lora",
        ),
    ),
    Word(
        "checkpoint",
        (
            "recipes/checkpoints",
            "concepts",
            "api/checkpoints",
        ),
    ),
    Word(
        "resume",
        (
            "recipes/checkpoints",
            "concepts",
            "api/checkpoints",
        ),
    ),
    Word("data parallel", ("recipes/data_parallel",)),
    Word("FSDP", ("recipes/data_parallel",)),
    Word("ZeRO", ("recipes/data_parallel",)),
    Word(
        "sharding",
        (
            "recipes/data_parallel",
            "api/sharding",
        ),
    ),
    Word(
        "8-bit",
        (
            "recipes/eight_bit_state",
            "storage",
        ),
    ),
    Word(
        "bf16",
        (
            "storage",
            "recipes/mixed_precision",
        ),
    ),
    Word(
        "gradient clipping",
        (
            "api/clipping",
            "concepts",
        ),
    ),
    Word(
        "logging",
        (
            "recipes/logging",
            "api/logging",
        ),
    ),
    Word(
        "TensorBoard",
        (
            "recipes/logging",
            "api/logging",
        ),
    ),
    Word("wandb", ("recipes/logging",)),
    Word(
        "progress bar",
        (
            "recipes/logging",
            "recipes/sweep",
        ),
    ),
    Word(
        "sweep",
        (
            "recipes/sweep",
            "api/hyperparameters",
            "concepts",
        ),
    ),
    Word(
        "flax",
        (
            "recipes/flax_linen",
            "recipes/flax_nnx",
            "downstream",
        ),
    ),
    Word(
        "nnx",
        (
            "recipes/flax_nnx",
            "downstream",
        ),
    ),
    Word("linen", ("recipes/flax_linen",)),
    Word(
        "haiku",
        (
            "recipes/haiku",
            "downstream",
        ),
    ),
    Word(
        "orbax",
        (
            "recipes/checkpoints",
            "api/checkpoints",
        ),
    ),
    Word("PyTorch", ("from_torch",)),
    Word(
        "troubleshooting",
        (
            "faq",
            "concepts",
        ),
    ),
    Word("FAQ", ("faq",)),
    Word(
        "Muon",
        (
            "recipes/muon_transformer",
            "choose",
            "api/muon",
        ),
    ),
    Word(
        "L-BFGS",
        (
            "recipes/lbfgs",
            "api/muon",
        ),
    ),
    Word("recompilation", ("faq",)),
    Word("Optax", ("from_optax",)),
    Word(
        "benchmarks",
        (
            "performance",
            "contributing",
        ),
    ),
]
