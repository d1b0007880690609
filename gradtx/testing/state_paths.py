"""The paths of a state, and whether the arguments of a builder move them."""

from collections.abc import Mapping
from typing import Any

import jax

from gradtx.compose.transformation import GradientTransformation
from gradtx.definition.errors import HyperparamError
from gradtx.definition.show import show
from gradtx.testing.problems import parameters
from gradtx.tree.paths import is_none, tree_paths


def kept_paths(state: Any) -> list[str]:
    """The paths of the arrays in a state."""
    leaves = jax.tree.leaves(state, is_leaf=is_none)
    return [path for path, leaf in zip(tree_paths(state), leaves, strict=True) if leaf is not None]


def assert_same_paths(tx: GradientTransformation, changes: Mapping[str, Any]) -> None:
    """Assert that no slot of a definition has another path after changes of its arguments.

    The variant may have other slots. A slot that both have, by field and parameter, must have one
    path, because only then the checkpoint of one loads into the other.
    """
    args, kwargs = tx.factory.arguments({**tx.arguments, **changes})
    try:
        variant = tx.factory(*args, **kwargs)
    except HyperparamError:  # some changes do not go with the other arguments
        return
    old, new = slots_by_path(tx), slots_by_path(variant)
    moved = {slot: path for path, slot in new.items() if path not in old}
    for path, slot in old.items():
        assert path in new or slot not in moved, (
            f"{tx.name}: slot {path!r} is at {moved[slot]!r} with {show(dict(changes))}, so that "
            "no checkpoint of one loads into the other: combine the rules by gradtx.chain or "
            "gradtx.descend, which do not show in the paths of a builder, or give the members of "
            "both forms the same names"
        )


def slots_by_path(tx: GradientTransformation) -> dict[str, str]:
    """The slots of a state by path: each as its field and the path of its parameter."""
    params = parameters()
    ends = sorted((f"/{path}" for path in tree_paths(params)), key=len, reverse=True)
    paths = kept_paths(jax.eval_shape(tx.init, params))
    return {path: _slot(path, next(filter(path.endswith, ends), "")) for path in paths}


def _slot(path: str, end: str) -> str:
    *_, field = path.removesuffix(end).split("/")
    return field + end
