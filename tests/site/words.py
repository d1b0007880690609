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
    Word("equinox", ("recipes/equinox", "downstream", "faq")),
    Word("LoRA", ("recipes/fine_tuning", "recipes/lora")),
    Word("gradient accumulation", ("recipes/gradient_accumulation", "concepts", "api/wrappers")),
    Word("learning rate finder", ("api/logging", "getting_started")),
    Word("nan", ("faq", "concepts", "api/wrappers")),
    Word("exponential moving average", ("recipes/ema", "concepts", "api/wrappers")),
    Word("mixed precision", ("recipes/mixed_precision", "storage", "concepts")),
    Word("loss scaling", ("recipes/mixed_precision", "concepts", "api/wrappers")),
    Word("warmup", ("schedules", "api/schedules")),
    Word("cooldown", ("schedules", "api/schedules")),
    Word("layer-wise learning rate decay", ("recipes/fine_tuning", "recipes/layerwise_decay")),
    Word("parameter groups", ("api/parameter_groups", "concepts", "from_torch")),
    Word("weight decay mask", ("concepts", "faq", "api/parameter_groups")),
    Word("freeze", ("api/parameter_groups", "concepts", "recipes/fine_tuning")),
    Word("fine-tuning", ("recipes/fine_tuning", "choose")),
    Word("checkpoint", ("recipes/checkpoint", "concepts", "api/checkpoints")),
    Word("resume", ("recipes/checkpoint", "concepts", "api/checkpoints")),
    Word("data parallel", ("recipes/data_parallel", "recipes/fsdp")),
    Word("FSDP", ("recipes/data_parallel", "recipes/fsdp")),
    Word("ZeRO", ("recipes/data_parallel", "recipes/fsdp", "recipes/zero")),
    Word("sharding", ("api/sharding", "recipes/fsdp")),
    Word("8-bit", ("storage", "recipes/eight_bit")),
    Word("bf16", ("storage", "recipes/mixed_precision")),
    Word("gradient clipping", ("api/clipping", "concepts")),
    Word("logging", ("api/logging", "recipes/logging")),
    Word("TensorBoard", ("recipes/logging", "api/logging")),
    Word("W&B", ("recipes/logging", "api/logging")),
    Word("progress bar", ("recipes/logging", "recipes/sweep")),
    Word("sweep", ("recipes/sweep", "api/hyperparameters", "concepts")),
    Word("flax", ("recipes/flax_linen", "recipes/flax_nnx", "downstream")),
    Word("nnx", ("recipes/flax_nnx", "downstream")),
    Word("linen", ("recipes/flax_linen",)),
    Word("haiku", ("recipes/haiku", "downstream")),
    Word("orbax", ("recipes/checkpoint", "concepts", "api/checkpoints", "downstream")),
    Word("PyTorch", ("from_torch",)),
    Word("troubleshooting", ("faq", "concepts")),
    Word("FAQ", ("faq",)),
    Word("Muon", ("choose", "api/muon", "recipes/muon")),
    Word("L-BFGS", ("recipes/lbfgs", "api/muon", "optimizers")),
    Word("recompilation", ("faq",)),
    Word("Optax", ("from_optax",)),
    Word("benchmarks", ("performance",)),
]
