"""Cross-entropies and CTC against Optax, and the chunked form against plain logits, on the CPU.

Time of a compiled call, forward and with its gradient, and temporary bytes by XLA. `--quick` runs
everything with tiny arrays and writes no record.
"""

import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.harness import Row, arguments, compared, finish, interleave, seconds
from gradtx.losses import chunked, cross_entropy, ctc

SIZES = {"logits": (512, 16384), "ctc": (16, 400, 60, 1000), "layer": (4096, 256, 16384)}
QUICK = {"logits": (8, 64), "ctc": (2, 8, 3, 10), "layer": (64, 8, 128)}
CHUNKED = "chunked_softmax_cross_entropy, float32"
SCALARS = 24
"""Bytes of each example that a table of bytes does not count."""
TIME = {"chunked forward": 1.5, "chunked gradient": 1.5}
"""Bars of time that are not 1: the chunked form computes its logits twice, 8/6 of the products."""

Sides = dict[str, Callable[..., jax.Array]]


def loss_rows(runs: int, sizes: dict[str, tuple[int, ...]]) -> Iterator[Row]:
    for name, sides, args in cases(sizes):
        count = args[0].shape[0]
        for way, make in (("forward", jax.jit), ("gradient", with_gradient)):
            compiled = {side: make(loss).lower(*args).compile() for side, loss in sides.items()}
            calls = {
                side: functools.partial(seconds, call, *args) for side, call in compiled.items()
            }
            bar = TIME.get(f"{name.partition('_')[0]} {way}", 1.0)
            yield compared(f"{name}: {way}", interleave(calls, runs), "peer", bar)
            yield bytes_row(f"{name}: {way}, temporary", compiled, count, name)


def with_gradient(loss: Callable[..., jax.Array]) -> Any:
    """The mean of the losses and its gradient to the first argument; to both of a layer."""

    def mean(*args: jax.Array) -> jax.Array:
        return jnp.mean(loss(*args).astype(jnp.float32))

    return jax.jit(jax.value_and_grad(mean, (0, 1) if loss in LAYERS else 0))


def bytes_row(name: str, compiled: dict[str, Any], count: int, loss: str) -> Row:
    used = {
        side: max(call.memory_analysis().temp_size_in_bytes, SCALARS * count)
        for side, call in compiled.items()
    }
    bar = 1 / 8 if loss == CHUNKED else 1.0
    return Row(name, used, used["gradtx"] / used["peer"], bar, "B")


def cases(sizes: dict[str, tuple[int, ...]]) -> Iterator[tuple[str, Sides, tuple[Any, ...]]]:
    rows, classes = sizes["logits"]
    keys = jax.random.split(jax.random.key(0), 4)
    soft = jax.nn.softmax(jax.random.normal(keys[1], (rows, classes)))
    index = jax.random.randint(keys[2], (rows,), 0, classes)
    for dtype in (jnp.float32, jnp.bfloat16):
        logits = jax.random.normal(keys[0], (rows, classes)).astype(dtype)
        for name, labels in (
            ("softmax_cross_entropy_with_integer_labels", index),
            ("softmax_cross_entropy", soft.astype(dtype)),
            ("safe_softmax_cross_entropy", soft.astype(dtype)),
        ):
            sides = {"gradtx": getattr(cross_entropy, name), "peer": getattr(optax, name)}
            yield f"{name}, {jnp.dtype(dtype).name}", sides, (logits, labels)
    yield "ctc_loss, float32", {"gradtx": ctc.ctc_loss, "peer": optax.ctc_loss}, ctc_args(sizes)
    tokens, features, classes = sizes["layer"]
    args = (
        jax.random.normal(keys[0], (tokens, features)),
        jax.random.normal(keys[1], (features, classes)) / features**0.5,
        jax.random.randint(keys[2], (tokens,), 0, classes),
    )
    yield CHUNKED, {"gradtx": LAYERS[0], "peer": LAYERS[1]}, args


def ctc_args(sizes: dict[str, tuple[int, ...]]) -> tuple[jax.Array, ...]:
    batch, frames, labels, classes = sizes["ctc"]
    keys = jax.random.split(jax.random.key(1))
    return (
        jax.random.normal(keys[0], (batch, frames, classes)),
        jnp.zeros((batch, frames)),
        jax.random.randint(keys[1], (batch, labels), 1, classes),
        jnp.zeros((batch, labels)),
    )


def plain_layer(hidden: jax.Array, embedding: jax.Array, labels: jax.Array) -> jax.Array:
    return cross_entropy.softmax_cross_entropy_with_integer_labels(hidden @ embedding, labels)


LAYERS = (chunked.chunked_softmax_cross_entropy, plain_layer)


def main() -> int:
    options = arguments(__doc__, quick=False)
    options.dry = options.dry or options.quick
    sizes = QUICK if options.quick else SIZES
    rows = list(loss_rows(2 if options.quick else options.runs, sizes))
    return finish("cross_entropy", rows, options)


if __name__ == "__main__":
    sys.exit(main())
