"""`axis_names`: which mesh axes cut each parameter, inside `shard_map` and `pmap`."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax
from jax import lax
from jax.sharding import PartitionSpec

from gradtx.definition.errors import GradtxError, StateError, StructureError
from gradtx.definition.types import PyTree
from gradtx.engine.layouts import (
    Entry,
    Kind,
    Layout,
    Names,
    cut_names,
    whole_shape,
)
from gradtx.engine.selector import Leaves, claimed, leaves_of
from gradtx.tree.errors import AxesError
from gradtx.tree.manual_axes import AxisSpec, is_checked, is_spec, spec_names, varying
from gradtx.tree.paths import flatten

AxisNames = AxisSpec | Mapping[str, AxisSpec] | Sequence[tuple[Any, AxisSpec]] | PyTree
"""Names of mesh axes for all arrays; or rules `[(pattern, names or PartitionSpec), ...]`; or a tree
of PartitionSpecs.
"""


def all_names(axis_names: AxisNames) -> Names:
    """Every mesh axis that is named, once."""
    if is_spec(axis_names):
        return spec_names(cast(AxisSpec, axis_names))
    specs = jax.tree.leaves(axis_names, is_leaf=is_spec)
    if isinstance(axis_names, list | tuple) and all(map(_is_rule, axis_names)):
        specs = [spec for _, spec in axis_names]
    return tuple(dict.fromkeys(itertools.chain.from_iterable(map(spec_names, specs))))


def _is_rule(value: Any) -> bool:
    """Whether a value is a pair of a pattern and a spec."""
    is_pair = isinstance(value, list | tuple) and len(value) == 2
    return is_pair and (isinstance(value[0], str) or callable(value[0])) and is_spec(value[1])


def is_bound(name: str) -> bool:
    """Whether the program that is traced runs once for each index of a mesh axis."""
    try:
        lax.axis_size(name)
    except NameError:
        return False
    return True


def bound_names(axis_names: AxisNames, owner: str) -> Names:
    """The named axes, where the program runs over them; () where arrays are whole."""
    names = all_names(axis_names)
    lacking = [name for name in names if not is_bound(name)]
    manual = jax.sharding.get_abstract_mesh().manual_axes
    if lacking and (manual or len(lacking) < len(names)):
        here = manual or tuple(name for name in names if name not in lacking)
        raise GradtxError(
            f"{owner}: axis_names has {', '.join(map(repr, lacking))}, and the axes of this "
            f"shard_map or pmap are {', '.join(map(repr, here))}: name one of these"
        )
    return () if lacking else names


def leaf_specs(axis_names: AxisNames, leaves: Leaves, owner: str) -> Sequence[Any]:
    """For every leaf the names of its axes, or its PartitionSpec."""
    if is_spec(axis_names):
        return [axis_names] * len(leaves.values)
    rules = axis_names
    if isinstance(axis_names, Mapping) and is_patterns(axis_names, leaves):
        rules = [*axis_names.items()]
    if isinstance(rules, list | tuple) and rules and all(map(_is_rule, rules)):
        specs = claimed(rules, leaves, owner)
        for path, spec in zip(leaves.paths, specs, strict=True):
            if spec is None and not any(one is None for _, one in rules):
                raise StructureError(
                    f"{owner}: no rule of axis_names claims {path!r}: end with ('.*', names)"
                )
        return specs
    specs, treedef = jax.tree.flatten(axis_names, is_leaf=is_spec)
    values, own = jax.tree.flatten(leaves.tree, is_leaf=lambda one: one is None)
    if len(specs) != len(values):
        raise StructureError(
            f"{owner}: axis_names is a tree of {len(specs)} specs, {treedef}, and the parameters "
            f"have {len(values)} leaves, {own}: give one PartitionSpec for each leaf"
        )
    return specs


def is_patterns(axis_names: AxisNames, leaves: Leaves) -> bool:
    """Whether a dict has patterns as keys, not the keys of the tree of parameters."""
    if not isinstance(axis_names, Mapping) or not all(isinstance(one, str) for one in axis_names):
        return False
    tree = leaves.tree
    return not (isinstance(tree, Mapping) and set(tree) == set(axis_names))


def leaf_kinds(axis_names: AxisNames, leaves: Leaves, owner: str, guess: int) -> list[Any]:
    """For every leaf how it is cut; None where it is not an array.

    Where names alone are known, axis number `guess` of an array stands for the one that is cut.
    """
    specs = leaf_specs(axis_names, leaves, owner)
    each = zip(leaves.values, specs, leaves.paths, strict=True)
    return [_kind(value, spec, path, owner, guess) for value, spec, path in each]


def _kind(value: Any, spec: Any, path: str, owner: str, guess: int) -> Kind | None:
    shape = getattr(value, "shape", None)
    if shape is None:
        return None
    shape = tuple(shape)
    if isinstance(spec, PartitionSpec):
        return _kind_of_spec(value, spec, path, owner)
    names = spec_names(spec)
    if is_checked():
        names = tuple(name for name in names if name in varying(value))
    if not names or (not shape and not is_checked()):
        return Kind((None,) * len(shape), shape)
    if not shape:
        raise StructureError(
            f"{owner}: {path!r} is a number that differs over {names}: a mesh axis cuts the axis "
            f"of an array; make the number equal on all devices, by jax.lax.pmean"
        )
    axis = guess % len(shape)
    layout = tuple(names if one == axis else None for one in range(len(shape)))
    return Kind(layout, whole_shape(shape, layout), guess=len(shape) > 1)


def _kind_of_spec(value: Any, spec: PartitionSpec, path: str, owner: str) -> Kind:
    entries = [_entry(one) for one in spec]
    shape = tuple(value.shape)
    if len(entries) > len(shape):
        raise StructureError(
            f"{owner}: axis_names says {spec} for {path!r}, which has {len(shape)} axes: a "
            f"PartitionSpec has one entry for each axis"
        )
    layout: Layout = (*entries, *(None for _ in shape[len(entries) :]))
    alike = [name for name in cut_names(layout) if is_checked() and name not in varying(value)]
    if alike:
        raise StructureError(
            f"{owner}: axis_names says that {alike[0]!r} cuts {path!r}, whose type says that it is "
            f"equal along {alike[0]!r}: give axis_names the spec that shard_map has in in_specs"
        )
    return Kind(layout, whole_shape(shape, layout))


def _entry(value: Any) -> Entry:
    return None if value is None or value == () else spec_names(value)


def slot_kinds(slots: Any, shapes: Any, leaves: Leaves, kinds: Sequence[Any], owner: str) -> Any:
    """How each slot is cut: as its parameter where it has that shape, else by its sizes.

    `slots` has the parts of this device, `shapes` the whole arrays.
    """
    parts, wholes = leaves_of(slots), leaves_of(shapes)
    if parts.treedef != wholes.treedef:
        raise StateError(
            f"{owner}: the state has other slots than tx.init makes for the whole parameters: make "
            f"it by the same definition"
        )
    owners = dict(zip(leaves.paths, kinds, strict=True))
    each = zip(parts.paths, parts.values, wholes.values, strict=True)
    return [
        None if one is None else slot_kind(path, one.shape, like.shape, owners, owner)
        for path, one, like in each
    ]


def parameter_of(path: str, kinds: Mapping[str, Kind]) -> Kind | None:
    """How the parameter of a slot is cut: that whose path ends the slot's."""
    # A tree that is one array has the path "".
    matches = [one for one in kinds if one in ("", path) or path.endswith(f"/{one}")]
    return kinds[max(matches, key=len)] if matches else None


def slot_kind(
    path: str,
    shape: Sequence[int],
    whole: Sequence[int],
    kinds: Mapping[str, Any],
    owner: str,
) -> Kind:
    """How one slot is cut, by its shape here and its shape as a whole."""
    param = parameter_of(path, kinds)
    if param is not None and tuple(whole) == param.shape and tuple(shape) == _part_shape(param):
        return param
    if tuple(shape) == tuple(whole):
        return Kind((None,) * len(whole), tuple(whole))
    choices = {entry for one in kinds.values() if one for entry in one.layout if entry}
    if param is not None:
        choices = {entry for entry in param.layout if entry}
    if len(shape) == len(whole) and (param is None or not param.guess):
        layouts = [_fitting(*sizes, choices) for sizes in zip(shape, whole, strict=True)]
        layout = tuple(one[0] for one in layouts if len(one) == 1)
        if len(layout) == len(whole) and len({*cut_names(layout)}) == len(cut_names(layout)):
            return Kind(layout, tuple(whole))
    if any(one.guess for one in kinds.values() if one):
        raise AxesError(path.split("/", maxsplit=1)[0])
    raise StateError(
        f"{owner}: the slot {path!r} has the shape {tuple(shape)} on this device, and "
        f"{tuple(whole)} for the whole parameters: make the state by tx.init with the same "
        f"axis_names, and cut each slot as axis_names cuts its parameter (a PartitionSpec says "
        f"which axis)"
    )


def _fitting(part: int, whole: int, choices: Any) -> list[Any]:
    """The entries of a layout that make a part of one size from a whole of another."""
    if part == whole:
        return [None]
    return [entry for entry in choices if whole_shape((part,), (entry,)) == (whole,)]


def _part_shape(kind: Kind) -> tuple[int, ...]:
    """The shape that a device holds."""
    scaled = whole_shape([1] * len(kind.shape), kind.layout)
    return tuple(size // parts for size, parts in zip(kind.shape, scaled, strict=True))


def init_layout(path: str, shape: Sequence[int], kinds: Mapping[str, Any]) -> Layout:
    """How a new slot is cut: as its parameter, or along the one axis of that parameter's size."""
    param, none = parameter_of(path, kinds), (None,) * len(shape)
    if param is None or not param.shape:
        return none
    if tuple(shape) == param.shape:
        return param.layout
    layout: list[Entry] = []
    for size in shape:
        axes = [axis for axis, one in enumerate(param.shape) if one == size]
        entry = param.layout[axes[0]] if len(axes) == 1 else None
        layout.append(None if {*cut_names((entry,))} & {*cut_names(layout)} else entry)
    return tuple(layout)


def tree_of(leaves: Leaves, values: Sequence[Any]) -> Any:
    """A tree like that of the leaves, with other values."""
    return leaves._replace(values=values).tree


def leaves_like(leaves: Leaves, tree: Any) -> Sequence[Any] | None:
    """The leaves of a tree of the same structure; None for another."""
    values, treedef = flatten(tree)
    return values if treedef == leaves.treedef else None
