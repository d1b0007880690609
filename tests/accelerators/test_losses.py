"""Cross-entropies as the TPU and GPU compilers see them: no copy of the logits, no more passes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from benchmarks.accelerators import megacycles
from benchmarks.compilers import Counts
from gradtx.losses.chunked import chunked_softmax_cross_entropy
from gradtx.losses.cross_entropy import (
    safe_softmax_cross_entropy,
    softmax_cross_entropy,
    softmax_cross_entropy_with_integer_labels,
)
from tests.accelerators.programs import compiled_for

TOKENS, FEATURES, CLASSES = 8192, 768, 50304
SCALARS = 32
"""Bytes of each token: its peak, its sum, its loss, its label, each stored twice at most."""
INTEGER = "softmax_cross_entropy_with_integer_labels"
LOSSES = {
    INTEGER: (softmax_cross_entropy_with_integer_labels, jnp.int32, (TOKENS,)),
    "softmax_cross_entropy": (softmax_cross_entropy, jnp.bfloat16, (TOKENS, CLASSES)),
    "safe_softmax_cross_entropy": (safe_softmax_cross_entropy, jnp.bfloat16, (TOKENS, CLASSES)),
}


def zeros(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def mean(loss: Any, *args: Any) -> jax.Array:
    return jnp.mean(loss(*args).astype(jnp.float32))


@functools.cache
def gradient(platform: str, name: str, is_peer: bool) -> Counts:
    """Loss and gradient of bfloat16 logits."""
    loss, dtype, shape = LOSSES[name]
    loss = getattr(optax, name) if is_peer else loss
    step = jax.jit(jax.value_and_grad(functools.partial(mean, loss)))
    logits = zeros((TOKENS, CLASSES), jnp.bfloat16)
    return compiled_for(platform, step, logits, zeros(shape, dtype)).counts


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("name", LOSSES)
def test_gradient_stores_no_copy_of_the_logits(platform: str, name: str) -> None:
    """Beside its result it takes a few numbers per token: no more bytes and cycles than Optax's."""
    mine, theirs = (gradient(platform, name, is_peer) for is_peer in (False, True))
    print(f"\ngradtx {mine}\noptax  {theirs}")
    logits = TOKENS * CLASSES * 2
    assert mine.temp_bytes <= theirs.temp_bytes + SCALARS * TOKENS
    assert mine.temp_bytes <= logits / 100
    assert megacycles(mine) <= 1.001 * megacycles(theirs)  # a millionth more per token


def layer(loss: Any, hidden: jax.Array, embedding: jax.Array, labels: jax.Array) -> jax.Array:
    logits = jnp.matmul(hidden, embedding)
    return loss(logits, labels)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_chunked_form_takes_an_eighth_of_the_memory(platform: str, dtype: Any) -> None:
    """32k tokens, 50k classes, loss and both gradients."""
    tokens = 4 * TOKENS
    args = zeros((tokens, FEATURES), dtype), zeros((FEATURES, CLASSES), dtype)
    labels = zeros((tokens,), jnp.int32)
    plain = functools.partial(layer, softmax_cross_entropy_with_integer_labels)
    mine, theirs = (
        compiled_for(
            platform,
            jax.jit(jax.value_and_grad(functools.partial(mean, loss), (0, 1))),
            *args,
            labels,
        ).counts
        for loss in (chunked_softmax_cross_entropy, plain)
    )
    print(f"\nchunked {mine}\nplain   {theirs}")
    assert mine.temp_bytes <= theirs.temp_bytes / 8
