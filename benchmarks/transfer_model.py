"""A small transformer of any width: four heads, two blocks, a head of its own."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

HEADS, DEPTH, BASE = 4, 2, 64


class Shape(NamedTuple):
    """The sizes of a network."""

    symbols: int
    width: int


def init(seed: int, shape: Shape) -> dict[str, Any]:
    """Draw normal weights of variance 1 / inputs; the head starts smaller."""
    rng, width = np.random.default_rng(seed), shape.width
    return {
        "embed": _normal(rng, (shape.symbols, width), 1.0),
        "blocks": [_block(rng, width) for _ in range(DEPTH)],
        "norm": jnp.ones(width),
        "lm_head": {"kernel": _normal(rng, (width, shape.symbols), 0.5 / math.sqrt(width))},
    }


def _normal(rng: np.random.Generator, shape: tuple[int, ...], deviation: float) -> jax.Array:
    return jnp.asarray(rng.normal(scale=deviation, size=shape), jnp.float32)


def _block(rng: np.random.Generator, width: int) -> dict[str, Any]:
    inward = 1 / math.sqrt(width)
    return {
        "attention": {
            "norm": jnp.ones(width),
            "qkv": {"kernel": _normal(rng, (width, 3 * width), inward)},
            "out": {"kernel": _normal(rng, (width, width), inward)},
        },
        "mlp": {
            "norm": jnp.ones(width),
            "up": {"kernel": _normal(rng, (width, 4 * width), inward)},
            "down": {"kernel": _normal(rng, (4 * width, width), inward / 2)},
        },
    }


def activations(params: Any, symbols: jax.Array, scale: float) -> dict[str, jax.Array]:
    """The output of every module by name, the logits last; `scale` multiplies q · k."""
    stream = params["embed"][symbols]
    found = {"embed": stream}
    for number, block in enumerate(params["blocks"]):
        attended = _attend(block["attention"], stream, scale)
        stream = stream + attended
        mixed = _mlp(block["mlp"], stream)
        stream = stream + mixed
        found |= {f"blocks/{number}/attention": attended, f"blocks/{number}/mlp": mixed}
    return {**found, "logits": _rms_norm(stream, params["norm"]) @ params["lm_head"]["kernel"]}


def _rms_norm(stream: jax.Array, gain: jax.Array) -> jax.Array:
    return stream * jax.lax.rsqrt(jnp.mean(stream**2, axis=-1, keepdims=True) + 1e-6) * gain


def _attend(weights: Any, stream: jax.Array, scale: float) -> jax.Array:
    """Causal attention with a bias that grows with distance, by a slope per head (ALiBi)."""
    batch, time, width = stream.shape
    mixed = _rms_norm(stream, weights["norm"]) @ weights["qkv"]["kernel"]
    q, k, v = jnp.split(mixed.reshape(batch, time, HEADS, -1), 3, axis=-1)
    distance = jnp.arange(time)[:, None] - jnp.arange(time)[None]
    bias = -(0.25 ** jnp.arange(HEADS))[None, :, None, None] * distance[None, None]
    values = jax.nn.dot_product_attention(q, k, v, bias=bias, scale=scale, is_causal=True)
    return values.reshape(batch, time, width) @ weights["out"]["kernel"]


def _mlp(weights: Any, stream: jax.Array) -> jax.Array:
    hidden = jax.nn.relu(_rms_norm(stream, weights["norm"]) @ weights["up"]["kernel"])
    return hidden @ weights["down"]["kernel"]


def loss(params: Any, windows: jax.Array, scale: float) -> jax.Array:
    """Cross-entropy in nats per character, the mean over windows of context + 1 symbols."""
    scores = activations(params, windows[:, :-1], scale)["logits"]
    log_p = jax.nn.log_softmax(scores)
    return -jnp.mean(jnp.take_along_axis(log_p, windows[:, 1:, None], axis=-1))


def attention_scale(width: int, transferred: bool) -> float:
    """1 / √d_head, which with transfer falls as 1 / d_head from the base width on."""
    size, base = width // HEADS, BASE // HEADS
    return math.sqrt(base) / size if transferred else 1 / math.sqrt(size)
