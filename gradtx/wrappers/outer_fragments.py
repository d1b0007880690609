"""Fragments of the parameters: which of them an outer optimizer synchronises together."""

import re
from collections.abc import Sequence
from typing import Any

import jax

from gradtx.definition.errors import HyperparamError, SelectionError
from gradtx.definition.show import show
from gradtx.definition.types import PyTree
from gradtx.engine.selector import Leaves, Where, mask
from gradtx.tree.paths import flatten

Fragments = int | Sequence[Where]
"""A number of fragments; or one choice of leaves for each."""

LAYER = re.compile(r"(\d+)(?:/|$)")
"""The number of a layer at the end of a key: `blocks/3/kernel`, `layers_3/kernel`."""


def fragment_count(fragments: Fragments | None) -> int:
    """The number of fragments; 1 where all parameters are synchronised at once."""
    if fragments is None:
        return 1
    return fragments if isinstance(fragments, int) else len(fragments)


def check_fragments(fragments: Fragments | None) -> None:
    """Raise unless there is at least one fragment."""
    if fragment_count(fragments) < 1:
        raise HyperparamError(
            f"outer: fragments = {fragments!r} has no fragment; give a number from 1 on, or a list "
            "of patterns"
        )


def fragment_offsets(fragments: Fragments | None, every: int) -> list[int]:
    """For every fragment the step, modulo `every`, at which it is synchronised."""
    count = fragment_count(fragments)
    return [number * round(every / count) % every for number in range(count)]


def choose_fragments(fragments: Fragments | None, leaves: Leaves) -> list[Sequence[bool]]:
    """For every fragment, which leaves are in it; each leaf is in one fragment."""
    if fragments is None:
        return [[True] * len(leaves.values)]
    if isinstance(fragments, int):
        places = _strided(fragments, leaves.paths)
        return [[place == number for place in places] for number in range(fragments)]
    masks = [
        mask(where, leaves, f"outer: fragment {number}") for number, where in enumerate(fragments)
    ]
    _check_one_each(masks, leaves, fragments)
    return masks


def _strided(count: int, paths: Sequence[str]) -> list[int]:
    """The fragment of every leaf: layer i is in fragment i mod n, a leaf of no layer in 0."""
    layers = [LAYER.search(path) for path in paths]
    if not any(layers):
        return [number % count for number in range(len(paths))]
    return [0 if layer is None else int(layer[1]) % count for layer in layers]


def _check_one_each(
    masks: Sequence[Sequence[bool]], leaves: Leaves, fragments: Sequence[Where]
) -> None:
    """Raise where a leaf is in no fragment, or in several."""
    for index, (path, value) in enumerate(zip(leaves.paths, leaves.values, strict=True)):
        numbers = [number for number, chosen in enumerate(masks) if chosen[index]]
        if value is None or len(numbers) == 1:
            continue
        if not numbers:
            raise SelectionError(
                f"outer: no pattern of fragments matches {path!r}: each parameter must be in one "
                "fragment, so extend a pattern"
            )
        shown = " and ".join(show(fragments[number]) for number in numbers[:2])
        raise SelectionError(
            f"outer: fragments {numbers[0]} and {numbers[1]}, {shown}, both match {path!r}: each "
            "parameter must be in one fragment"
        )


def lay_over(whole: PyTree, part: PyTree, chosen: Sequence[bool]) -> Any:
    """A tree with the leaves of another one where they were chosen."""
    if all(chosen):
        return part
    old, treedef = flatten(whole)
    each = zip(old, flatten(part)[0], chosen, strict=True)
    return jax.tree.unflatten(treedef, [new if is_new else one for one, new, is_new in each])
