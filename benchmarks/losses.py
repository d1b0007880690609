"""Time of each loss and of its gradient, jitted on the CPU, against Optax's; interleaved.

`--only NAME` measures one loss. The arrays are float32; entries of the last axis are classes,
features or items.
"""

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax.losses

import gradtx.losses
from benchmarks.harness import Row, arguments, compared, finish, interleave, seconds

LIBRARIES = {"gradtx": gradtx.losses, "optax": optax.losses}
BAR = 1.0
LONG = 3
"""Calls of one timed run: most calls take less than a millisecond."""

Shape = tuple[int, ...]


class Loss(NamedTuple):
    """The arguments of one loss: what fills each array, and its shape."""

    arrays: Mapping[str, Shape]
    kwargs: Mapping[str, Any] = {}


ENTRIES, CLASSES = (1024, 1024), (2048, 512)
IMAGES, ROWS = (8, 64, 64, 16), (512, 128)
PAIR = {"normal": ENTRIES, "normal ": ENTRIES}
BINARY = {"normal": ENTRIES, "binary": ENTRIES}
INDEXED = {"normal": CLASSES, "label": CLASSES[:1]}
CHANCES = {"log_chance": CLASSES, "chance": CLASSES}
LOSSES = {
    "squared_error": Loss(PAIR),
    "l2_loss": Loss(PAIR),
    "huber_loss": Loss(PAIR),
    "log_cosh": Loss(PAIR),
    "cosine_similarity": Loss({"normal": CLASSES, "normal ": CLASSES}),
    "cosine_distance": Loss({"normal": CLASSES, "normal ": CLASSES}),
    "kl_divergence": Loss(CHANCES),
    "kl_divergence_with_log_targets": Loss({"log_chance": CLASSES, "log_chance ": CLASSES}),
    "generalized_kl_divergence": Loss(CHANCES),
    "hinge_loss": Loss({"normal": ENTRIES, "sign": ENTRIES}),
    "perceptron_loss": Loss({"normal": ENTRIES, "sign": ENTRIES}),
    "sparsemax_loss": Loss(BINARY),
    "sigmoid_binary_cross_entropy": Loss(BINARY),
    "sigmoid_focal_loss": Loss(BINARY, {"alpha": 0.25}),
    "multiclass_hinge_loss": Loss(INDEXED),
    "multiclass_perceptron_loss": Loss(INDEXED),
    "multiclass_sparsemax_loss": Loss(INDEXED),
    "poly_loss_cross_entropy": Loss({"normal": CLASSES, "chance": CLASSES}),
    "smooth_labels": Loss({"chance": CLASSES}, {"alpha": 0.1}),
    "ranking_softmax_loss": Loss({"normal": CLASSES, "binary": CLASSES}),
    "dice_loss": Loss({"normal": IMAGES, "chance": IMAGES}),
    "binary_dice_loss": Loss({"normal": IMAGES, "binary": IMAGES}),
    "multiclass_generalized_dice_loss": Loss({"normal": IMAGES, "chance": IMAGES}),
    "ntxent": Loss({"normal": ROWS, "pairs": ROWS[:1]}),
    "triplet_margin_loss": Loss({"normal": CLASSES, "normal ": CLASSES, "normal  ": CLASSES}),
    "make_fenchel_young_loss": Loss({"normal": CLASSES, "chance": CLASSES}),
}


def filled(kind: str, shape: Shape, key: jax.Array) -> jax.Array:
    """An array of one kind."""
    normal = jax.random.normal(key, shape)
    if kind in ("label", "pairs"):
        count = CLASSES[-1] if kind == "label" else shape[0] // 2
        return jnp.arange(shape[0]) % count
    return {
        "normal": lambda: normal,
        "sign": lambda: jnp.sign(normal),
        "binary": lambda: (normal > 0).astype(jnp.float32),
        "chance": lambda: jax.nn.softmax(normal),
        "log_chance": lambda: jax.nn.log_softmax(normal),
    }[kind]()


def inputs(name: str) -> list[jax.Array]:
    """The arrays of a loss, on the device."""
    shapes = LOSSES[name].arrays
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return [
        filled(kind.strip(), shape, key)
        for (kind, shape), key in zip(shapes.items(), keys, strict=True)
    ]


def function(library: str, name: str) -> Callable[..., Any]:
    """A loss of a library, with its keyword arguments."""
    loss = getattr(LIBRARIES[library], name)
    if name == "make_fenchel_young_loss":
        return loss(jax.nn.logsumexp)
    return functools.partial(loss, **LOSSES[name].kwargs)


def programs(library: str, name: str) -> dict[str, Any]:
    """The loss, and the gradient of its mean to the first array, as users jit them."""
    loss = function(library, name)

    def mean(*arrays: jax.Array) -> jax.Array:
        return jnp.mean(loss(*arrays))

    return {"forward": jax.jit(mean), "gradient": jax.jit(jax.grad(mean))}


def temporary_bytes(library: str, name: str) -> dict[str, int]:
    """The temporary bytes of both compiled programs."""
    shapes = jax.eval_shape(lambda: inputs(name))
    found: dict[str, int] = {}
    for program, jitted in programs(library, name).items():
        memory = jitted.lower(*shapes).compile().memory_analysis()
        found[program] = int(memory.temp_size_in_bytes)
    return found


def repeated(program: Callable[..., Any], *arrays: jax.Array) -> list[Any]:
    return [program(*arrays) for _ in range(LONG)]


def rows(runs: int, only: str = "") -> Iterator[Row]:
    for name in LOSSES if not only else [only]:
        arrays = inputs(name)
        both = {library: programs(library, name) for library in LIBRARIES}
        for program in ("forward", "gradient"):
            sides = {
                library: functools.partial(seconds, repeated, each[program], *arrays)
                for library, each in both.items()
            }
            yield compared(f"{name}: {program}", interleave(sides, runs), bar=BAR)
        counts = {library: temporary_bytes(library, name) for library in LIBRARIES}
        for program in ("forward", "gradient"):
            values = {library: each[program] for library, each in counts.items()}
            yield Row(f"{name}: {program}, temporary", values, bar=values["optax"], unit="B")


def main() -> int:
    options = arguments(__doc__, only="")
    return finish("losses", list(rows(options.runs, options.only)), options)


if __name__ == "__main__":
    sys.exit(main())
