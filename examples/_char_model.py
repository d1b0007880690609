"""A small transformer that predicts the next character, in plain JAX."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Shape(NamedTuple):
    """The sizes of a network."""

    symbols: int
    width: int
    heads: int
    depth: int


def init(rng: np.random.Generator, shape: Shape) -> dict[str, Any]:
    """Initialize normal weights of variance 1 / inputs.

    Branches of a deep network are smaller, by the root of twice its depth."""
    width, deep = shape.width, math.sqrt(2 * shape.depth)
    return {
        "symbols": _normal(rng, (shape.symbols, width), 0.02),
        "blocks": [_block(rng, width, deep) for _ in range(shape.depth)],
        "norm": jnp.ones(width),
        "head": {"kernel": _normal(rng, (width, shape.symbols), 0.1 / math.sqrt(width))},
    }


def _normal(rng: np.random.Generator, shape: tuple[int, ...], deviation: float) -> jax.Array:
    return jnp.asarray(rng.normal(scale=deviation, size=shape), jnp.float32)


def _block(rng: np.random.Generator, width: int, deep: float) -> dict[str, Any]:
    inward = 1 / math.sqrt(width)
    return {
        "attention": {
            "norm": jnp.ones(width),
            "qkv": {"kernel": _normal(rng, (width, 3 * width), inward)},
            "out": {"kernel": _normal(rng, (width, width), inward / deep)},
        },
        "mlp": {
            "norm": jnp.ones(width),
            "up": {"kernel": _normal(rng, (width, 4 * width), inward)},
            "down": {"kernel": _normal(rng, (4 * width, width), inward / 2 / deep)},
        },
    }


def size(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def logits(params: Any, symbols: jax.Array, heads: int) -> jax.Array:
    """Score the next symbol at every position: (batch, time) to (batch, time, symbols)."""
    stream = params["symbols"][symbols]
    for block in params["blocks"]:
        stream = stream + _attend(block["attention"], stream, heads)
        stream = stream + _mlp(block["mlp"], stream)
    return _rms_norm(stream, params["norm"]) @ params["head"]["kernel"]


def _rms_norm(stream: jax.Array, scale: jax.Array) -> jax.Array:
    """RMSNorm: divide every vector by the root of its mean square.

    Zhang and Sennrich 2019, arXiv 1910.07467, equation 4."""
    return (
        stream
        * jax.lax.rsqrt(jnp.mean(stream**2, axis=-1, keepdims=True) + 1e-6)
        * scale[None, None]
    )


def _attend(weights: Any, stream: jax.Array, heads: int) -> jax.Array:
    """Causal attention after a norm (Vaswani et al. 2017, arXiv 1706.03762, equation 1)."""
    batch, time, width = stream.shape
    mixed = _rms_norm(stream, weights["norm"]) @ weights["qkv"]["kernel"]
    q, k, v = jnp.split(mixed.reshape(batch, time, heads, -1), 3, axis=-1)
    values = jax.nn.dot_product_attention(q, k, v, bias=_distance_bias(time, heads), is_causal=True)
    return values.reshape(batch, time, width) @ weights["out"]["kernel"]


def _distance_bias(time: int, heads: int) -> jax.Array:
    """ALiBi: a bias on attention scores that grows with distance, by a slope per head.

    The slopes are 1, 1/4, 1/16, ...; no positional embedding is needed. Press, Smith and Lewis
    2021, arXiv 2108.12409."""
    distance = jnp.arange(time)[:, None] - jnp.arange(time)[None]
    return -(0.25 ** jnp.arange(heads))[None, :, None, None] * distance[None, None]


def _mlp(weights: Any, stream: jax.Array) -> jax.Array:
    hidden = jax.nn.relu(_rms_norm(stream, weights["norm"]) @ weights["up"]["kernel"])
    return hidden**2 @ weights["down"]["kernel"]


def loss(heads: int, params: Any, windows: jax.Array) -> jax.Array:
    """Cross-entropy in nats per character, the mean over windows of context + 1 symbols."""
    log_p = jax.nn.log_softmax(logits(params, windows[:, :-1], heads))
    return -jnp.mean(jnp.take_along_axis(log_p, windows[:, 1:, None], axis=-1))


@functools.partial(jax.jit, static_argnames=("heads", "context", "count"))
def sample(
    params: Any,
    key: jax.Array,
    start: jax.Array,
    heads: int,
    context: int,
    count: int,
    temperature: float,
) -> jax.Array:
    """Sample `count` symbols after `start`, each from the `context` symbols before it."""

    def draw(carry: Any, key: jax.Array) -> Any:
        window, filled = carry
        last = logits(params, window[None], heads)[0, filled - 1]
        symbol = jax.random.categorical(key, last / temperature).astype(window.dtype)
        full = filled == context
        window = (
            jnp.where(full, jnp.roll(window, -1), window)
            .at[jnp.where(full, context - 1, filled)]
            .set(symbol)
        )
        return (window, jnp.minimum(filled + 1, context)), symbol

    window = jnp.zeros(context, jnp.int32).at[: len(start)].set(start)
    return jax.lax.scan(draw, (window, jnp.asarray(len(start))), jax.random.split(key, count))[1]
