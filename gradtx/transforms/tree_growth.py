"""How every array of a tree grows over a base model: its inputs, its outputs, its layer.

The base is the shapes of a model that was tuned, or its width alone. With shapes, the axes that
differ grow. With a width, roles say which axes of an array are as long as the model is wide.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from gradtx.definition.errors import StructureError
from gradtx.engine.roles import leaf_roles
from gradtx.engine.selector import Leaves, Where, claimed
from gradtx.transforms.width_factors import Growth
from gradtx.tree.names import EMBEDDING, HEAD, POSITION, ROUTER, is_numbered
from gradtx.tree.paths import same_layers, without_numbers
from gradtx.tree.roles import CONVOLUTION, MATRIX, UNKNOWN, Role

Shape = tuple[int, ...]
TransferKind = Literal["embedding", "matrix", "vector", "head", "fixed"]
KINDS = ("embedding", "matrix", "vector", "head", "fixed")
GROWS = {
    "embedding": (False, True),
    "matrix": (True, True),
    "vector": (False, True),
    "head": (True, False),
    "fixed": (False, False),
}
"""Whether the inputs and the outputs of a kind are as long as the model is wide."""


class Base(NamedTuple):
    """The base model: its shapes by path, or the ratio of the widths."""

    shapes: tuple[tuple[str, Shape], ...] | None
    ratio: float = 1.0


class Purpose(NamedTuple):
    """The kind of one array, and what decided it."""

    kind: TransferKind
    text: str
    words: tuple[str, ...]
    """For every axis: "in", "out" or "batch"."""
    is_said: bool
    """Whether the caller named its kind."""
    in_block: bool


def purposes(
    leaves: Leaves, roles: Sequence[tuple[Where, TransferKind]] | None
) -> list[Purpose | None]:
    """The kind of every array, by `roles`, then by its role; None for None leaves."""
    said = claimed(roles, leaves, "transfer: roles") if roles else [None] * len(leaves.paths)
    each = zip(leaves.paths, leaves.values, leaf_roles(leaves), said, strict=True)
    return [
        None if role is None else _purpose(path, np.shape(value), role, kind)
        for path, value, role, kind in each
    ]


def _purpose(path: str, shape: Shape, role: Role, said: TransferKind | None) -> Purpose:
    kind = said or _kind(role, shape)
    reason = "by roles" if said else role.reason
    # A list of arrays is not a list of layers, so that the last part does not count.
    layers = any(map(is_numbered, path.split("/")[:-1]))
    in_block = layers or role.reason.startswith("stacked")
    return Purpose(
        kind, f"{role.name}, {reason}", _words(shape, role, kind), said is not None, in_block
    )


def _kind(role: Role, shape: Shape) -> TransferKind:
    if role.name in (HEAD, ROUTER):
        return "head" if len(shape) > 1 else "fixed"  # the bias of a head has a number per class
    if role.name in (EMBEDDING, POSITION):
        return "embedding" if len(shape) > 1 else "vector"
    if role.name in (MATRIX, CONVOLUTION, UNKNOWN) and len(shape) > 1:
        return "matrix"
    return "vector" if math.prod(shape) > 1 else "fixed"


def _words(shape: Shape, role: Role, kind: TransferKind) -> tuple[str, ...]:
    words = tuple(word.split("/")[0] for word in (role.words or "").split())
    if len(words) == len(shape):
        return words
    if kind in ("embedding", "vector", "fixed") or len(shape) < 2:
        return ("out",) * len(shape)
    return (*["batch"] * (len(shape) - 2), "in", "out")


def tree_growth(leaves: Leaves, found: Sequence[Purpose | None], base: Base) -> list[Growth | None]:
    """How every array grows over the base model; None for None leaves."""
    shapes = None if base.shapes is None else _match(leaves, found, dict(base.shapes))
    return [
        None
        if one is None
        else _by_ratio(one, base.ratio)
        if shapes is None
        else _by_shape(one, np.shape(leaves.values[n]), shapes[n])
        for n, one in enumerate(found)
    ]


def _by_ratio(one: Purpose, ratio: float) -> Growth:
    inputs, outputs = GROWS[one.kind]
    is_head = one.kind == "head"
    return Growth(ratio if inputs else 1.0, ratio if outputs else 1.0, one.in_block, is_head)


def _by_shape(one: Purpose, here: Shape, base: Shape) -> Growth:
    sizes = [
        tuple(
            math.prod(size for size, name in zip(shape, one.words, strict=True) if name == word)
            for word in ("in", "out")
        )
        for shape in (here, base)
    ]
    (inputs, outputs), (base_inputs, base_outputs) = sizes
    grows = GROWS[one.kind] if one.is_said else (True, True)
    ratios = (inputs / base_inputs, outputs / base_outputs)
    known = [ratio if grow else 1.0 for ratio, grow in zip(ratios, grows, strict=True)]
    is_head = known[0] != 1 and known[1] == 1
    both = ((inputs, outputs), (base_inputs, base_outputs))
    return Growth(known[0], known[1], one.in_block, is_head, both)


def _match(
    leaves: Leaves, found: Sequence[Purpose | None], base: Mapping[str, Shape]
) -> list[Shape]:
    """The base shape of every leaf; a block that the base lacks has that of another block."""
    shapes = same_layers(leaves.paths, base)
    for path, value, one, shape in zip(leaves.paths, leaves.values, found, shapes, strict=True):
        if one is not None:
            _check(path, np.shape(value), shape, base)
    known = set(map(without_numbers, leaves.paths))
    if strange := [path for path in base if without_numbers(path) not in known]:
        raise StructureError(
            f"transfer: base has a shape at {strange[0]!r}, and the parameters have nothing there: "
            f"take the shapes of the same model, as narrow as it was when it was tuned"
        )
    return [shape or () for shape in shapes]


def _check(path: str, here: Shape, shape: Shape | None, base: Mapping[str, Shape]) -> None:
    if shape is None:
        close = difflib.get_close_matches(path, base, n=1, cutoff=0.0)
        raise StructureError(
            f"transfer: base has no shape at {path!r}; the nearest is {close[0]!r}: take the "
            f"shapes of the same model, as narrow as it was when it was tuned"
        )
    if len(shape) != len(here) or 0 in shape:
        raise StructureError(
            f"transfer: base has the shape {shape} at {path!r}, where the parameters have "
            f"{here}: take the shapes of the same model, as narrow as it was when it was tuned"
        )
