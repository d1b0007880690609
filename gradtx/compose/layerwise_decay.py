r"""`layerwise_decay`: a smaller learning rate for each layer below the head.

u ← qⁿ⁺¹⁻ⁱ u,   i = 0 for embeddings, 1 to n for the layers, n + 1 for the head
"""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gradtx.compose.chain import chain
from gradtx.compose.transformation import (
    GradientTransformation,
    TransformationLike,
    definition,
)
from gradtx.definition.errors import SelectionError, StructureError
from gradtx.definition.show import show_array
from gradtx.definition.types import Fraction
from gradtx.engine.factor_rule import Factor, factor_rule
from gradtx.engine.program import BoundRule
from gradtx.engine.selector import Leaves, Selector, Where, matches_by_text, nearest
from gradtx.tree.names import EMBEDDING, POSITION, path_parts, role_by_name

OWNER = "layerwise_decay"
LAYERS = r"(?i)(?:^|[/._])(?:\w*(?:layers?|blocks?)|h)[/._]?(\d+)(?=[/._]|$)"
"""A module that is one of several: `blocks/3`, `h.3`, `layer_3`."""
STEM = re.compile(r"(conv_?)?stem|patch_?(embed|proj).*", re.IGNORECASE)
"""Modules in front of the first layer, beside embeddings."""


class Numbering(NamedTuple):
    """How layers are numbered, as `layerwise_decay` received it."""

    pattern: str | None
    layers: int | None
    stacked: Selector | None
    axis: int


@definition
def layerwise_decay(
    inner: TransformationLike,
    decay: Fraction,
    *,
    pattern: str | None = None,
    layers: int | None = None,
    stacked: Where | None = None,
    axis: int = 0,
) -> GradientTransformation:
    r"""Layer-wise learning rate decay (LLRD): the layer d below the head has the rate q^d η.

    u ← qⁿ⁺¹⁻ⁱ u for the updates u of `inner`, n layers, and a parameter of layer i: embeddings are
    layer 0, the layers 1 to n, all other parameters (head, final norm) n + 1, as in BEiT and timm.
    The whole step is scaled, weight decay included.

    When: to fine-tune a pretrained transformer on few data. When not: you train from scratch; you
    want other factors; take `multiply_by_path`.

    Args:
      inner: the optimizer, with its learning rate.
      decay: q in [0, 1]; 0.65 to 0.95.
      pattern: a regular expression on paths whose first group is the number of the layer, counted
        from 0 or 1. None: names such as `blocks/3`, `h.3`, `layer_3`, `encoderblock_3`.
      layers: n; None: as many as the parameters have. Static.
      stacked: arrays that hold all layers along one axis, of a scanned model, as in `masked`; each
        of their layers gets its own factor.
      axis: that axis; 0.

    Raises:
      HyperparamError: q out of its range.
      SelectionError: at `init`, no path has the number of a layer, or one has a number above n.
      StructureError: at `init`, a stack without that axis, or of another length.

    State: that of `inner`.

    >>> import gradtx, jax.numpy as jnp
    >>> w = jnp.ones(2)
    >>> params = {"embed": w, "blocks": [{"w": w}, {"w": w}], "head": w}
    >>> tx = gradtx.layerwise_decay(gradtx.adamw(1e-3), 0.5)
    >>> print(gradtx.coverage(tx, params))
    blocks/0/w  adamw, decayed × 0.25
    blocks/1/w  adamw, decayed × 0.5
    embed       adamw, decayed × 0.125
    head        adamw, decayed

    See also: `multiply_by_path`, `layer_decay`, `stacked`.

    Bao et al. 2021, arXiv 2106.08254, section 3.1; Clark et al. 2020, arXiv 2003.10555, appendix B.
    """
    if pattern is not None:
        _check_pattern(pattern)
    return chain(inner, _multiply_by_layer(decay, pattern, layers, stacked, axis))


def _check_pattern(pattern: str) -> None:
    matches_by_text(pattern, ())
    if not re.compile(pattern).groups:
        raise SelectionError(
            f"{OWNER}: pattern = {pattern!r} has no group: write the number of the layer as one, "
            f"'blocks/(\\d+)'"
        )


@functools.partial(definition, name="multiply_by_layer")
def _multiply_by_layer(
    decay: Fraction, pattern: str | None, layers: int | None, stacked: Where | None, axis: int
) -> BoundRule:
    """The factors of `layerwise_decay`."""
    selector = None if stacked is None else Selector(stacked, True, f"{OWNER}: stacked")
    assign = functools.partial(_by_layer, Numbering(pattern, layers, selector, axis))
    rule, hyperparams = factor_rule("multiply_by_layer", assign, {"decay": decay})
    return BoundRule((), rule, hyperparams)


def _by_layer(
    numbering: Numbering, values: Mapping[str, Any], leaves: Leaves, active: Sequence[bool]
) -> list[Factor]:
    """The factor of every leaf, by its distance from the head."""
    decay, pairs = values["decay"], zip(_numbers(numbering, leaves), leaves.values, strict=True)
    return [
        Factor(decay, None if isinstance(one, int) else numbering.axis % np.ndim(value), one)
        for one, value in pairs
    ]


def _numbers(numbering: Numbering, leaves: Leaves) -> list[Any]:
    """For every leaf its distance from the head; for a stack those of its layers."""
    found = _numbered(numbering.pattern or LAYERS, leaves.paths)
    stacks = [False] * len(found) if numbering.stacked is None else numbering.stacked(leaves)
    lengths = _lengths(leaves, stacks, numbering.axis)
    present = [one for one in found if one is not None]
    must_have = numbering.pattern is not None or numbering.stacked is None
    if must_have and not present and leaves.paths:
        cure = "give pattern=r'...(\\d+)', or stacked=... for a scanned model"
        where = nearest(numbering.pattern or "layers", leaves.paths)
        raise SelectionError(f"{OWNER}: no path has the number of a layer; {where}; {cure}")
    first = min(present, default=0)
    # Numbers that begin at 1 are those of layers that are counted so.
    counted = [None if one is None else one - min(first, 1) for one in found]
    most = max([0, *(one + 1 for one in counted if one is not None), *lengths.values()])
    count = most if numbering.layers is None else numbering.layers
    if most > count:
        raise SelectionError(
            f"{OWNER}: layers = {count}, and the parameters have {most}: give the number of all "
            f"layers, or None"
        )
    each = zip(leaves.paths, counted, stacks, strict=True)
    return [
        count - np.arange(lengths[path])
        if is_stack and path in lengths
        else count + 1
        if number is None and _is_below(path)
        else 0
        if number is None
        else count - number
        for path, number, is_stack in each
    ]


def _lengths(leaves: Leaves, stacks: Sequence[bool], axis: int) -> dict[str, int]:
    """The number of layers of every stacked leaf, by path."""
    lengths: dict[str, int] = {}
    for path, value, is_stack in zip(leaves.paths, leaves.values, stacks, strict=True):
        shape = np.shape(value)
        if is_stack and value is not None:
            if not -len(shape) <= axis < len(shape):
                raise StructureError(
                    f"{OWNER}: axis = {axis} is not an axis of {path!r}, {show_array(value)}: give "
                    f"the axis that counts layers"
                )
            lengths[path] = shape[axis]
    return lengths


@functools.lru_cache(maxsize=256)
def _numbered(pattern: str, paths: tuple[str, ...]) -> tuple[int | None, ...]:
    """For every path the number of its layer as written; None where it has none."""
    expression, found = re.compile(pattern), list[int | None]()
    for path in paths:
        match = expression.search(path)
        if match is not None and not (match[1] or "").isdigit():
            raise SelectionError(
                f"{OWNER}: the first group of {pattern!r} is {match[1]!r} at {path!r}, and must be "
                f"the number of a layer: write (\\d+)"
            )
        found.append(None if match is None else int(match[1]))
    return tuple(found)


def _is_below(path: str) -> bool:
    """Whether a parameter outside of the layers is in front of them, as embeddings are."""
    parts = path_parts(path)
    is_embedding = role_by_name(parts) in (EMBEDDING, POSITION)
    return is_embedding or any(STEM.fullmatch(part) for part in parts)
