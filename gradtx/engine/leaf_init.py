"""The first slots of a rule on arrays: strongly typed arrays, none of them the parameter itself."""

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.extend.core import Jaxpr, jaxpr_as_fun

from gradtx.definition.errors import StructureError
from gradtx.definition.show import show_array
from gradtx.engine.matrix_rules import init_matrices
from gradtx.engine.rules import select_kwargs
from gradtx.engine.slot_form import SlotForm
from gradtx.engine.slots import join_tree_slots, pack
from gradtx.engine.zero_slots import zero_slots
from gradtx.tree.casts import ALIKE, as_array, cast_inexact, mixed_promotion, real_dtype
from gradtx.tree.cut_along import cut_along, is_decided_later
from gradtx.tree.jaxprs import read, run_segment, split_at, start
from gradtx.tree.kernels import bundle_size
from gradtx.tree.known_shardings import known_sharding

if TYPE_CHECKING:
    from gradtx.engine.clock import Clock
    from gradtx.engine.leaf_rule import LeafRule
    from gradtx.engine.program import BoundRule
    from gradtx.engine.selector import Leaves


def init_leaves(rule: "LeafRule", bound: "BoundRule", leaves: "Leaves", clock: "Clock") -> Any:
    """Make the slots of every leaf that a rule acts on, and its tree slots."""
    active = bound.active(leaves)
    layouts = rule.layouts(bound, leaves, active)  # raises an error at a leaf that is not a matrix
    if rule.multipliers is not None:
        rule.multipliers.factors(bound, leaves)  # raises an error where they do not fit the tree
    if not rule.keeps:
        return None
    values = [
        as_array(value) if one and not hasattr(value, "dtype") else value
        for one, value in zip(active, leaves.values, strict=True)
    ]
    kwargs = {**clock.resolve(bound.hyperparams), **rule.options.values}
    tree_slots = _init_tree_slots(
        rule, kwargs, [v for v, one in zip(values, active, strict=True) if one]
    )
    form = _form(rule, bound.name)
    if form is None:
        return tree_slots
    policies = [None] * len(values) if rule.storage is None else rule.storage.leaf_policy(leaves)
    makes = [
        functools.partial(
            init_leaf,
            rule,
            bound.name,
            path=leaves.paths[index],
            kwargs=kwargs,
            policy=policies[index],
            layout=layouts[index] if layouts else None,
        )
        for index in range(len(values))
    ]
    kinds = [(policy, *layouts[n : n + 1]) for n, policy in enumerate(policies)]
    shared = _slots_by_type(makes, values, kinds, active)
    rows = [
        (shared.get(index) or make(value)) if is_active else None
        for index, (make, value, is_active) in enumerate(zip(makes, values, active, strict=True))
    ]
    return join_tree_slots(pack(form, rows, leaves), tree_slots)


def _form(rule: "LeafRule", name: str) -> SlotForm | None:
    """The form of the slots, for which `init` may run on shapes; an error names the rule."""
    try:
        return rule.stored_form
    except Exception as error:
        function = getattr(rule.init_array, "__name__", "init")
        error.add_note(f"raised in {function} of {name}, run on shapes alone")
        raise


def _slots_by_type(
    makes: Sequence[Any], values: Sequence[Any], kinds: Sequence[Any], active: Sequence[bool]
) -> dict[int, Any]:
    """Within a trace, the slots of leaves by their number, traced once for each type."""
    places: dict[Any, list[int]] = {}
    for n, value in enumerate(values):
        if active[n] and isinstance(value, Tracer):
            places.setdefault((jax.typeof(value), *kinds[n]), []).append(n)
    groups = list(places.values())
    if not groups:
        return {}
    if is_decided_later(values[groups[0][0]]):
        return _slots_like_leaves(makes, values, groups)
    return _shared_slots(makes, values, groups)


def _slots_like_leaves(
    makes: Sequence[Any], values: Sequence[Any], groups: Sequence[Sequence[int]]
) -> dict[int, Any]:
    """The slots of leaves that XLA may cut over devices, each cut as its leaf."""
    slots = {}
    for indices in groups:
        rows = [values[n] for n in indices]
        slots.update(zip(indices, _call_rows(_cut_as_leaf(makes[indices[0]], rows[0]), rows)))
    return slots


def _call_rows(function: Any, rows: Sequence[Any]) -> list[Any]:
    """A function of each row, in about √n calls of programs that are traced once."""
    if len(rows) == 1:
        return [function(rows[0])]
    one = jax.jit(function)
    many = jax.jit(functools.partial(_each_row, one))
    size = bundle_size(len(rows))
    bundles = [many(rows[first : first + size]) for first in range(0, len(rows), size)]
    return list(itertools.chain(*bundles))


def _each_row(function: Any, rows: Sequence[Any]) -> list[Any]:
    return [function(row) for row in rows]


def _cut_as_leaf(make: Any, value: jax.Array) -> Any:
    """A function that makes the slots of a leaf, and cuts its constants of the leaf's shape."""
    closed, shapes = jax.make_jaxpr(make, return_shape=True)(value)
    leaves, treedef = jax.tree.flatten(shapes)
    (variable,) = closed.jaxpr.invars
    is_constant = [
        out.shape == value.shape and not _depends(closed.jaxpr, [variable_out], variable)
        for out, variable_out in zip(leaves, closed.jaxpr.outvars, strict=True)
    ]
    return functools.partial(_run_cut, closed, treedef, is_constant)


def _run_cut(closed: Any, treedef: Any, is_constant: Sequence[bool], value: jax.Array) -> Any:
    outs = jaxpr_as_fun(closed)(value)
    cut = [
        cut_along(out, value) if flag else out for out, flag in zip(outs, is_constant, strict=True)
    ]
    return jax.tree.unflatten(treedef, cut)


def _shared_slots(
    makes: Sequence[Any], values: Sequence[Any], groups: Sequence[Sequence[int]]
) -> dict[int, Any]:
    """The slots of the leaves whose slots do not depend on them.

    Leaves of one type share them. An array that a jitted function returns twice gets two buffers,
    so that both may be donated.
    """
    firsts = [indices[0] for indices in groups]
    slots = _constant_slots([makes[n] for n in firsts], [values[n] for n in firsts])
    return {n: one for one, indices in zip(slots, groups, strict=True) for n in indices}


def _constant_slots(makes: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    """The slots of some leaves, traced together once; None where they depend on their leaf."""
    closed, shapes = jax.make_jaxpr(functools.partial(_make_each, makes), return_shape=True)(values)
    sizes = [len(jax.tree.leaves(shape)) for shape in shapes]
    ends = [0, *itertools.accumulate(sizes)]
    outs = [closed.jaxpr.outvars[first:end] for first, end in itertools.pairwise(ends)]
    is_constant = [
        not _depends(closed.jaxpr, out, variable)
        for out, variable in zip(outs, closed.jaxpr.invars, strict=True)
    ]
    constant = [one for one, flag in zip(outs, is_constant, strict=True) if flag]
    known = start(closed, values)
    run_segment(closed.jaxpr, split_at(closed.jaxpr, itertools.chain(*constant))[0], known)
    return [
        jax.tree.unflatten(jax.tree.structure(shape), [read(known, one) for one in out])
        if flag
        else None
        for shape, out, flag in zip(shapes, outs, is_constant, strict=True)
    ]


def _make_each(makes: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    return [make(value) for make, value in zip(makes, values, strict=True)]


def _depends(jaxpr: Jaxpr, outs: Sequence[Any], variable: Any) -> bool:
    """Whether any of some results of a program is computed from a variable."""
    before, _ = split_at(jaxpr, outs)
    atoms = itertools.chain(outs, *(equation.invars for equation in before))
    return any(atom is variable for atom in atoms)


def init_leaf(
    rule: "LeafRule",
    name: str,
    param: Any,
    path: str,
    kwargs: Mapping[str, Any],
    policy: Any = None,
    layout: Any = None,
) -> Any:
    """Make the slots of one leaf, as a state holds them; None for what this leaf does without."""
    if rule.init_array is None:
        return None
    check_real(rule, name, param, path)
    values = select_kwargs(rule.init_array, {**kwargs, "path": path})
    try:
        with mixed_promotion() if jnp.issubdtype(param.dtype, jnp.complexfloating) else ALIKE:
            slots = init_matrices(rule.init_array, rule.options, layout, param, **values)
    except Exception as error:
        function = rule.init_array.__name__
        error.add_note(
            f"raised at {path!r}, a parameter {show_array(param)}, in {function} of {name}"
        )
        raise
    slots = type(slots)(*(None if slot is None else _own(slot, param) for slot in slots))
    if rule.storage is None:
        return slots
    zeros = frozenset[str]()
    # A constant of a trace is no tracer, and its slots are.
    is_traced = any(isinstance(one, Tracer) for one in jax.tree.leaves((param, slots)))
    if policy is not None and not is_traced:
        zeros = zero_slots(rule.init_array, rule.options, layout, param, values)
    return _encode(rule.storage, slots, param, policy, zeros)


def _encode(storage: Any, slots: Any, param: Any, policy: Any, zeros: frozenset[str]) -> Any:
    """The slots as they are stored; before and after, those in the parameter's shape are cut as it.

    Two slots may share an array, so they must be cut alike; of codes XLA may have cut fewer axes.
    """
    alike = jax.tree.map(functools.partial(_cut_if_alike, param), slots)
    stored = storage.encode_init(alike, param, policy, zeros)
    return jax.tree.map(functools.partial(_cut_if_alike, param), stored)


def _cut_if_alike(param: Any, array: Any) -> Any:
    """An array, cut as a parameter of its shape where that is cut over devices, or may be."""
    if array.shape != param.shape or not array.ndim:
        return array
    is_cut = is_decided_later(param) or known_sharding(param) is not None
    return cut_along(array, param) if is_cut else array


def check_real(rule: "LeafRule", name: str, array: Any, path: str) -> None:
    """Raise where a rule that is not defined for complex numbers would act on them."""
    if rule.real_only and jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise StructureError(
            f"{name} is not defined for complex numbers, and {path!r} is {show_array(array)}: "
            f"leave that leaf out with masked(...)"
        )


def _own(slot: Any, param: Any) -> jax.Array:
    """An array that may be donated and carried: not the parameter's buffer, not weakly typed."""
    array = as_array(slot)
    must_copy = slot is param or array.weak_type
    return jnp.array(array, dtype=array.dtype, copy=True) if must_copy else array


def _init_tree_slots(rule: "LeafRule", kwargs: Mapping[str, Any], arrays: Sequence[Any]) -> Any:
    """Make the scalars of the whole tree, in the widest precision that any leaf is computed in."""
    if rule.init_tree_slots is None:
        return None
    slots = rule.init_tree_slots(**select_kwargs(rule.init_tree_slots, kwargs))
    dtype = widest_dtype(arrays)
    return type(slots)(*(_own(cast_inexact(value, dtype), None) for value in slots))


def widest_dtype(arrays: Sequence[Any]) -> Any:
    """The real dtype that holds what any of some arrays is computed in."""
    dtypes = {real_dtype(jnp.result_type(array)) for array in arrays}
    # Not by `widest`: a cold update enters one function less.
    with jax.numpy_dtype_promotion("standard"):
        return functools.reduce(jnp.promote_types, dtypes, jnp.float32)
