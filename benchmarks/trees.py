"""The measured parameter trees, as shapes; `filled` makes arrays of them."""

from typing import Any

import jax
import jax.numpy as jnp

Tree = Any


def array(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def gpt2_small(
    vocabulary: int = 50304, width: int = 768, context: int = 1024, blocks: int = 12
) -> Tree:
    """GPT-2 small, vocabulary padded to a multiple of 64: 148 leaves, 124,475,904 parameters."""
    return {
        "wte": array(vocabulary, width),
        "wpe": array(context, width),
        **{f"h_{number}": _block(width) for number in range(blocks)},
        "ln_f": _norm(width),
    }


def _block(width: int) -> Tree:
    return {
        "ln_1": _norm(width),
        "attn": {"c_attn": _dense(width, 3 * width), "c_proj": _dense(width, width)},
        "ln_2": _norm(width),
        "mlp": {"c_fc": _dense(width, 4 * width), "c_proj": _dense(4 * width, width)},
    }


def _norm(width: int) -> Tree:
    return {"scale": array(width), "bias": array(width)}


def _dense(rows: int, columns: int) -> Tree:
    return {"kernel": array(rows, columns), "bias": array(columns)}


def many_small(count: int = 500, side: int = 16) -> Tree:
    """Many leaves of one small shape: 500 of 16x16."""
    return {f"leaf_{number:03}": array(side, side) for number in range(count)}


def one_large(size: int = 64 * 2**20) -> Tree:
    """One leaf of 64 Mi float32, 256 MiB."""
    return {"leaf": array(size)}


TREES = {"gpt2_small": gpt2_small, "500_leaves": many_small, "one_leaf": one_large}


def filled(tree: Tree, value: float) -> Tree:
    """Fresh arrays of these shapes, all entries equal."""
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, value, leaf.dtype), tree)


def parameter_count(tree: Tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
