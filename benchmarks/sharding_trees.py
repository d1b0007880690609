"""The trees of `benchmarks.sharding`: small transformers, by layer and with layers stacked."""

from collections.abc import Callable
from typing import Any

from benchmarks.trees import Tree, array


def by_layer(width: int = 128, layers: int = 4, vocabulary: int = 512) -> Tree:
    """A transformer of 35 leaves, 0.92 M parameters."""
    return {
        "embedding": array(vocabulary, width),
        "head": array(width, vocabulary),
        "norm": array(width),
        **{f"layer_{number}": _layer(width) for number in range(layers)},
    }


def _layer(width: int, *front: int) -> Tree:
    """The eight leaves of a layer, or of a stack of layers."""
    square = {name: array(*front, width, width) for name in ("q", "k", "v", "o")}
    return {
        "norm_1": array(*front, width),
        **square,
        "norm_2": array(*front, width),
        "up": array(*front, width, 4 * width),
        "down": array(*front, 4 * width, width),
    }


def stacked(width: int = 128, layers: int = 4, vocabulary: int = 512) -> Tree:
    """The same with the layers stacked, as `jax.lax.scan` wants them: 11 leaves."""
    return {**by_layer(width, 0, vocabulary), "layers": _layer(width, layers)}


def importance(width: int = 2048, layers: int = 8) -> Tree:
    """The network of goodfire-ai/spd#978, one chunk of 8 blocks, as its configuration says."""
    return {
        "input": array(1, 3072, width),
        "output": array(1, width, 36864),
        **{f"layer_{number}": _layer(width, 1) for number in range(layers)},
    }


TREES: dict[str, Callable[[], Any]] = {
    "by layer": by_layer,
    "stacked": stacked,
    "stacked, d = 2048": lambda: stacked(2048, 4, 4096),
    "spd#978": importance,
}
