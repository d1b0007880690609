"""How the arguments of a training step are cut over devices, and that its results are cut alike.

The trace of a program with automatic axes does not see how its arguments are cut. The caller of a
step has the arrays, so that it can say so, by path; another layout is another program.
"""

import dataclasses
import operator
from collections.abc import Mapping
from typing import Any

import jax
from jax.core import Tracer
from jax.sharding import AxisType, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from gradtx.definition.errors import GradtxError, StructureError
from gradtx.definition.show import show
from gradtx.definition.types import PyTree
from gradtx.tree.paths import flatten, leaf_paths, path_text, tree_paths

Shardings = tuple[Any, Any]
"""A tree of shardings like the parameters, and one like the state, or prefixes of them; None: as
the arguments are.
"""
NONE: Mapping[str, NamedSharding] = {}


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """How parameters and state are cut, by path."""

    params: Mapping[str, NamedSharding] = dataclasses.field(default_factory=dict)
    state: Mapping[str, NamedSharding] = dataclasses.field(default_factory=dict)

    def place(self, params: PyTree, state: PyTree) -> tuple[Any, Any]:
        """The results of a step, cut as its arguments were."""
        return _place(params, self.params), _place(state, self.state)


_SHARDING = operator.attrgetter("sharding")
ON_ONE_DEVICE = {SingleDeviceSharding}


def placements(tree: PyTree) -> tuple[Any, ...]:
    """How each leaf lies on a mesh, None for a leaf on none; empty: no leaf lies on a mesh."""
    if jax.device_count() == 1:
        return ()
    leaves = jax.tree.leaves(tree)
    try:
        shardings = [*map(_SHARDING, leaves)]
    except AttributeError:  # a leaf is traced, or is an option of a module
        shardings = [getattr(leaf, "sharding", None) for leaf in leaves]
    # This runs at each call: one look at the types is enough where nothing is cut.
    if {*map(type, shardings)} == ON_ONE_DEVICE:
        return ()
    placed = tuple([one if type(one) is NamedSharding else None for one in shardings])
    return placed if any(placed) else ()


def layout_of(params: PyTree, state: PyTree, shardings: Shardings | None) -> Layout:
    """The layout that the caller asked for, and where that says nothing, that of the arguments."""
    asked = (None, None) if shardings is None else shardings
    names, trees = ("parameters", "state"), (params, state)
    return Layout(*map(_by_path, names, trees, asked))


def check_shardings(shardings: Any) -> None:
    """Raise where `shardings` is not a pair."""
    if shardings is not None and not (isinstance(shardings, tuple) and len(shardings) == 2):
        raise GradtxError(
            f"make_step: shardings = {show(shardings)} is not a pair: give (shardings of the "
            f"parameters, shardings of the state), or None in the place of one"
        )


def _by_path(name: str, tree: PyTree, asked: Any) -> dict[str, NamedSharding]:
    values, treedef = flatten(tree)
    paths = leaf_paths(treedef, tree)
    known = [getattr(leaf, "sharding", None) for leaf in values]
    if asked is not None:
        each = zip(known, _spread(name, tree, asked), strict=True)
        known = [old if new is None else new for old, new in each]
    return {
        path: one for path, one in zip(paths, known, strict=True) if isinstance(one, NamedSharding)
    }


def _spread(name: str, tree: PyTree, asked: Any) -> list[Any]:
    """For every leaf the sharding that a tree, or a prefix of it, says; None: nothing."""
    values, _ = flatten(tree)
    try:
        spread = jax.tree.broadcast(asked, tree, is_leaf=_is_sharding)
    except ValueError:
        raise StructureError(_misfit(name, tree, asked)) from None
    shardings = jax.tree.leaves(spread, is_leaf=_is_sharding)
    if len(shardings) != len(values):
        raise StructureError(_misfit(name, tree, asked))
    return [_named(name, one) for one in shardings]


def _named(name: str, one: Any) -> NamedSharding | None:
    if one is None or isinstance(one, NamedSharding):
        return one
    mesh = jax.sharding.get_mesh()
    if isinstance(one, PartitionSpec) and not mesh.empty:
        return NamedSharding(mesh, one)
    raise GradtxError(
        f"make_step: the shardings of the {name} hold {one!r}: give a NamedSharding, or a "
        f"PartitionSpec within jax.set_mesh(mesh)"
    )


def _is_sharding(node: Any) -> bool:
    return node is None or isinstance(node, Sharding | PartitionSpec)


def _misfit(name: str, tree: PyTree, asked: Any) -> str:
    """The sentence that names the first path which one of the trees lacks."""
    theirs = jax.tree_util.tree_flatten_with_path(asked, is_leaf=_is_sharding)[0]
    texts, paths = [path_text(path) for path, _ in theirs], tree_paths(tree)
    surplus = next((one for one in texts if not any(_is_in(path, one) for path in paths)), None)
    lacking = next((one for one in paths if not any(_is_in(one, text) for text in texts)), None)
    difference = "the containers differ"
    if lacking is not None:
        difference = f"nothing is said of {lacking!r}"
    if surplus is not None:
        difference = f"there is no {surplus!r}"
    return (
        f"make_step: the shardings of the {name} do not fit the {name}, {difference}: give a tree "
        f"of the same structure, or one sharding for all of it"
    )


def _is_in(path: str, prefix: str) -> bool:
    return not prefix or path == prefix or path.startswith(f"{prefix}/")


def _place(tree: PyTree, shardings: Mapping[str, NamedSharding]) -> Any:
    if not shardings:
        return tree
    values, treedef = flatten(tree)
    pairs = zip(leaf_paths(treedef, tree), values, strict=True)
    return jax.tree.unflatten(treedef, [_placed(one, shardings.get(path)) for path, one in pairs])


def _placed(value: Any, sharding: NamedSharding | None) -> Any:
    if sharding is None or not isinstance(value, Tracer) or value.ndim < len(sharding.spec):
        return value
    if all(kind == AxisType.Explicit for kind in sharding.mesh.axis_types):
        return jax.sharding.reshard(value, sharding)
    return jax.lax.with_sharding_constraint(value, sharding)
