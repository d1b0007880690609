"""A small transformer for benchmarks of whole training steps: its loss, parameters and tokens."""

from typing import Any

import jax
import jax.numpy as jnp

VOCABULARY, WIDTH, HEADS, BLOCKS, CONTEXT = 256, 256, 4, 4, 128


def parameters(seed: int = 0) -> Any:
    """3,246,080 parameters in 22 leaves."""
    keys = iter(jax.random.split(jax.random.key(seed), 2 + 4 * BLOCKS))

    def dense(rows: int, columns: int) -> jax.Array:
        return jax.random.normal(next(keys), (rows, columns)) / rows**0.5

    def block() -> Any:
        return {
            "qkv": dense(WIDTH, 3 * WIDTH),
            "proj": dense(WIDTH, WIDTH),
            "up": dense(WIDTH, 4 * WIDTH),
            "down": dense(4 * WIDTH, WIDTH),
            "scales": jnp.ones((2, WIDTH)),
        }

    blocks = {f"block_{number}": block() for number in range(BLOCKS)}
    return {"embed": 0.1 * dense(VOCABULARY, WIDTH), "place": 0.1 * dense(CONTEXT, WIDTH), **blocks}


def tokens(batch: int, seed: int = 1) -> jax.Array:
    """Random tokens, int32[batch, CONTEXT + 1]."""
    return jax.random.randint(jax.random.key(seed), (batch, CONTEXT + 1), 0, VOCABULARY)


def loss(params: Any, tokens: jax.Array) -> jax.Array:
    """The mean cross entropy of the next token."""
    x = params["embed"][tokens[:, :-1]] + params["place"]
    for number in range(BLOCKS):
        x = _block(params[f"block_{number}"], x)
    logits = x @ params["embed"].T
    targets = jnp.take_along_axis(logits, tokens[:, 1:, None], axis=-1)[..., 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - targets)


def _block(p: Any, x: jax.Array) -> jax.Array:
    batch, length, width = x.shape
    qkv = (_normed(x, p["scales"][0]) @ p["qkv"]).reshape(batch, length, 3, HEADS, width // HEADS)
    mixed = jax.nn.dot_product_attention(*jnp.moveaxis(qkv, 2, 0), is_causal=True)
    x = x + mixed.reshape(x.shape) @ p["proj"]
    return x + jax.nn.gelu(_normed(x, p["scales"][1]) @ p["up"]) @ p["down"]


def _normed(x: jax.Array, scale: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6) * scale
