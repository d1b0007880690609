"""Storage of the slots of rules on trees, an accumulator for example, leaf by leaf.

Rules on trees have no kernel of a leaf, so encoding and decoding run outside of their kernels.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax

from gradtx.definition.errors import GradtxError
from gradtx.definition.types import SQUARES, PyTree, Slots
from gradtx.storage.codec import CODECS, Codec, decode_array, encode_array
from gradtx.storage.packing import Parts
from gradtx.tree.keys import path_hash
from gradtx.tree.paths import path_text
from gradtx.tree.rounding import noise


def is_node(node: Any) -> bool:
    """Whether a node is one array in several."""
    return isinstance(node, tuple(codec.parts for codec in CODECS.values() if codec.parts))


def map_named(function: Callable[..., Any], tree: PyTree, *others: Any) -> Any:
    """Map `function(path, leaf, *leaves)` over trees, an encoded array as one leaf."""
    leaves, treedef = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_node)
    columns = [treedef.flatten_up_to(other) for other in others]
    rows = zip(leaves, *columns, strict=True)
    results = [function(path_text(path), leaf, *row) for (path, leaf), *row in rows]
    return jax.tree.unflatten(treedef, results)


def tree_codec(policy: Any, rule: str, kind: type[Any], name: str) -> Codec | None:
    """The codec of one field, a tree."""
    codec = policy.codec(kind, name)
    # int4 needs the shape of the array, which its codes in a tree do not show.
    if codec is None or codec.name != "int4":
        return codec
    if name in dict(policy.by_slot):
        raise GradtxError(
            f"stored: {name} = 'int4' does not work for {rule}, whose slot is a tree; use 'int8' "
            "or a codec of 16 bits"
        )
    return CODECS["int8"]


def parts(policy: Any, rule: str, skip: frozenset[str], kind: type[Any]) -> Parts:
    """The fields whose codecs encode each array of theirs as several."""
    codecs = ((name, tree_codec(policy, rule, kind, name)) for name in kind._fields)
    return tuple(
        (name, codec.parts)
        for name, codec in codecs
        if name not in skip and codec is not None and codec.parts
    )


def first(policy: Any, codec: Codec, square: bool, path: str, leaf: Any) -> Any:
    """Encode a leaf, if it is large enough."""
    if not policy.fits(leaf, getattr(leaf, "shape", ())) or leaf.size < policy.min_size:
        return leaf
    return encode_array(codec, leaf, None, square=square, block=policy.block)


def decoded(policy: Any, codec: Codec, square: bool, path: str, leaf: Any) -> Any:
    """Decode a leaf for the rule."""
    if not policy.is_encoded(leaf, codec):
        return leaf
    array = leaf[0] if is_node(leaf) else leaf
    return decode_array(codec, leaf, array.shape, square=square, block=policy.block)


def encoded(
    policy: Any, codec: Codec, square: bool, step: Any, number: int, path: str, old: Any, new: Any
) -> Any:
    """Encode a new leaf in the format of the old one."""
    if not policy.is_encoded(old, codec):
        return new
    random = noise(step, path_hash(path)).sixteen(new.shape, number) if policy.stochastic else None
    return encode_array(codec, new, random, square=square, block=policy.block)


def map_fields(
    policy: Any,
    rule: str,
    skip: frozenset[str],
    function: Callable[..., Any],
    own: Slots,
    *others: Any,
) -> Any:
    """Map the leaves of each encoded field by the function `function(codec, square, number)`."""
    kind, fields = type(own), []
    for number, (name, *trees) in enumerate(zip(own._fields, own, *others, strict=True)):
        codec = None if name in skip else tree_codec(policy, rule, kind, name)
        if codec is None or trees[0] is None:
            fields.append(trees[-1])
        else:
            on_leaf = function(codec, policy.marks(kind, name) == SQUARES, number)
            fields.append(map_named(on_leaf, *trees))
    return kind(*fields)


def first_fields(policy: Any, codec: Codec, square: bool, number: int) -> Any:
    return functools.partial(first, policy, codec, square)


def decoded_fields(policy: Any, codec: Codec, square: bool, number: int) -> Any:
    return functools.partial(decoded, policy, codec, square)


def encoded_fields(policy: Any, step: Any, codec: Codec, square: bool, number: int) -> Any:
    return functools.partial(encoded, policy, codec, square, step, number)
