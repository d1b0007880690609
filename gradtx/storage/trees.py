"""What rules on trees keep for themselves, such as an accumulator, in fewer bits: leaf by leaf,
outside of their kernels.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.definition.errors import GradtxError
from gradtx.definition.types import SQUARES
from gradtx.storage.blockwise import Blocks
from gradtx.storage.codec import CODECS, Codec
from gradtx.storage.sixteen import Corrected
from gradtx.tree.keys import path_hash
from gradtx.tree.paths import path_text
from gradtx.tree.rounding import noise


def is_node(node: Any) -> bool:
    """Whether several arrays stand for one."""
    return isinstance(node, Blocks | Corrected)


def map_named(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """`function(path, leaf, *leaves)` over trees, arrays in codes as one leaf."""
    leaves, treedef = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_node)
    columns = [treedef.flatten_up_to(other) for other in others]
    return jax.tree.unflatten(
        treedef,
        [
            function(path_text(path), leaf, *row)
            for (path, leaf), *row in zip(leaves, *columns, strict=True)
        ],
    )


def tree_codec(policy: Any, rule: str, kind: type[Any], name: str) -> Codec | None:
    """The codec of one field, a tree; int4 needs the shape of the array, which a tree does not
    tell.
    """
    codec = policy.codec(kind, name)
    if codec is None or codec.name != "int4":
        return codec
    if name in dict(policy.by_slot):
        raise GradtxError(
            f"stored: {name} = 'int4' cannot keep what {rule} has, which is a tree; take 'int8' or a codec of 16 bits"
        )
    return CODECS["int8"]


def first(policy: Any, codec: Codec, square: bool, path: str, leaf: Any) -> Any:
    """A leaf in codes, if it is large enough."""
    if not policy.fits(leaf, getattr(leaf, "shape", ())) or leaf.size < policy.min_size:
        return leaf
    return codec.encode(leaf.astype(jnp.float32), None, square=square, block=policy.block)


def decoded(policy: Any, codec: Codec, square: bool, path: str, leaf: Any) -> Any:
    """A leaf as the rule knows it."""
    if not policy.is_encoded(leaf, codec):
        return leaf
    shape = (
        leaf.codes.shape
        if isinstance(leaf, Blocks)
        else leaf.value.shape
        if isinstance(leaf, Corrected)
        else leaf.shape
    )
    return codec.decode(leaf, shape, square=square, block=policy.block)


def encoded(
    policy: Any, codec: Codec, square: bool, step: Any, number: int, path: str, old: Any, new: Any
) -> Any:
    """A new leaf in the form of the old."""
    if not policy.is_encoded(old, codec):
        return new
    random = noise(step, path_hash(path)).sixteen(new.shape, number) if policy.stochastic else None
    return codec.encode(new.astype(jnp.float32), random, square=square, block=policy.block)


def map_fields(
    policy: Any,
    rule: str,
    skip: frozenset[str],
    function: Callable[..., Any],
    own: Any,
    *others: Any,
) -> Any:
    """`function(codec, square, number)` says what is done with the leaves of each field that is
    stored.
    """
    kind, made = type(own), []
    for number, (name, *trees) in enumerate(zip(own._fields, own, *others, strict=True)):
        codec = None if name in skip else tree_codec(policy, rule, kind, name)
        if codec is None or trees[0] is None:
            made.append(trees[-1])
        else:
            made.append(
                map_named(function(codec, policy.marks(kind, name) == SQUARES, number), *trees)
            )
    return kind(*made)


def first_fields(policy: Any, codec: Codec, square: bool, number: int) -> Any:
    return functools.partial(first, policy, codec, square)


def decoded_fields(policy: Any, codec: Codec, square: bool, number: int) -> Any:
    return functools.partial(decoded, policy, codec, square)


def encoded_fields(policy: Any, step: Any, codec: Codec, square: bool, number: int) -> Any:
    return functools.partial(encoded, policy, codec, square, step, number)
